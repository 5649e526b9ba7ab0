"""Checkpoints that are written whole or not at all, and from which a run goes on as if never stopped."""

import io
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import CheckpointIO

from eqgan.files import atomic_write
from eqgan.training.callbacks.score import EpochScore
from eqgan.training.folder import RunFolder

FORMAT = 1


class AtomicCheckpointIO(CheckpointIO):
    """Writes to a temporary name and renames; reads plain data only, never code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)  # in memory first: torch hides a full disk behind errors of its own
        with atomic_write(path) as temporary:
            temporary.write_bytes(content.getvalue())  # no view, which a traceback would keep

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: Any = True
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path), map_location)

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def read_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """A checkpoint of this program.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the file is damaged, wants to run code, or is another program's.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # torch raises many kinds for many damages
        raise ValueError(
            f"{path} is damaged or no plain checkpoint ({type(error).__name__}). Nothing of it was loaded; "
            + _instead_of(path)
        ) from error
    described = checkpoint.get("eqgan") if isinstance(checkpoint, dict) else None
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise ValueError(f"{path} is not a checkpoint of eqgan, format {FORMAT}")
    return checkpoint


def _instead_of(path: Path) -> str:
    others = sorted(other.name for other in path.parent.glob("*.ckpt") if other != path)
    if not others:
        return "there is no other beside it."
    return f"take {' or '.join(others)} beside it; to go on from there, copy it over last.ckpt and --resume."


class RunCheckpoint(Checkpoint):
    """Writes ``last.ckpt`` after every epoch, and ``best-fid.ckpt`` or the like whenever the score improved.

    Deriving from Lightning's ``Checkpoint`` makes it the last callback of an epoch, when all others have
    their state in place. The random state is saved here and put back before the next epoch begins.

    Args:
        folder: of the run.
        evaluation: tells when the score improved.
        description: plain values that make the file self-describing: the run's settings as YAML
            (``config``), the shape of its images, ...
    """

    def __init__(self, folder: RunFolder, evaluation: EpochScore, description: dict[str, Any]) -> None:
        self.folder, self.evaluation = folder, evaluation
        self.description = {"format": FORMAT, **description}
        self._random_state: dict[str, Any] | None = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # best first: a kill between the two repeats the epoch and writes the same best again
        if self.evaluation.improved:
            trainer.save_checkpoint(self.folder.best)
        trainer.save_checkpoint(self.folder.last)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        device = pl_module.device
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        checkpoint["eqgan"] = {
            **self.description,
            "random_state": {"cpu": torch.get_rng_state(), "cuda": cuda},
        }

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._random_state = checkpoint["eqgan"]["random_state"]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._random_state is None:
            return
        torch.set_rng_state(self._random_state["cpu"].cpu())
        if pl_module.device.type == "cuda" and self._random_state["cuda"] is not None:
            torch.cuda.set_rng_state(self._random_state["cuda"].cpu(), pl_module.device)
        self._random_state = None
