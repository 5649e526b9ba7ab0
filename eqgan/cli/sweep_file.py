"""A sweep from its file: the runs of a grid of settings and seeds, their names, and what became of them."""

import io
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from eqgan.cli.classify import parse_classify
from eqgan.cli.parsing import parse_gan
from eqgan.nearest import nearest
from eqgan.training.folder import RunFolder

PARSE: dict[str, Callable[[Sequence[str]], Any]] = {"train": parse_gan, "classify": parse_classify}
KEYS = ("name", "command", "settings", "grid", "seeds", "slurm")
OWN = ("name", "seed", "resume", "overwrite", "log-dir", "samples-dir")  # of a run; the sweep sets them

# column: where it is in the summary of a GAN's run, or of a classifier's
SCORES: dict[str, tuple[str, ...]] = {
    "fid_min": ("at_minimum", "fid"),
    "fid_final": ("fid_final",),
    "precision": ("at_minimum", "precision"),
    "recall": ("at_minimum", "recall"),
    "density": ("at_minimum", "density"),
    "coverage": ("at_minimum", "coverage"),
    "validation_error": ("validation_error",),
    "epochs": ("epochs",),
    "training_seconds": ("training_seconds",),
}


@dataclass(frozen=True)
class SweptRun:
    """One run of a sweep.

    Args:
        folder: where it lies.
        point: its settings among those of the grid.
        seed: of the run.
        words: what is typed after the command, without the words that begin or resume it.
    """

    folder: RunFolder
    point: Mapping[str, Any]
    seed: int
    words: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def begun(self) -> bool:
        return self.folder.config.is_file()

    def summary(self) -> dict[str, Any] | None:
        """What it reached, None until it is finished."""
        try:
            return dict(json.loads(self.folder.summary.read_text()))
        except FileNotFoundError:
            return None

    def words_now(self) -> list[str]:
        """To begin it, or to go on with it if it was begun."""
        roots = ["--log-dir", str(self.folder.logs_root)]
        if self.folder.samples_root is not None:
            roots += ["--samples-dir", str(self.folder.samples_root)]
        if self.begun:  # by its name alone: it keeps its settings, with lengths that were left open filled in
            return ["--resume", self.name, *roots]
        return [*self.words, *roots, "--name", self.name, "--overwrite"]


@dataclass(frozen=True)
class Sweep:
    """What a sweep file asks for.

    Args:
        name: of the sweep and of its folder.
        command: ``train`` or ``classify``.
        runs: all of them, those of one point together.
        slurm: parameters of the jobs of a cluster, as submitit names them after ``slurm_``.
    """

    name: str
    command: str
    runs: tuple[SweptRun, ...]
    slurm: Mapping[str, Any]


