"""One run of a GAN from its parts to its table: scores, sample grids, and the last evaluation."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from eqgan.data.loader import to_unit
from eqgan.metrics import ClassScores, FeatureExtractor, Reference, Scores, score_features
from eqgan.networks import OrbitGenerator
from eqgan.nn.fourier import convolution_paths
from eqgan.training.base import TrainingRun
from eqgan.training.callbacks import Evaluation, Recorder, SampleGrid, read_checkpoint
from eqgan.training.callbacks.grid import columns_of
from eqgan.training.classes import Classes, classes_of
from eqgan.training.load import load_classifier
from eqgan.training.module import GAN
from eqgan.training.report import summarise
from eqgan.training.scoring import class_shares, image_reference

FEWEST = 6  # images that can be scored: precision and the like look at five neighbours of each


@dataclass(frozen=True)
class EvaluationSettings:
    """How samples are scored.

    Args:
        features: ``"default"`` (the shipped network), ``"inception"``, or ``package.module:factory``.
        reference: split of real images: ``"auto"`` takes the test split where there is one.
        samples: images drawn for each score.
        every: epochs between scores; None leaves it to the command line, which makes it about 500 steps.
        grid: samples in a picture.
        classifier: checkpoint of ``eqgan classify`` that says whether samples of a conditional GAN show the
            class they were asked for; by default the shipped network does it for digits.
    """

    features: str = "default"
    reference: str = "auto"
    samples: int = 10_000
    every: int | None = None
    grid: int = 64
    classifier: str | None = None

    def __post_init__(self) -> None:
        if self.samples < FEWEST or (self.every is not None and self.every < 1) or self.grid < 1:
            raise ValueError(
                f"evaluation: expected samples of at least {FEWEST}, every and grid of at least 1, got "
                f"samples={self.samples}, every={self.every}, grid={self.grid}"
            )


@dataclass(kw_only=True)
class Run(TrainingRun):
    """What one training of a GAN needs.

    Args:
        gan: the module.
        extractor: feature network of the scores.
        evaluation: how samples are scored.
    """

    gan: GAN
    extractor: FeatureExtractor
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)

    roles = ("generator", "discriminator")
    metric = "fid_min"
    advice = "Lower --gan.lr_generator and --gan.lr_discriminator, or raise --penalty.gamma"
    shown_steps = ("d_loss", "g_loss")
    shown_epochs = ("fid", "fid_min")

    @property
    def module(self) -> GAN:
        return self.gan

    @property
    def micro_batches(self) -> int:
        return self.gan.accumulate

    def check(self) -> None:
        """Also meets a split that the data do not have or that is too small to score against, and a feature
        network that cannot read the images."""
        if len(self.reference.features) < FEWEST:
            raise ValueError(
                f"{self.data.name}: expected at least {FEWEST} images to score samples against, got "
                f"{len(self.reference.features)}; --evaluation.reference names another split"
            )
        _ = self.classes
        super().check()

    def judge(self) -> Evaluation:
        options = self.evaluation
        return Evaluation(
            self.reference, self.extractor, options.samples, options.every or 1, self.seed, self.classes
        )

    @cached_property
    def reference(self) -> Reference:
        """Statistics of the real images that samples are scored against."""
        chosen = self.evaluation.reference
        images = self.data.reference(chosen)
        return image_reference(images, self.data.resolve_split(chosen), self.extractor)

    @cached_property
    def classes(self) -> Classes | None:
        """What is known of the classes of those images, for a conditional GAN."""
        if not self.gan.num_classes:
            return None
        chosen, path = self.evaluation.reference, self.evaluation.classifier
        return classes_of(
            self.data.reference(chosen),
            self.data.resolve_split(chosen),
            self.extractor,
            None if path is None else load_classifier(path),
        )

    def callbacks(self, judge: Evaluation) -> list[pl.Callback]:
        count, classes = self.evaluation.grid, self.gan.num_classes
        real = self.real_of_classes(columns_of(count, classes)) if classes else self.real_images(count)
        return [SampleGrid(self.folder.samples, real, max(count, classes), num_classes=classes)]

    def description(self) -> dict[str, Any]:
        classes = {"num_classes": self.gan.num_classes, "class_names": list(self.data.class_names)}
        return {**super().description(), **(classes if self.gan.num_classes else {})}

    def convolution_paths(self) -> dict[str, dict[str, str]]:
        gan, count = self.gan, self.data.batch_size
        latents = gan.generator.draw_latents(count, torch.Generator().manual_seed(0))
        images = torch.zeros(
            2 * count, *gan.discriminator.image_shape, device=gan.device
        )  # real and generated
        label = [torch.zeros(count, dtype=torch.long, device=gan.device)] if gan.num_classes else []
        labels = [each.repeat(2) for each in label]
        told = {
            "generator": convolution_paths(gan.generator, latents, *label),
            "discriminator": convolution_paths(gan.discriminator, images, *labels),
        }
        through = convolution_paths(gan.discriminator, images.requires_grad_(), *labels)
        if through != told["discriminator"]:
            told["discriminator, for gradients of images"] = through
        return told

    def real_of_classes(self, count: int) -> Tensor:
        """The first training images of each class in [-1, 1], black where there are not as many."""
        images, labels = self.data.train.images, self.data.train.labels
        shown = images.new_zeros(self.data.num_classes, count, *images.shape[1:])
        for label, row in enumerate(shown):
            own = images[labels == label][:count]
            row[: len(own)] = own
        return to_unit(shown.flatten(0, 1))

    def real_images(self, count: int) -> Tensor:
        """The first training images in [-1, 1]."""
        return to_unit(self.data.train.head(count))

    def finish(self, judge: Evaluation, recorder: Recorder, trainer: pl.Trainer) -> dict[str, Any]:
        """The minimum was chosen among noisy scores, so it is scored again on latents not used to choose."""
        self.gan.to(trainer.strategy.root_device)  # Lightning puts it on the CPU when training ends
        features = judge.features(self.gan, stream=0)
        final = score_features(features, judge.reference)
        shares = [
            class_shares(each, self.extractor, self.data.num_classes)
            for each in (features, judge.reference.features)
        ]
        rescored, unmoved, classes = self._score_best(judge)
        summary = summarise(
            self.gan,
            recorder,
            judge,
            rescored,
            unmoved,
            classes,
            final,
            *shares,
            self.real_images(256).to(self.gan.device),
            self.folder,
            self.settings,
        )
        if trainer.logger is not None:
            trainer.logger.log_metrics({"fid_min_rescored": rescored.fid}, trainer.global_step)
            trainer.logger.finalize("success")
        return summary

    def _score_best(self, evaluation: Evaluation) -> tuple[Scores, Scores | None, ClassScores | None]:
        """Scores of the best checkpoint on fresh latents, of its base generator where that differs, and of
        its classes where it has some."""
        if not self.folder.best.is_file():
            raise FileNotFoundError(
                f"no epoch of run {self.folder.name!r} was scored: {self.folder.best} is missing"
            )
        kept = {name: tensor.clone() for name, tensor in self.gan.ema.state_dict().items()}
        best = read_checkpoint(self.folder.best)["state_dict"]
        prefix = "ema."
        self.gan.ema.load_state_dict(
            {name.removeprefix(prefix): t for name, t in best.items() if name.startswith(prefix)}
        )
        try:
            drawn, unmoved = evaluation.drawn(self.gan, stream=-1), None
            if isinstance(self.gan.generator, OrbitGenerator):
                features = evaluation.features(self.gan, stream=-1, moved=False)
                unmoved = score_features(features, evaluation.reference, neighbours=False)
            scores = score_features(drawn.features, evaluation.reference)
            return scores, unmoved, evaluation.class_scores(drawn)
        finally:
            self.gan.ema.load_state_dict(kept)
