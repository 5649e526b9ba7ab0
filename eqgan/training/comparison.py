"""What several runs recorded, side by side: curves, grids, final numbers, and where their settings differ."""

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from eqgan.training.base import flatten
from eqgan.training.folder import is_of_classifier

SCORES = ("fid", "precision", "recall", "density", "coverage")
AXES = ("epoch", "step", "seconds")
# Where a run lies and what it is called, not what it computes.
_PLACES = ("name", "log_dir", "samples_dir", "dataset.root")
# Settings on which the scores of two runs depend: they must agree before one is called the better.
_SCORED_BY = ("dataset.source", "dataset.size", "evaluation.features", "evaluation.reference")
_SCORED_BY = (*_SCORED_BY, "evaluation.samples")


@dataclass(frozen=True)
class RunRecord:
    """What one run has written so far.

    Args:
        label: what tells it apart from the others.
        settings: flat, a dotted key and a plain value.
        rows: one an epoch, the numbers that were recorded; an epoch may be missing, or lack its scores.
        summary: what the end of the run wrote; None while it goes on.
        grids: epoch to the picture of its samples.
        real: the picture of real images.
    """

    label: str
    settings: dict[str, Any]
    rows: list[dict[str, float]]
    summary: dict[str, Any] | None = None
    grids: dict[int, Path] = field(default_factory=dict)
    real: Path | None = None

    @property
    def finished(self) -> bool:
        """Whether its summary tells of as many epochs as it recorded; a resumed run is at work again."""
        return self.summary is not None and self.summary.get("epochs", 0) >= len(self.rows)

    def best(self) -> dict[str, float]:
        """The row of its least FID; empty before the first score."""
        return min((row for row in self.rows if "fid" in row), key=lambda row: row["fid"], default={})


def read_runs(folders: Sequence[Path], samples_root: Path | None = None) -> list[RunRecord]:
    """The records of runs, each once, in the order given.

    Args:
        folders: ``logs/<run>`` of each.
        samples_root: parent of ``samples/<run>``; by default as the run's settings say, or beside its logs.

    Raises:
        FileNotFoundError: for a folder that holds no run.
        ValueError: for a run that recorded nothing yet, or records that cannot be read.
    """
    unique = list(dict.fromkeys(folder.resolve() for folder in folders))
    return [read_run(folder, label, samples_root) for folder, label in zip(unique, _labels(unique))]


def has_recorded(logs: Path, samples_root: Path | None = None) -> bool:
    """Whether a run has ended an epoch."""
    config = yaml.safe_load((logs / "config.yaml").read_text()) or {}
    return bool(_rows(_samples(logs, config, samples_root) / "metrics.csv"))


def read_run(logs: Path, label: str, samples_root: Path | None = None) -> RunRecord:
    """The record of one run; see `read_runs`."""
    if not (logs / "config.yaml").is_file():
        there = sorted(p.parent.name for p in logs.parent.glob("*/config.yaml"))
        raise FileNotFoundError(
            f"no run at {logs}: expected the folder of a run, with a config.yaml in it. "
            f"Runs in {logs.parent}: {', '.join(there) or 'none'}."
        )
    if is_of_classifier(logs / "config.yaml"):
        raise ValueError(f"{logs} is the run of a classifier (eqgan classify), expected that of a GAN")
    config = yaml.safe_load((logs / "config.yaml").read_text()) or {}
    samples = _samples(logs, config, samples_root)
    rows = _rows(samples / "metrics.csv")
    if not rows:
        raise ValueError(
            f"run {logs.name!r} has recorded nothing yet: no epoch in {samples / 'metrics.csv'}. "
            "Wait for its first epoch, or give --samples-dir if its samples were moved."
        )
    summary = json.loads((logs / "summary.json").read_text()) if (logs / "summary.json").is_file() else None
    grids = {int(path.stem.removeprefix("epoch_")): path for path in sorted(samples.glob("epoch_*.png"))}
    real = samples / "real.png"
    return RunRecord(label, dict(flatten(config)), rows, summary, grids, real if real.is_file() else None)


def _labels(folders: list[Path]) -> list[str]:
    """The names of the runs, with as much of their paths as tells them apart."""
    if len({folder.name for folder in folders}) == len(folders):
        return [folder.name for folder in folders]
    shared = os.path.commonpath(folders)
    return [os.path.relpath(folder, shared) for folder in folders]