def read_sweep(path: Path, root: Path) -> Sweep:
    """The sweep of a file.

    Args:
        path: YAML.
        root: the folder of the sweep is made in it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for anything in it that cannot be; the message names the file, and the nearest known key.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a sweep, a YAML file; there is none")
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected settings, one 'key: value' a line; known: {', '.join(KEYS)}")
    for key in content:
        _require_known(str(key), KEYS, f"{path}: unknown key")
    command = content.get("command", "train")
    _require_known(str(command), tuple(PARSE), f"{path}: command: unknown command")
    settings, grid, slurm = (_mapping(content, key, path) for key in ("settings", "grid", "slurm"))
    settings = {key: _from(path, key, value) for key, value in settings.items()}
    if taken := [key for key in (*settings, *grid) if key.replace("_", "-") in OWN]:
        raise ValueError(f"{path}: {taken[0]} cannot be set: every run has its own ('seeds' lists the seeds)")
    _require_values(grid, path)
    grid = {key: [_from(path, key, value) for value in values] for key, values in grid.items()}
    name = str(content.get("name", path.stem))
    seeds = _seeds(content.get("seeds", 1), path)
    folder = RunFolder(name, root).logs  # refuses a name that is no folder's
    roots = (folder / "logs", folder / "samples" if command == "train" else None)
    score = "fid" if command == "train" else "validation"
    runs = []
    for values in itertools.product(*grid.values()):
        point = dict(zip(grid, values))
        for seed in seeds:
            words = (*_words(settings), *_words(point), "--seed", str(seed))
            runs.append(SweptRun(RunFolder(_name(point, seed), *roots, score=score), point, seed, words))
    _require_names(runs, path)
    _require_settings(command, settings, grid, path)
    return Sweep(name, command, tuple(runs), slurm)


def _require_known(given: str, known: Sequence[str], what: str) -> None:
    if given not in known:
        meant = nearest(given, known)
        raise ValueError(f"{what} {given!r}; did you mean {meant!r}? Known: {', '.join(known)}")


def _mapping(content: dict[str, Any], key: str, path: Path) -> dict[str, Any]:
    value = content.get(key) or {}
    if not isinstance(value, dict):
        raise ValueError(f"{path}: {key}: expected 'setting: value' lines, got {value!r}")
    return {str(setting): v for setting, v in value.items()}


def _from(sweep: Path, key: str, value: Any) -> Any:
    """The path of a config file as seen from the sweep's file, if there is one; else as it is written."""
    beside = sweep.parent / value if key == "config" and isinstance(value, str) else None
    return value if beside is None or not beside.is_file() else str(beside)


def _require_values(grid: Mapping[str, Any], path: Path) -> None:
    if not grid:
        raise ValueError(f"{path}: grid: expected at least one setting with a list of values, got none")
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ValueError(f"{path}: grid.{key}: expected a list of values, got {values!r}")


def _seeds(given: Any, path: Path) -> list[int]:
    seeds = list(range(given)) if type(given) is int else given
    if not isinstance(seeds, list) or not seeds or not all(type(s) is int and s >= 0 for s in seeds):
        raise ValueError(f"{path}: seeds: expected their number, from 1, or a list of them, got {given!r}")
    return seeds


def _words(settings: Mapping[str, Any]) -> list[str]:
    """As they are typed; the keys of a config file and the short forms alike."""
    return [word for key, value in settings.items() for word in (f"--{key}", _word(value))]


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _name(point: Mapping[str, Any], seed: int) -> str:
    parts = [f"{key.rpartition('.')[2]}_{value}" for key, value in point.items()]
    return "-".join([*(re.sub(r"[^\w.+]+", "-", part).strip("-") for part in parts), f"s{seed}"])


def _require_names(runs: Sequence[SweptRun], path: Path) -> None:
    names = [run.name for run in runs]
    if same := [name for name in names if names.count(name) > 1]:
        raise ValueError(
            f"{path}: two runs would be named {same[0]!r}: the same value or seed is there twice"
        )


def _require_settings(command: str, settings: dict[str, Any], grid: dict[str, Any], path: Path) -> None:
    """Parses every value once, the others at their first: what was mistyped is met before the first run."""
    first = {key: values[0] for key, values in grid.items()}
    tried = [first, *({**first, key: value} for key, values in grid.items() for value in values[1:])]
    for point in tried:
        heard = io.StringIO()
        try:
            with redirect_stderr(heard):
                PARSE[command]([*_words(settings), *_words(point)])
        except SystemExit:
            told = heard.getvalue().strip().removeprefix("eqgan: error: ")
            raise ValueError(f"{path}: {told}") from None
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def table_row(run: SweptRun, state: str, summary: Mapping[str, Any] | None) -> dict[str, Any]:
    """Settings and scores of a run as one flat row; of a classifier also the error on every test set."""
    row: dict[str, Any] = {"run": run.name, **run.point, "seed": run.seed, "state": state}
    if summary is None:
        return row
    for column, keys in SCORES.items():
        value: Any = summary
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            row[column] = value
    tests = summary.get("test")
    return row | {f"test_error_{name}": scores["error"] for name, scores in (tests or {}).items()}
