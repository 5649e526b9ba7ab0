"""The error on validation images every epoch: it chooses the best one, and may stop a run early."""

import math
from typing import Any

import pytorch_lightning as pl
import torch

from eqgan.data.imageset import ImageSet
from eqgan.data.module import ImageData
from eqgan.metrics.classification import ClassificationScores, classification_scores
from eqgan.training.callbacks.divergence import DivergedError
from eqgan.training.classification import Classification
from eqgan.training.statistics import sample_batches


class Validation(pl.Callback):
    """Scores the judged network on the validation images; test images are never looked at.

    An epoch is better than another if its error is lower, or the same at a lower cross entropy. Batch-norm
    statistics are computed anew before each score, and after the last epoch, from random numbers of
    (seed, epoch), so that the training's are not disturbed.

    Args:
        data: whose validation images are used; without any, nothing is scored and no epoch is the best.
        every: epochs between scores; the last epoch is always scored.
        patience: epochs without a better one after which the run ends; None: it never ends early.
        batch_size: of evaluation.
        seed: of the augmentation under which statistics are computed.
    """

    def __init__(
        self,
        data: ImageData,
        every: int = 1,
        patience: int | None = None,
        batch_size: int = 500,
        seed: int = 0,
    ) -> None:
        self.data, self.every, self.patience = data, every, patience
        self.batch_size, self.seed = batch_size, seed
        self.best: tuple[float, float] = (math.inf, math.inf)
        self.best_epoch = -1
        self.latest: ClassificationScores | None = None
        self.improved = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: Classification) -> None:
        self._stop_if_due(trainer, trainer.current_epoch - 1)  # a finished run that is resumed

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Classification) -> None:
        self.latest, self.improved = None, False
        _require_finite(pl_module.latest_loss)
        epoch = trainer.current_epoch
        last = epoch + 1 == trainer.max_epochs or 0 <= trainer.max_steps <= trainer.global_step
        if (epoch + 1) % self.every and not last:
            return
        if len(self.data.validation) or last:
            self.refresh_statistics(pl_module, epoch)
        if not len(self.data.validation):
            return
        self.latest = self.score(pl_module, self.data.validation)
        _require_finite(self.latest.loss)
        reached = (self.latest.error, self.latest.loss)
        self.improved = reached < self.best
        if self.improved:
            self.best, self.best_epoch = reached, epoch
        self._stop_if_due(trainer, epoch)

    def _stop_if_due(self, trainer: pl.Trainer, epoch: int) -> None:
        waited = epoch - self.best_epoch
        if self.patience is not None and self.best_epoch >= 0 and waited >= self.patience:
            trainer.should_stop = True

    def refresh_statistics(self, module: Classification, epoch: int) -> None:
        train, size = self.data.train, self.data.batch_size
        loader = self.data.loader(train, shuffle=True, drop_last=len(train) >= size)
        loader.set_epoch(epoch)
        batches = sample_batches(loader, module.statistics_batches)
        module.refresh_statistics(batches, 1_000_003 * (self.seed + 1) + epoch)

    def score(
        self, module: Classification, images: ImageSet, turns: int | None = None
    ) -> ClassificationScores:
        """Scores of the judged network on a set of images, in float32 and without augmentation.

        Args:
            turns: of each image; those of the module by default.
        """
        return classification_scores(*self.logits(module, images, turns))

    def logits(
        self, module: Classification, images: ImageSet, turns: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and labels of every image, in order."""
        loader = self.data.loader(images, batch_size=self.batch_size)
        logits, labels = module.predict_logits(loader, turns)
        return logits[: len(images)], labels[: len(images)]

    def values(self) -> dict[str, float]:
        if self.latest is None:
            return {}
        scores = {"validation_error": self.latest.error, "validation_loss": self.latest.loss}
        scores |= {} if self.latest.auc is None else {"validation_auc": self.latest.auc}
        return {**scores, "validation_error_min": self.best[0]}

    def state_dict(self) -> dict[str, Any]:
        return {"best": list(self.best), "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        error, loss = state_dict["best"]
        self.best, self.best_epoch = (error, loss), state_dict["best_epoch"]


def _require_finite(loss: float) -> None:
    if not math.isfinite(loss):
        raise DivergedError("the loss is not finite")