def _samples(logs: Path, config: dict[str, Any], root: Path | None) -> Path:
    told = Path(config.get("samples_dir", "samples"))
    roots = [root] if root else [told, logs.parent.parent / told.name]
    return next((r / logs.name for r in roots if (r / logs.name).is_dir()), roots[-1] / logs.name)


def _rows(path: Path) -> list[dict[str, float]]:
    """One dict an epoch, without the values that are missing or not finite."""
    if not path.is_file():
        return []
    try:
        with path.open(newline="") as file:
            read = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: expected a table of numbers, got one that cannot be read ({error})"
        ) from error
    rows = [{k: v for k, v in row.items() if math.isfinite(v)} for row in read]
    return sorted((row for row in rows if "epoch" in row), key=lambda row: row["epoch"])


def differences(runs: Sequence[RunRecord]) -> dict[str, list[Any]]:
    """The settings in which the runs differ, and nothing else: key to the value in each, None where unset."""
    keys = sorted({key for run in runs for key in run.settings if key not in _PLACES})
    values = {key: [run.settings.get(key) for run in runs] for key in keys}
    return {key: found for key, found in values.items() if any(value != found[0] for value in found)}


def scored_differently(runs: Sequence[RunRecord]) -> list[str]:
    """The settings that keep the scores of these runs from being compared."""
    return [key for key in differences(runs) if key in _SCORED_BY]


def final_numbers(run: RunRecord) -> dict[str, Any]:
    """What the closing table says of a run; of one that still goes on, the best so far."""
    best, last = run.best(), run.rows[-1]
    numbers: dict[str, Any] = {"run": run.label, "finished": run.finished, "epochs": len(run.rows)}
    numbers |= {"fid_min": best.get("fid"), "fid_min_epoch": _whole(best.get("epoch"))}
    numbers |= {key: best.get(key) for key in SCORES[1:]}
    scored = [row["fid"] for row in run.rows if "fid" in row]
    numbers |= {"fid_final": scored[-1] if scored else None, "training_seconds": last.get("seconds")}
    rates = sorted(row["images_per_second"] for row in run.rows if "images_per_second" in row)
    numbers["images_per_second"] = rates[len(rates) // 2] if rates else None
    if run.finished:
        numbers |= _from_summary(run.summary)
    return numbers


def _from_summary(summary: dict[str, Any]) -> dict[str, Any]:
    """Scores of the best checkpoint on fresh latents, and what networks and machine were."""
    rescored = summary.get("at_minimum") or {}
    numbers = {"fid_min": rescored.get("fid"), **{key: rescored.get(key) for key in SCORES[1:]}}
    numbers |= {key: summary.get(key) for key in ("group", "fid_final", "fid_min_epoch", "invariance_error")}
    numbers["peak_memory_mebibytes"] = summary.get("peak_memory_mebibytes")
    for role in ("generator", "discriminator"):
        numbers[f"{role}_parameters"] = (summary.get(role) or {}).get("parameters")
    return {key: value for key, value in numbers.items() if value is not None}


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def evenly(epochs: Iterable[int], count: int) -> list[int]:
    """At most ``count`` of these epochs, evenly spread, first and last among them.

    >>> evenly(range(10), 4)
    [0, 3, 6, 9]
    """
    ordered = sorted(epochs)
    if len(ordered) <= count:
        return ordered
    return [ordered[round(i * (len(ordered) - 1) / max(1, count - 1))] for i in range(count)]


def compressed(path: Path, side: int = 640) -> tuple[bytes, int, int]:
    """A picture as WebP with its width and height: undone enlargement, at most ``side`` pixels a side.

    Grids of small images are written several times enlarged; a page enlarges them as well, so that the
    repeated pixels need not be stored.

    Raises:
        ValueError: for a file that is no picture.
    """
    try:
        with Image.open(path) as opened:
            pixels = np.asarray(opened.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path}: expected a picture, got a file that cannot be read ({error})") from error
    picture = Image.fromarray(_unrepeated(pixels))
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    picture.save(content, "WEBP", quality=80, method=4)
    return content.getvalue(), picture.width, picture.height


def _unrepeated(pixels: np.ndarray) -> np.ndarray:
    """Every n-th pixel, for the largest n such that n x n blocks are constant."""
    height, width = pixels.shape[:2]
    for scale in range(84, 1, -1):
        if height % scale == 0 and width % scale == 0:
            small = pixels[::scale, ::scale]
            if (small.repeat(scale, 0).repeat(scale, 1) == pixels).all():
                return np.ascontiguousarray(small)
    return pixels
