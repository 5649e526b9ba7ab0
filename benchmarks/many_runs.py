"""What the programs share that train many networks: one run, all of them, and their scores over seeds."""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import yaml
from speed import write

from eqgan.cli import parse_gan, train_gan
from eqgan.cli.classify import parse_classify
from eqgan.cli.runs import FREE_ON_RESUME, plain_settings
from eqgan.cli.together import INTERRUPTED
from eqgan.files import atomic_write
from eqgan.training.base import flatten
from eqgan.training.lock import RunLock
from eqgan.training.report import versions

HERE = Path(__file__).resolve().parent
CONFIGS = HERE.parent / "configs" / "classify"
NO_SETTINGS = ("name", "seed", "epochs", "log_dir", "init", "trainer", "rollbacks")  # places, or kept beside
RUN = "import sys; from eqgan.cli.classify import classify; classify(sys.argv[1:])"


@dataclass(frozen=True)
class Task:
    """One run: a row, a share of the training images, a seed."""

    row: str
    fraction: float
    seed: int

    @property
    def name(self) -> str:
        share = "" if self.fraction == 1 else f"-{100 * self.fraction:g}pct"
        return f"{self.row}{share}-s{self.seed}"

    def words(self, epochs: int | None, source: str) -> list[str]:
        row, _, augmented = self.row.partition("+")
        path = CONFIGS / f"{row}.yaml"
        epochs = epochs or int(yaml.safe_load(path.read_text())["epochs"])
        words = ["--config", str(path), "--data", source, "--fraction", str(self.fraction)]
        if (passes := round(1 / self.fraction)) > 1:
            words += ["--dataset.passes", str(passes)]
        words += ["--seed", str(self.seed), "--epochs", str(epochs)]
        return words + (["--augment", augmented] if augmented else [])


def run(task: Task, work: Path, epochs: int | None, source: str, extra: list[str]) -> dict[str, Any]:
    """Trains one run, or goes on with it, or finds it finished; its summary."""
    folder = work / "logs" / task.name
    summary = folder / "summary.json"
    words = task.words(epochs, source)
    if summary.is_file():
        found = json.loads(summary.read_text())["settings"]
        require_planned(found, plain_settings(*parse_classify([*words, *extra])), folder)
    else:
        resume = (folder / "config.yaml").is_file()
        words += ["--log_dir", str(work / "logs"), *extra]
        words += ["--resume" if resume else "--name", task.name]
        log = work / f"{task.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        with log.open("a") as file:
            code = subprocess.run(
                [sys.executable, "-c", RUN, *words], stdout=file, stderr=file, env={**os.environ, **threads}
            ).returncode
        if code:
            raise RuntimeError(f"{task.name} ended with status {code}; see {log}")
    return json.loads(summary.read_text()) | {"training_error": training_error(folder)}


def training_error(folder: Path) -> float:
    """Of the last epoch, on its batches as they were trained on."""
    with (folder / "metrics.csv").open() as file:
        return 1 - float(list(csv.DictReader(file))[-1]["accuracy"])


def require_planned(settings: dict[str, Any], planned: dict[str, Any], folder: Path) -> None:
    """Raises RuntimeError for a finished run of other settings, made for another call."""
    if different := unlike(settings, planned):
        told = f"{folder} holds a run with other settings ({', '.join(different)})"
        raise RuntimeError(f"{told}: choose another --work")


