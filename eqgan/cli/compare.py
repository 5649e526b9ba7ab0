"""``eqgan compare``: several runs on one page that needs no network."""

import argparse
import base64
import html
import json
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from rich.table import Column, Table

import eqgan
from eqgan.cli.command import CommandParser, as_json, named_run, require_replaceable, run_command, whole
from eqgan.console import console
from eqgan.files import atomic_write
from eqgan.training.comparison import (
    AXES,
    SCORES,
    RunRecord,
    compressed,
    differences,
    evenly,
    final_numbers,
    has_recorded,
    read_runs,
    scored_differently,
)
from eqgan.training.folder import is_of_classifier

EXAMPLES = """\
  eqgan compare logs/a logs/b                      curves, grids and numbers in compare.html
  eqgan compare logs/* --out report.html
  eqgan compare a b c --log-dir elsewhere/logs     runs by their names
  eqgan compare logs/a logs/b --json               the closing numbers and differing settings as JSON
"""

# key, heading, how it is written, which way is better
COLUMNS = (
    ("fid_min", "minimum FID", "score", "lower"),
    ("fid_min_epoch", "at epoch", "count", None),
    ("fid_final", "final FID", "score", "lower"),
    ("precision", "precision", "share", "higher"),
    ("recall", "recall", "share", "higher"),
    ("density", "density", "share", "higher"),
    ("coverage", "coverage", "share", "higher"),
    ("epochs", "epochs", "count", None),
    ("training_seconds", "training", "duration", None),
    ("images_per_second", "images/s", "count", None),
    ("discriminator_parameters", "parameters of D", "count", None),
    ("invariance_error", "invariance error of D", "number", None),
)

_MARK = "Written by eqgan "  # at the foot of every page
_YOUNG = "a run without an epoch yet"
_NO_RUN = "a folder without a config.yaml: no run"
_CLASSIFIER = "the run of a classifier (eqgan classify)"


