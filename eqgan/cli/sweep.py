"""``eqgan sweep``: the runs of a grid of settings and seeds, by workers here or on a cluster."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from eqgan.cli.command import CommandParser, as_json, run_command, whole
from eqgan.cli.sweep_file import Sweep, SweptRun, read_sweep, table_row
from eqgan.console import console, fail
from eqgan.files import atomic_write
from eqgan.training.callbacks.record import write_rows
from eqgan.training.lock import RunLock

EXAMPLES = """\
  eqgan sweep configs/sweeps/data_efficiency.yaml --dry-run     what there is to do
  eqgan sweep configs/sweeps/data_efficiency.yaml --workers 4   four runs at a time on this machine
  eqgan sweep configs/sweeps/data_efficiency.yaml --cluster slurm --workers 50
  eqgan sweep configs/sweeps/data_efficiency.yaml --json        the merged results as JSON

The same command again goes on: finished runs are not repeated, others are resumed. A sweep file:

  command: train                   or classify
  settings: {data: rotmnist}       of every run, as typed after the command
  grid: {disc: [z2, p4], fraction: [0.01, 0.1, 1.0]}
  seeds: 3                         or a list of them
  slurm: {partition: gpu, time: 600, gres: "gpu:1"}     of the jobs of a cluster
"""
UNSHOWN = ("run", "precision", "recall", "density", "coverage", "training_seconds")  # a screen is narrow
POLL = 1.0  # seconds between two looks at the workers


def sweep(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Does a sweep from command-line words; what ``--json`` prints is returned."""
    return run_command(_parser(), _sweep, argv)


def _parser() -> CommandParser:
    parser = CommandParser("sweep", "Train a grid of settings and seeds; merge the results.", EXAMPLES)
    parser.add_argument("file", type=Path, help="the sweep, as YAML")
    parser.add_argument("--out", type=Path, default=Path("sweeps"), help="parent of sweeps/<name>")
    parser.add_argument("--workers", type=whole(1), default=1, help="runs at a time (default 1)")
    parser.add_argument(
        "--cluster", choices=("local", "slurm"), default="local", help="where workers run (default local)"
    )
    parser.add_argument(
        "--retries", type=whole(0), default=3, help="times a run is resumed after its worker died (default 3)"
    )
    parser.add_argument("--dry-run", action="store_true", help="list the runs, and start none")
    return parser


def _sweep(options: argparse.Namespace) -> dict[str, Any]:
    plan = read_sweep(options.file, options.out)
    states = {run.name: _state(run) for run in plan.runs}
    if options.dry_run:
        return _listed(plan, states, options.json)
    folder = options.out / plan.name
    _require_same_words(plan, folder)
    failures = _work(plan, folder, options)
    merged = merge(plan, folder, failures)
    if options.json:
        print(as_json(merged))
    else:
        _show(merged, folder)
    if failures:
        told = "; ".join(f"{name}: {why}" for name, why in failures.items())
        fail(f"{len(failures)} of {len(plan.runs)} runs failed ({told}); the others: {folder}/results.csv")
    return merged


def _state(run: SweptRun) -> str:
    if run.folder.summary.is_file():
        return "finished"
    return "begun" if run.begun else "new"


def _listed(plan: Sweep, states: dict[str, str], as_it_is: bool) -> dict[str, Any]:
    told = {
        "sweep": plan.name,
        "command": plan.command,
        "runs": [{"run": r.name, "state": states[r.name], "words": list(r.words)} for r in plan.runs],
    }
    if as_it_is:
        print(as_json(told))
    else:
        for run in plan.runs:
            print(f"{states[run.name]:<9} {run.name}: {' '.join(run.words)}")
    return told


def _require_same_words(plan: Sweep, folder: Path) -> None:
    """A run that was begun goes on with its own settings: those of the file must still be the same."""
    path = folder / "runs.json"
    before = json.loads(path.read_text()) if path.is_file() else {}
    for run in plan.runs:
        if run.begun and before.get(run.name, list(run.words)) != list(run.words):
            raise ValueError(
                f"run {run.name!r} was begun as {' '.join(before[run.name])!r}, the file now says "
                f"{' '.join(run.words)!r}. Give the sweep another name, or remove {run.folder.logs}"
            )
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(before | {run.name: list(run.words) for run in plan.runs}, indent=1))


class Worker:
    """Begins a run, or goes on with it; made here, called in a process or on a machine of its own.

    Args:
        run: which.
        command: of the command line.
    """

    def __init__(self, run: SweptRun, command: str) -> None:
        self.run, self.command = run, command

    def __call__(self) -> str:
        """Returns what became of it. A worker that is killed returns nothing, and is replaced by another."""
        while _written_elsewhere(self.run):
            time.sleep(5 * POLL)
        if self.run.folder.summary.is_file():
            return "finished"
        module, name = {"train": ("train", "train_gan"), "classify": ("classify", "classify")}[self.command]
        try:
            getattr(import_module(f"eqgan.cli.{module}"), name)(self.run.words_now())
        except SystemExit as end:
            if end.code not in (0, 1, 2, None):
                raise RuntimeError(f"stopped with status {end.code}") from None
            return "finished" if not end.code else "failed"
        return "finished"

    def checkpoint(self) -> Any:
        """Asked for by a cluster that takes the machine away: the same again, which goes on."""
        return import_module("submitit").helpers.DelayedSubmission(self)


