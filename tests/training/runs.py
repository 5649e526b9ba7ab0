"""Small runs through the command line, and how two of them are compared."""

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from eqgan.cli import train_gan
from eqgan.training.callbacks import read_checkpoint
from tests.complaints import complaint_of

# nothing is left to the defaults, which may change
TINY = {
    "data": "digits",
    "batch-size": 128,
    "fraction": 0.5,
    "seed": 3,
    "precision": "32-true",
    "symmetrise": "true",
    "gen": "conv",
    "generator.width": 2,
    "generator.latent_dim": 16,
    "disc": "p4",
    "disc-arch": "conv",
    "discriminator.width": 4,
    "discriminator.spectral": "bank",
    "loss": "ra",
    "penalty.gamma": 0.1,
    "penalty.every": 3,
    "gan.lr_generator": 1e-3,
    "gan.lr_discriminator": 2e-3,
    "gan.betas": "[0.5,0.9]",
    "gan.discriminator_steps": 2,
    "gan.ema_decay": 0.9,
    "evaluation.samples": 64,
    "evaluation.every": 1,
    "evaluation.grid": 8,
    "trainer.log_every_n_steps": 2,
}
CLOCK = {"seconds", "cpu_seconds", "images_per_second", "spent_evaluating"}


@dataclass(frozen=True)
class Place:
    """Where the runs of one test, or of all, lie."""

    root: Path

    @property
    def words(self) -> list[str]:
        return ["--log-dir", str(self.root / "logs"), "--samples-dir", str(self.root / "samples")]

    def argv(self, *words: str, **options: Any) -> list[str]:
        """The tiny settings with these over them, then these words; double underscores for dots."""
        given = {key.replace("__", ".").replace("batch_size", "batch-size"): v for key, v in options.items()}
        pairs = (TINY | given).items()
        return [word for key, v in pairs for word in (f"--{key}", str(v))] + self.words + list(words)

    def train(self, *words: str, **options: Any) -> dict[str, Any]:
        return train_gan(self.argv(*words, **options))

    def resume(self, name: str, *words: str) -> dict[str, Any]:
        return train_gan(["--resume", name, *self.words, *words])

    def logs(self, name: str) -> Path:
        return self.root / "logs" / name

    def samples(self, name: str) -> Path:
        return self.root / "samples" / name

    def last(self, name: str) -> Path:
        return self.logs(name) / "checkpoints" / "last.ckpt"

    def rows(self, name: str) -> list[dict[str, str]]:
        with (self.samples(name) / "metrics.csv").open() as file:
            return list(csv.DictReader(file))

    def content(self) -> dict[str, bytes]:
        """Every file with what is in it."""
        files = sorted(p for p in self.root.rglob("*") if p.is_file())
        return {str(p.relative_to(self.root)): p.read_bytes() for p in files}


def differences(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Where two nested values differ, clocks and the settings' text aside."""
    if type(ours) is not type(theirs):
        return [f"{path}: {type(ours).__name__} and {type(theirs).__name__}"]
    if isinstance(ours, dict):
        keys = sorted({*ours, *theirs} - CLOCK - {"config"}, key=str)
        missing = [f"{path}.{key}: only in one" for key in keys if (key in ours) != (key in theirs)]
        both = [key for key in keys if key in ours and key in theirs]
        return missing + [d for key in both for d in differences(ours[key], theirs[key], f"{path}.{key}")]
    if isinstance(ours, list | tuple):
        if len(ours) != len(theirs):
            return [f"{path}: {len(ours)} and {len(theirs)} entries"]
        return [d for i, (a, b) in enumerate(zip(ours, theirs)) for d in differences(a, b, f"{path}[{i}]")]
    if isinstance(ours, torch.Tensor):
        return [] if torch.equal(ours, theirs) else [f"{path}: tensors differ"]
    same = ours == theirs or (isinstance(ours, float) and math.isnan(ours) and math.isnan(theirs))
    return [] if same else [f"{path}: {ours} and {theirs}"]


def require_same_run(place: Place, first: str, second: str) -> None:
    """Every tensor and number of the last checkpoint, every row, every picture: bit for bit."""
    ours, theirs = (read_checkpoint(place.last(name)) for name in (first, second))
    found = differences(ours, theirs)
    assert not found, "\n".join(found)
    rows = [[{k: v for k, v in r.items() if k not in CLOCK} for r in place.rows(n)] for n in (first, second)]
    assert rows[0] == rows[1]
    pictures = [{p.name: p.read_bytes() for p in place.samples(n).glob("*.png")} for n in (first, second)]
    assert pictures[0] == pictures[1]


def refused(place: Place, run: Callable[[], Any], capsys: pytest.CaptureFixture[str], code: int = 1) -> str:
    """The one line of an error, after which every file is as it was."""
    before = place.content()
    line = complaint_of(run, capsys, code, told=True)
    assert place.content() == before, "a file was touched"
    return line
