"""Fréchet distance and its minimum, precision, recall, density and coverage, every few epochs."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from eqgan.metrics import (
    ClassScores,
    FeatureExtractor,
    Reference,
    Scores,
    class_accuracy,
    score_classes,
    score_features,
)
from eqgan.training.callbacks.divergence import DivergedError
from eqgan.training.classes import Classes
from eqgan.training.module import GAN
from eqgan.training.ranks import decided, everyones, rank, world_size


@dataclass(frozen=True)
class Drawn:
    """Features of fresh samples, (samples, features); of a conditional GAN also the classes they were asked
    for and, if something can tell, the classes they look like; whether all images were finite."""

    features: Tensor
    labels: Tensor | None = None
    guesses: Tensor | None = None
    finite: bool = True


_TENSORS = ("features", "labels", "guesses")


class Evaluation(pl.Callback):
    """Scores fresh samples of the averaged generator against a reference of real images.

    Each evaluation draws its own latents from (seed, epoch), so that it neither disturbs the training's
    random numbers nor depends on when the run was interrupted.

    Args:
        reference: statistics of the real images.
        extractor: the feature network they were made with.
        samples: images drawn for each score.
        every: epochs between evaluations; the last epoch is always scored.
        seed: of the latents.
        classes: of the real images, for a conditional GAN.
    """

    def __init__(
        self,
        reference: Reference,
        extractor: FeatureExtractor,
        samples: int = 10_000,
        every: int = 2,
        seed: int = 0,
        classes: Classes | None = None,
    ) -> None:
        if samples < 2 or every < 1:
            raise ValueError(
                f"expected at least 2 samples and an interval of 1 epoch, got {samples} and {every}"
            )
        self.reference, self.extractor = reference, extractor
        self.samples, self.every, self.seed, self.classes = samples, every, seed, classes
        self.fid_min = math.inf
        self.fid_min_epoch = -1
        self.latest: Scores | None = None
        self.accuracy: float | None = None
        self.improved = False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: GAN) -> None:
        self.latest, self.improved = None, False
        epoch = trainer.current_epoch
        if (epoch + 1) % self.every and epoch + 1 != trainer.max_epochs:
            return
        drawn = self.drawn(pl_module, stream=epoch + 1)
        self.latest = decided(lambda: score_features(drawn.features, self.reference))
        self.accuracy = _accuracy(drawn)
        self.improved = self.latest.fid < self.fid_min
        if self.improved:
            self.fid_min, self.fid_min_epoch = self.latest.fid, epoch

    def class_scores(self, drawn: Drawn) -> ClassScores | None:
        """Distances within the classes and accuracy; None of a GAN without classes."""
        if self.classes is None or drawn.labels is None:
            return None
        return score_classes(drawn.features, drawn.labels, self.classes.references, drawn.guesses)

    def features(self, gan: GAN, stream: int, moved: bool = True) -> Tensor:
        """Features of fresh images; arguments as ``drawn``."""
        return self.drawn(gan, stream, moved).features

    def drawn(self, gan: GAN, stream: int, moved: bool = True) -> Drawn:
        """``samples`` fresh images as features; latents and labels are drawn a thousand at a time.

        Several processes make them in turn, from one stream of latents, and all get all.

        Args:
            stream: tells apart the draws of one seed.
            moved: whether the random group element of an ``OrbitGenerator`` acts, or the identity instead.
        """
        self.extractor.module.to(gan.device)
        pieces = (piece for draws in self._draws(gan, stream, moved) for piece in gan.pieces(*draws))
        mine = islice(pieces, rank(), None, world_size())
        of_all = everyones([self._part(gan.sample(*piece).float(), piece[1]) for piece in mine])
        parts = [part for turn in zip_longest(*of_all) for part in turn if part is not None]
        if not all(part.finite for part in parts):  # here, so that every process says so
            raise DivergedError("the generator draws images that are not finite")
        return Drawn(*(_joined([getattr(part, name) for part in parts]) for name in _TENSORS))

    def _draws(self, gan: GAN, stream: int, moved: bool) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Latents and labels, a thousand at a time."""
        draws = torch.Generator().manual_seed(1_000_003 * (self.seed + 1) + stream)
        for start in range(0, self.samples, 1000):
            count = min(1000, self.samples - start)
            latents = gan.generator.draw_latents(count, draws)
            labels = None if self.classes is None else self.classes.draw(count, draws)
            if not moved:
                latents = torch.cat([latents[:, :-1], torch.full_like(latents[:, -1:], -math.inf)], 1)
            yield latents, labels

    def _part(self, images: Tensor, labels: Tensor | None) -> Drawn:
        finite = bool(torch.isfinite(images).all())
        features = self.extractor.extract(images if finite else torch.zeros_like(images))
        guess = None if labels is None or self.classes is None else self.classes.guess
        guesses = None if guess is None else guess(images, features.to(images.device)).cpu()
        return Drawn(features.cpu(), None if labels is None else labels.cpu(), guesses, finite)

    def values(self) -> dict[str, float]:
        """The scores of this epoch, if it was scored, for the records."""
        if self.latest is None:
            return {}
        named = {k: getattr(self.latest, k) for k in ("fid", "precision", "recall", "density", "coverage")}
        scores = {k: v for k, v in named.items() if v is not None}
        accuracy = {} if self.accuracy is None else {"class_accuracy": self.accuracy}
        return {**scores, **accuracy, "fid_min": self.fid_min}

    def state_dict(self) -> dict[str, Any]:
        return {"fid_min": self.fid_min, "fid_min_epoch": self.fid_min_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.fid_min, self.fid_min_epoch = state_dict["fid_min"], state_dict["fid_min_epoch"]


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    return None if parts[0] is None else torch.cat([part for part in parts if part is not None])


def _accuracy(drawn: Drawn) -> float | None:
    return None if drawn.guesses is None else class_accuracy(drawn.guesses, drawn.labels)