def compare(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Compares runs from command-line words; what ``--json`` prints is returned."""
    return run_command(_parser(), _compare, argv)


def _parser() -> CommandParser:
    parser = CommandParser(
        "compare", "Write one self-contained page of the curves, grids and settings of runs.", EXAMPLES
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run, such as logs/a, or its name")
    parser.add_argument(
        "--out", type=Path, default=Path("compare.html"), help="the page (default %(default)s)"
    )
    parser.add_argument("--log-dir", type=Path, default=Path("logs"), help="where runs given by name lie")
    parser.add_argument("--samples-dir", type=Path, help="parent of samples/<run>, if it was moved")
    parser.add_argument("--grids", type=whole(1), default=60, help="most grids kept of a run (default 60)")
    return parser


def _compare(options: argparse.Namespace) -> dict[str, Any]:
    require_replaceable(options.out, (".html", ".htm"), "a page of eqgan compare", _MARK)
    folders = [named_run(name, options.log_dir) for name in options.runs]
    if len(folders) > 1:
        folders = _of_gans(folders, options.samples_dir)
    runs = read_runs(folders, options.samples_dir)
    if not any(run.best() for run in runs):
        raise ValueError(
            f"none of these runs has a score yet ({', '.join(run.label for run in runs)}). "
            "Wait for the first evaluation; --evaluation.every sets how often there is one."
        )
    with atomic_write(options.out) as temporary:
        temporary.write_text(page(runs, options.grids), encoding="utf-8")
    finals = [final_numbers(run) for run in runs]
    told = {"page": str(options.out), "runs": finals, "differences": differences(runs)}
    told["scored_differently"] = scored_differently(runs)
    if options.json:
        print(as_json(told))
    else:
        _show(runs, finals, options.out)
    return told


def _of_gans(folders: list[Path], samples_root: Path | None) -> list[Path]:
    """Without what ``logs/*`` gives beside them: other folders, and runs too young; each is told."""
    kept = []
    for folder in folders:
        config = folder / "config.yaml"
        if folder.is_dir() and not config.is_file():
            print(f"eqgan compare: leaving out {folder}: {_NO_RUN}", file=sys.stderr)
        elif config.is_file() and is_of_classifier(config):
            print(f"eqgan compare: leaving out {folder}: {_CLASSIFIER}", file=sys.stderr)
        elif config.is_file() and not has_recorded(folder, samples_root):
            print(f"eqgan compare: leaving out {folder}: {_YOUNG}", file=sys.stderr)
        else:
            kept.append(folder)
    return kept or folders


def page(runs: list[RunRecord], grids: int = 60) -> str:
    """The page as text: markup, style, script and data in one file.

    Args:
        runs: any number of them, finished or not.
        grids: most sample grids kept of each, evenly spread over its epochs, and that of its least FID.
    """
    assets = files("eqgan.cli") / "page"
    title = runs[0].label if len(runs) == 1 else f"{len(runs)} runs on {_data_names(runs)}"
    # no text of a run may end the script element it lies in
    data = json.dumps(_page_data(runs, grids), allow_nan=False).replace("<", "\\u003c")
    return Template((assets / "page.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        css=(assets / "page.css").read_text(encoding="utf-8"),
        js=(assets / "page.js").read_text(encoding="utf-8"),
        data=data,
        version=eqgan.__version__,
    )


def _page_data(runs: list[RunRecord], grids: int) -> dict[str, Any]:
    going = [run.label for run in runs if not run.finished]
    note = "The minimum FID of a finished run is scored again on fresh latents."
    return {
        "runs": [_run_data(run, grids) for run in runs],
        "columns": [dict(zip(("key", "title", "kind", "better"), column)) for column in COLUMNS],
        "shares": {key: key for key in SCORES[1:] if any(key in row for run in runs for row in run.rows)},
        "differences": differences(runs),
        "real": next(({**_embedded(r.real), "name": _data_name(r)} for r in runs if r.real), None),
        "reference": _reference(runs),
        "warning": _warning(runs),
        "note": note + (" That of a run in progress is the least so far." if going else ""),
    }


def _run_data(run: RunRecord, grids: int) -> dict[str, Any]:
    kept = {*evenly(run.grids, grids), int(run.best().get("epoch", -1))} & {*run.grids}
    rows = [{key: row[key] for key in (*AXES, *SCORES) if key in row} for row in run.rows]
    return {
        "label": run.label,
        "finished": run.finished,
        "rows": [{**row, "epoch": int(row["epoch"])} for row in rows],
        "grids": {epoch: _embedded(run.grids[epoch]) for epoch in sorted(kept)},
        "final": final_numbers(run),
    }


def _embedded(path: Path) -> dict[str, Any]:
    content, width, height = compressed(path)
    source = "data:image/webp;base64," + base64.b64encode(content).decode()
    return {"source": source, "width": width, "height": height}


def _data_names(runs: list[RunRecord]) -> str:
    return " and ".join(dict.fromkeys(map(_data_name, runs)))


def _data_name(run: RunRecord) -> str:
    return str(run.settings.get("dataset.source", "images"))


def _reference(runs: list[RunRecord]) -> str:
    """Which FID this is, as far as the finished runs tell."""
    told = {}
    for run in runs:
        provenance = ((run.summary or {}).get("at_minimum") or {}).get("provenance")
        if provenance:
            data, features = provenance["data"], provenance["features"]
            told[
                f"FID against {data['count']:,} images of {data['name']} ({data['split']}), "
                f"{provenance['samples']:,} samples, features {features['name']} {features['sha256'][:8]}"
            ] = None
    return "; ".join(told)


def _warning(runs: list[RunRecord]) -> str:
    found = scored_differently(runs)
    return (
        f"These runs are scored differently ({', '.join(found)}): do not compare their FIDs." if found else ""
    )


def _show(runs: list[RunRecord], finals: list[dict[str, Any]], out: Path) -> None:
    table = Table(
        Column("run", overflow="fold"),
        "epochs",
        "minimum FID",
        "final FID",
        "precision",
        "recall",
        "training",
    )
    for numbers in finals:
        epochs = str(numbers["epochs"]) + ("" if numbers["finished"] else ", in progress")
        scores = [_written(numbers.get(key), ".2f") for key in ("fid_min", "fid_final")]
        shares = [_written(numbers.get(key), ".3f") for key in ("precision", "recall")]
        table.add_row(
            numbers["run"], epochs, *scores, *shares, _written(numbers["training_seconds"], ".0f", " s")
        )
    console().print(table)
    if warning := _warning(runs):
        sys.stderr.write(f"{warning}\n")
    print(f"page: {out}")


def _written(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{form}}{unit}"
