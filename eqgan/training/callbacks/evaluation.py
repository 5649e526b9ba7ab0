"""Fréchet distance and its minimum, precision, recall, density and coverage, every few epochs."""

import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from eqgan.metrics import FeatureExtractor, Reference, Scores, score_features
from eqgan.training.module import GAN


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
    """

    def __init__(
        self,
        reference: Reference,
        extractor: FeatureExtractor,
        samples: int = 10_000,
        every: int = 2,
        seed: int = 0,
    ) -> None:
        if samples < 2 or every < 1:
            raise ValueError(
                f"expected at least 2 samples and an interval of 1 epoch, got {samples} and {every}"
            )
        self.reference, self.extractor = reference, extractor
        self.samples, self.every, self.seed = samples, every, seed
        self.fid_min = math.inf
        self.fid_min_epoch = -1
        self.latest: Scores | None = None
        self.improved = False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: GAN) -> None:
        self.latest, self.improved = None, False
        epoch = trainer.current_epoch
        if (epoch + 1) % self.every and epoch + 1 != trainer.max_epochs:
            return
        self.latest = self.score(pl_module, stream=epoch + 1)
        self.improved = self.latest.fid < self.fid_min
        if self.improved:
            self.fid_min, self.fid_min_epoch = self.latest.fid, epoch

    def score(self, gan: GAN, stream: int) -> Scores:
        """Scores of ``samples`` fresh images; ``stream`` tells apart the draws of one seed."""
        return score_features(self.features(gan, stream), self.reference)

    def features(self, gan: GAN, stream: int, moved: bool = True) -> Tensor:
        """Features of fresh images, (samples, features); the latents are drawn a thousand at a time.

        Args:
            moved: whether the random group element of an ``OrbitGenerator`` acts, or the identity instead.
        """
        self.extractor.module.to(gan.device)
        draws = torch.Generator().manual_seed(1_000_003 * (self.seed + 1) + stream)
        counts = [1000] * (self.samples // 1000) + [self.samples % 1000] * (self.samples % 1000 > 0)
        latents = (gan.generator.draw_latents(count, draws) for count in counts)
        if not moved:
            latents = (torch.cat([z[:, :-1], torch.full_like(z[:, -1:], -math.inf)], 1) for z in latents)
        # a thousand at a time on a GPU; a CPU is faster when the activations stay in its cache
        size = 1000 if gan.device.type == "cuda" else 125
        images = (_finite(gan.sample(z).float().clone()) for draw in latents for z in draw.split(size))
        return torch.cat([self.extractor.extract(batch).cpu() for batch in images])

    def values(self) -> dict[str, float]:
        """The scores of this epoch, if it was scored, for the records."""
        if self.latest is None:
            return {}
        named = {k: getattr(self.latest, k) for k in ("fid", "precision", "recall", "density", "coverage")}
        return {**{k: v for k, v in named.items() if v is not None}, "fid_min": self.fid_min}

    def state_dict(self) -> dict[str, Any]:
        return {"fid_min": self.fid_min, "fid_min_epoch": self.fid_min_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.fid_min, self.fid_min_epoch = state_dict["fid_min"], state_dict["fid_min_epoch"]


def _finite(images: Tensor) -> Tensor:
    if not torch.isfinite(images).all():
        raise ValueError(
            "training diverged: the generator draws images that are not finite. "
            "Lower --gan.lr_generator and --gan.lr_discriminator; best-fid.ckpt holds the best epoch so far"
        )
    return images