def record(task: Task, summary: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a run."""
    kept = (
        "parameters",
        "multiply_adds",
        "group",
        "epochs",
        "steps",
        "training_seconds",
        "images_per_second",
    )
    turned = summary.get("turns", 1) > 1
    settings = {key: value for key, value in summary["settings"].items() if key not in NO_SETTINGS}
    settings["dataset"] = {key: value for key, value in settings["dataset"].items() if key != "root"}
    ways = [way for paths in summary["convolution_paths"].values() for way in paths.values()]
    return {
        "row": task.row,
        "fraction": task.fraction,
        "seed": task.seed,
        "training_images": summary["data"]["train"],
        **{key: summary[key] for key in kept},
        "test": _scores(summary["test"]),
        **({"turns": summary["turns"], "test_unturned": _scores(summary["test_unturned"])} if turned else {}),
        **{key: summary[key] for key in ("training_error", "invariance_error")},
        "invariance_group": summary.get("invariance_group", summary["group"]),
        "settings": settings,
        "convolutions": dict(Counter(ways)),
        "hardware": summary["versions"]["hardware"],
    }


def _scores(tests: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: {key: scores[key] for key in ("error", "auc", "count")} for name, scores in tests.items()}


def over_seeds(runs: dict[str, Any], kept: tuple[str, ...], score: str) -> list[dict[str, Any]]:
    """One entry for each row and share: mean, deviation, least, greatest over seeds of each test."""
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for one in runs.values():
        groups.setdefault((one["row"], one["fraction"]), []).append(one)
    entries = []
    for (row, fraction), mine in groups.items():
        entry = {"row": row, "fraction": fraction, "seeds": sorted(r["seed"] for r in mine)}
        entry |= {key: mine[0][key] for key in kept}
        for test in mine[0]["test"]:
            values = [r["test"][test][score] for r in mine]
            entry[f"{score}_{test}"] = {
                "mean": statistics.mean(values),
                "deviation": statistics.stdev(values) if len(values) > 1 else None,
                "min": min(values),
                "max": max(values),
            }
        entries.append(entry)
    return sorted(entries, key=lambda entry: (entry["row"], entry["fraction"]))


def run_all(
    waiting: list[Task],
    jobs: int,
    runs: dict[str, Any],
    start: Callable[[Task], dict[str, Any]],
    keep: Callable[[], None],
    shown: Callable[[dict[str, Any]], str],
) -> None:
    """Starts runs side by side, and keeps the record of each as it ends.

    Args:
        runs: by name; those that are there already are not repeated.
        start: runs one, to its summary.
        keep: called after each, and at the end.
        shown: what to print of the scores on each test.

    Raises:
        SystemExit: at the end, naming the runs that failed.
    """
    failed: list[str] = []
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(start, task): task for task in waiting if task.name not in runs}
        for done in as_completed(running):
            task = running[done]
            if error := done.exception():
                failed.append(task.name)
                print(error, file=sys.stderr, flush=True)
                continue
            runs[task.name] = record(task, done.result())
            keep()
            tests = runs[task.name]["test"].items()
            print(task.name, *(f"{name} {shown(scores)}" for name, scores in tests), flush=True)
    keep()
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def begun(program: str, plan: dict[str, Any], out: Path, more: tuple[str, ...] = ()) -> dict[str, Any]:
    """What a results file will hold, with the runs of the one that is there.

    Args:
        more: what else is kept of that one, by name.

    Raises:
        SystemExit: if that one is of another plan; nothing is lost.
    """
    known = json.loads(out.read_text()) if out.is_file() else {**plan, "runs": {}}
    if other := [
        f"{key} {known.get(key)}, now {value}" for key, value in plan.items() if known.get(key) != value
    ]:
        raise SystemExit(f"{out} holds the results of another plan ({'; '.join(other)}): give another --out")
    result = {"program": f"benchmarks/{program}.py", **plan, "versions": versions(), "table": []}
    return result | {key: known.get(key, {}) for key in (*more, "runs")}


def numbers(text: str) -> list[float]:
    """Those of an option, separated by commas."""
    return [float(number) for number in text.split(",") if number]


def draw_errors(rows: list[dict[str, Any]], test: str, marks: dict[str, str], path: Path) -> None:
    """A bar for each row trained on all images, with its deviation, and marks for what others reported.

    Args:
        marks: key of a row to the mark drawn for what is there, if it is.
    """
    whole = [row for row in rows if row["fraction"] == 1]
    if not whole:
        return
    figure, axis = plt.subplots(figsize=(8, 0.45 * len(whole) + 1.5), layout="constrained")
    for place, row in enumerate(whole):
        error = row[f"error_{test}"]
        axis.barh(place, 100 * error["mean"], xerr=100 * (error["deviation"] or 0), color="#9ecae1")
        axis.text(0.1, place, f"{100 * error['mean']:.2f}", va="center")
    for key, mark in marks.items():
        known = [(100 * row[key], place) for place, row in enumerate(whole) if row.get(key) is not None]
        if known:
            axis.plot(*zip(*known), mark, markersize=14, markeredgewidth=2, label=key.replace("_", " "))
    axis.set_yticks(range(len(whole)), [row["row"] for row in whole])
    axis.set_xlabel(f"test error on {test}, %")
    if axis.get_legend_handles_labels()[0]:
        figure.legend(loc="outside upper right")
    save(figure, path)


def parser_of_runs(
    name: str, description: str, check: str, quick: str | None = None
) -> argparse.ArgumentParser:
    """The options of every program that plans many runs of classifiers.

    Args:
        name: of its results and folder.
        check: what is run to see that the program works.
        quick: the form for few cores, if it has one.
    """
    parser = new_parser(name, description)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=None, help="default: that of the form or each config")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--check", action="store_true", help=f"{check}: to see that the program works")
    if quick is not None:
        which.add_argument("--quick", action="store_true", help=quick)
    return parser


def parser_of_forms(name: str, description: str, quick: str) -> argparse.ArgumentParser:
    """The options of the programs that train GANs in a full, a quick or a check form, and write a page."""
    parser = new_parser(name, description)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--quick", action="store_true", help=quick)
    which.add_argument("--check", action="store_true", help="a few steps on the embedded digits")
    parser.add_argument("--report", action="store_true", help="run nothing, report what is finished")
    parser.add_argument("--docs", type=Path, default=HERE.parent / "docs")
    return parser


class ProgramParser(argparse.ArgumentParser):
    """Sees to it that a check replaces no result: what it would write here by default goes to its --work."""

    def parse_known_args(self, *args: Any, **options: Any) -> Any:
        found, rest = super().parse_known_args(*args, **options)
        if getattr(found, "check", False):
            for name, value in vars(found).items():
                if isinstance(value, Path) and value == self.get_default(name) and name != "work":
                    setattr(found, name, found.work / value.relative_to(HERE.parent))
        return found, rest


def new_parser(name: str, description: str) -> argparse.ArgumentParser:
    """Where the data are, the runs, and the results."""
    parser = ProgramParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", default=None)
    parser.add_argument("--work", type=Path, default=Path(f"runs_{name}"), help="where runs lie")
    parser.add_argument("--out", type=Path, default=HERE / "results" / f"{name}.json")
    return parser


def root_words(options: argparse.Namespace) -> list[str]:
    """The data root as words of a command line."""
    return [] if options.data_root is None else ["--data-root", options.data_root]


def kept_or_made(
    work: Path, name: str, words: list[str], make: Callable[[], dict[str, Any]]
) -> dict[str, Any] | None:
    """The record of a finished run, made now if it is not there yet; None while another process makes it.

    Raises:
        RuntimeError: for the record of a run that other words made.
    """
    kept = work / "results" / f"{name}.json"
    try:
        with RunLock(work / "locks" / f"{name}.lock"):
            if not kept.is_file():
                write(kept, {**make(), "command": words})
            return read_record(kept, words)
    except BlockingIOError:
        return None


def read_record(path: Path, words: list[str] | None = None) -> dict[str, Any]:
    """A record that ``kept_or_made`` wrote, without its words, which must be these if any are given."""
    found: dict[str, Any] = json.loads(path.read_text())
    made_by = found.pop("command", words)
    if words is not None and made_by != words:
        raise RuntimeError(f"{path} is of a run with other settings: choose another --work")
    return found


def each(names: Iterable[str], make: Callable[[str], dict[str, Any] | None]) -> list[str]:
    """Makes these records one after the other; the names of those that failed, whose errors are printed."""
    failed = []
    for name in names:
        try:
            found = make(name)
        except (Exception, SystemExit) as error:
            if isinstance(error, SystemExit) and error.code == INTERRUPTED:
                raise
            failed.append(name)
            print(f"{name}: {error}", file=sys.stderr, flush=True)
        else:
            print(name, "held by another process" if found is None else found["fid"], flush=True)
    return failed


def gan_summary(work: Path, name: str, words: list[str]) -> dict[str, Any]:
    """The summary of a GAN's run, which is begun, gone on with, or found finished."""
    logs = work / "logs" / name
    if (logs / "summary.json").is_file():
        found = json.loads((logs / "summary.json").read_text())
        require_planned(found["settings"], plain_settings(*parse_gan(words)), logs)
        return found
    how = ["--resume", name] if (logs / "config.yaml").is_file() else ["--name", name]
    return train_gan([*words, *places(work), *how])


def unlike(settings: dict[str, Any], planned: dict[str, Any]) -> list[str]:
    """The settings of a run that are not as planned, where the plan says anything."""
    free = {*FREE_ON_RESUME, "precision"} - {"epochs", "trainer"}
    found = dict(flatten(settings))
    return [
        key
        for key, value in flatten(planned)
        if value is not None and not key.startswith(tuple(free)) and found.get(key) != value
    ]


def places(work: Path) -> list[str]:
    """Where the runs of GANs lie."""
    return ["--log_dir", str(work / "logs"), "--samples_dir", str(work / "samples")]


def save(figure: Any, path: Path, dpi: int = 110) -> None:
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=dpi)
    plt.close(figure)