def _written_elsewhere(run: SweptRun) -> bool:
    """By the worker of a sweep that is gone, or goes on on another machine."""
    try:
        RunLock(run.folder.lock).acquire().release()
    except BlockingIOError:
        return True
    return False


def _work(plan: Sweep, folder: Path, options: argparse.Namespace) -> dict[str, str]:
    """Keeps ``--workers`` runs going until none is left; why those that failed did, by name."""
    waiting = [run for run in plan.runs if not run.folder.summary.is_file()]
    if not waiting:
        return {}
    executor = _executor(plan, folder / "jobs", options)
    places = list(range(options.workers))
    going: dict[int, tuple[SweptRun, Any]] = {}
    tries: dict[str, int] = {}
    failures: dict[str, str] = {}
    try:
        while waiting or going:
            while waiting and len(going) < options.workers:
                place = next(place for place in places if place not in going)
                run = waiting.pop(0)
                going[place] = run, _submit(executor, Worker(run, plan.command), place, options.cluster)
                tries[run.name] = tries.get(run.name, 0) + 1
            time.sleep(POLL)
            for place, (run, job) in list(going.items()):
                if not job.done():
                    continue
                del going[place]
                if run.folder.summary.is_file():
                    _tell(f"finished {run.name}")
                    merge(plan, folder, failures)
                elif complaint := _complaint(job):
                    failures[run.name] = complaint
                elif tries[run.name] <= options.retries:
                    _tell(f"the worker of {run.name} died: another one goes on with it")
                    waiting.insert(0, run)
                else:
                    failures[run.name] = f"its worker died {tries[run.name]} times ({job.paths.stderr})"
    finally:
        for _, job in going.values():
            job.cancel(check=False)
    return failures


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _executor(plan: Sweep, folder: Path, options: argparse.Namespace) -> Any:
    try:
        submitit = import_module("submitit")
    except ImportError:
        raise ValueError("eqgan sweep starts its workers with submitit: pip install -e '.[sweep]'") from None
    folder.mkdir(parents=True, exist_ok=True)
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=options.cluster)
        minutes = 60 * 24 * 7 if options.cluster == "local" else 600
        executor.update_parameters(name=plan.name, timeout_min=minutes)
        if options.cluster == "slurm":
            executor.update_parameters(**{f"slurm_{key}": value for key, value in plan.slurm.items()})
    except (RuntimeError, NameError, TypeError) as error:
        raise ValueError(f"--cluster {options.cluster}: {' '.join(str(error).split())}") from error
    return executor


def _submit(executor: Any, worker: Worker, place: int, cluster: str) -> Any:
    """A GPU for each worker of this machine, in turn, if it has any; a cluster gives its own."""
    if cluster == "local" and torch.cuda.is_available():
        executor.update_parameters(gpus_per_node=1, local_visible_gpus=[place % torch.cuda.device_count()])
    return executor.submit(worker)


def _complaint(job: Any) -> str:
    """The line with which a run refused to go on, empty if its worker died instead."""
    try:
        if job.result() != "failed":
            return ""
    except Exception:  # submitit has several kinds, all of them say that there is no result
        return ""
    lines = [line for line in job.paths.stderr.read_text().splitlines() if line.startswith("eqgan: error: ")]
    return lines[-1].removeprefix("eqgan: error: ") if lines else f"see {job.paths.stderr}"


def merge(plan: Sweep, folder: Path, failures: dict[str, str]) -> dict[str, Any]:
    """Every run with its summary, read anew from the runs themselves; written as JSON and as CSV."""
    states = {run.name: "failed" if run.name in failures else _state(run) for run in plan.runs}
    summaries = {run.name: run.summary() for run in plan.runs}
    rows = [table_row(run, states[run.name], summaries[run.name]) for run in plan.runs]
    merged = {
        "sweep": plan.name,
        "command": plan.command,
        "table": rows,
        "failures": failures,
        "runs": summaries,
    }
    with atomic_write(folder / "results.json") as temporary:
        temporary.write_text(as_json(merged) + "\n")
    write_rows(folder / "results.csv", rows)
    return merged


def _show(merged: dict[str, Any], folder: Path) -> None:
    rows = merged["table"]
    columns = [c for c in dict.fromkeys(key for row in rows for key in row) if c not in UNSHOWN]
    table = Table(title=f"sweep {merged['sweep']}", title_justify="left")
    for column in columns:
        table.add_column(column, no_wrap=column == "state", overflow="fold")
    for row in rows:
        table.add_row(*(_written(row.get(column)) for column in columns))
    console().print(table)
    print(f"results: {folder}/results.json, {folder}/results.csv; pages: eqgan compare {folder}/logs/*")


def _written(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
