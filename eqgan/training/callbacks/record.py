"""Numbers of a run: TensorBoard scalars, one CSV row an epoch, the progress bar, throughput."""

import csv
import resource
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import TQDMProgressBar
from torch import Tensor

from eqgan.files import atomic_write
from eqgan.training.callbacks.score import EpochScore


class Means:
    """Running means of named tensors, kept on their device until they are read."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.double()
            self.counts[name] = self.counts.get(name, 0) + 1

    def read(self) -> dict[str, float]:
        return {name: total.item() / self.counts[name] for name, total in self.sums.items()}


class Recorder(pl.Callback):
    """Collects what a step and an epoch gave; its rows are part of the checkpoint.

    So a resumed run writes the same table as one that was never stopped, clock columns aside.

    Args:
        path: of ``metrics.csv``.
        evaluation: whose scores go into the row of their epoch.
        shown_steps, shown_epochs: names of the records of a step, and of the scores of an epoch, that the
            progress bar shows.

    The module keeps what a step gave in ``records``, a dictionary of tensors by name.
    """

    def __init__(
        self,
        path: Path,
        evaluation: EpochScore,
        shown_steps: tuple[str, ...] = (),
        shown_epochs: tuple[str, ...] = (),
    ) -> None:
        self.path, self.evaluation = path, evaluation
        self.shown_steps, self.shown_epochs = shown_steps, shown_epochs
        self.rows: list[dict[str, float | int]] = []
        self.shown: dict[str, float] = {}
        self.seconds = 0.0
        self.cpu_seconds = 0.0  # of all threads: what a busy machine does not distort
        self.spent_evaluating = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started, self._cpu_started = time.perf_counter(), time.process_time()
        self._images = 0
        self._epoch, self._window = Means(), Means()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._images += len(batch[0]) * trainer.world_size
        self._epoch.add(pl_module.records)
        self._window.add(pl_module.records)
        pl_module.records.clear()
        if (batch_idx + 1) % trainer.log_every_n_steps and batch_idx + 1 != trainer.num_training_batches:
            return
        values, self._window = self._window.read(), Means()
        rate = self._images / (time.perf_counter() - self._started)
        self.shown |= {k: values[k] for k in self.shown_steps if k in values} | {"img/s": round(rate)}
        if trainer.logger is not None:
            trainer.logger.log_metrics(values | {"images_per_second": rate}, trainer.global_step)

    def epoch_ended(self, trainer: pl.Trainer) -> None:
        """Stops the clock of training; called before anything else is done with the epoch."""
        taken = time.perf_counter() - self._started
        self.seconds += taken
        self.cpu_seconds += time.process_time() - self._cpu_started
        self._rate = self._images / taken
        self._evaluation_started = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.spent_evaluating += time.perf_counter() - self._evaluation_started
        scores = self.evaluation.values()
        row = {
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "images_per_second": self._rate,
            **self._epoch.read(),
            **scores,
        }
        self.rows.append(row)
        self.shown |= {k: scores[k] for k in self.shown_epochs if k in scores}
        if trainer.is_global_zero:
            write_rows(self.path, self.rows)
            if trainer.logger is not None:
                trainer.logger.log_metrics({**scores, "epoch": trainer.current_epoch}, trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        names = ("rows", "seconds", "cpu_seconds", "spent_evaluating")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])
        self.seconds, self.cpu_seconds = state_dict["seconds"], state_dict["cpu_seconds"]
        self.spent_evaluating = state_dict["spent_evaluating"]
        last = self.rows[-1] if self.rows else {}
        self.shown = {k: last[k] for k in self.shown_epochs if k in last}


class EpochClock(pl.Callback):
    """Tells the recorder that the steps of an epoch are over; stands first among the callbacks."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.recorder.epoch_ended(trainer)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """A CSV with a column for every key that occurs."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


class ProgressBar(TQDMProgressBar):
    """One bar for the whole epoch with losses, scores and images per second."""

    def __init__(self, recorder: Recorder, refresh_rate: int = 10) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self.recorder = recorder

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        return {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in self.recorder.shown.items()}


def peak_memory_mebibytes() -> float:
    """Peak memory of the device that trains: of the GPU if there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
