"""One run from its parts to its table: the Trainer, the callbacks, resuming, and the last evaluation."""

import logging
import math
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor

from eqgan.data.cache import cache_folder
from eqgan.data.loader import to_unit
from eqgan.data.module import ImageData
from eqgan.files import atomic_write
from eqgan.metrics import FeatureExtractor, Reference, Scores, reference_statistics, score_features
from eqgan.networks import OrbitGenerator
from eqgan.networks.features import FeatureNetwork
from eqgan.training.callbacks import (
    AtomicCheckpointIO,
    Evaluation,
    ProgressBar,
    Recorder,
    RunCheckpoint,
    SampleGrid,
    read_checkpoint,
)
from eqgan.training.callbacks.record import EpochClock
from eqgan.training.folder import RunFolder
from eqgan.training.module import GAN
from eqgan.training.report import summarise

log = logging.getLogger("eqgan")


@dataclass(frozen=True)
class EvaluationSettings:
    """How samples are scored.

    Args:
        features: ``"default"`` (the shipped network), ``"inception"``, or ``package.module:factory``.
        reference: split of real images: ``"auto"`` takes the test split where there is one.
        samples: images drawn for each score.
        every: epochs between scores; None leaves it to the command line, which makes it about 500 steps.
        grid: samples in a picture.
    """

    features: str = "default"
    reference: str = "auto"
    samples: int = 10_000
    every: int | None = None
    grid: int = 64

    def __post_init__(self) -> None:
        if self.samples < 2 or (self.every is not None and self.every < 1) or self.grid < 1:
            raise ValueError(
                "evaluation: expected samples of at least 2, every and grid of at least 1, got "
                f"samples={self.samples}, every={self.every}, grid={self.grid}"
            )


@dataclass
class Run:
    """What one training needs; made by the command line, or by hand.

    Args:
        gan: the module.
        data: set up already.
        extractor: feature network of the scores.
        folder: claimed already, or holding the run to resume.
        epochs: to train in all.
        settings: plain values that describe the run; kept in every record.
        config: the same as YAML, kept in every checkpoint.
        trainer: further arguments of Lightning's Trainer.
    """

    gan: GAN
    data: ImageData
    extractor: FeatureExtractor
    folder: RunFolder
    epochs: int
    seed: int = 0
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    settings: dict[str, Any] = field(default_factory=dict)
    config: str = ""
    trainer: dict[str, Any] = field(default_factory=dict)
    progress_bar: bool = True

    def fit(self, resume: bool = False) -> dict[str, Any]:
        """Trains to the end, scores the best checkpoint again, and returns the summary."""
        evaluation = self._evaluation()
        recorder = Recorder(self.folder.samples / "metrics.csv", evaluation)
        checkpoint = self.folder.last if resume and self.folder.last.exists() else None
        step = self._own_checkpoint(checkpoint)["global_step"] if checkpoint else None
        if checkpoint and self.folder.config.is_file():
            kept = {**yaml.safe_load(self.folder.config.read_text()), "epochs": self.epochs}
            with atomic_write(self.folder.config) as temporary:  # the number of epochs may be new
                temporary.write_text(yaml.safe_dump(kept, sort_keys=False))
        # a stream of its own: latents depend neither on the group nor on what this process drew before
        torch.manual_seed((1 << 32) + self.seed)
        trainer = self._trainer(evaluation, recorder, step)
        with warnings.catch_warnings():
            # data come from one tensor on the device: there are no worker processes to advise about
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            # the averaged generator is in eval mode on purpose, small sets have short epochs, and Lightning
            # itself uses a part of torch that is being renamed
            for known in (".*in eval mode at the start.*", ".*smaller than the logging.*", ".*treespec.*"):
                warnings.filterwarnings("ignore", message=known)
            trainer.fit(self.gan, datamodule=self.data, ckpt_path=checkpoint, weights_only=True)
        return self._finish(evaluation, recorder, trainer)

    def _own_checkpoint(self, path: Path) -> dict[str, Any]:
        """The checkpoint, whose weights might fit other networks too: p2 and pm have the same shapes."""
        checkpoint = read_checkpoint(path)
        there, here = (yaml.safe_load(text) or {} for text in (checkpoint["eqgan"]["config"], self.config))
        for role in ("generator", "discriminator"):
            if there.get(role) != here.get(role):
                raise ValueError(
                    f"{path} belongs to another run: its {role} is {there.get(role)}, not {here.get(role)}"
                )
        if checkpoint["epoch"] + 1 > self.epochs:
            raise ValueError(
                f"--epochs {self.epochs}: run {self.folder.name!r} has {checkpoint['epoch'] + 1} behind it"
            )
        return checkpoint

    def check(self) -> None:
        """Meets, before the run's folder is touched, whatever would stop it before the first step.

        Raises:
            ValueError: for a split that the data do not have, a feature network that cannot read the images,
                or an argument that Lightning's Trainer does not take.
        """
        _ = self.reference
        own = ("logger", "callbacks", "plugins", "max_epochs", "num_sanity_val_steps")
        own = (*own, "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
        own = (*own, "max_time", "fast_dev_run", "overfit_batches")
        if taken := sorted({*own} & {*self.trainer}):
            raise ValueError(f"trainer: {', '.join(taken)} cannot be set, a run sets it itself")
        try:
            trainer = pl.Trainer(logger=False, enable_checkpointing=False, **{"devices": 1, **self.trainer})
        except (TypeError, MisconfigurationException) as error:
            raise ValueError(f"trainer: {str(error).replace('Trainer.__init__() ', '')}") from error
        if trainer.world_size > 1:
            raise ValueError(f"trainer: expected one device, got {trainer.world_size}; leave out devices")

    def _evaluation(self) -> Evaluation:
        options = self.evaluation
        return Evaluation(self.reference, self.extractor, options.samples, options.every or 1, seed=self.seed)

    @cached_property
    def reference(self) -> Reference:
        """Statistics of the real images that samples are scored against."""
        chosen = self.evaluation.reference
        images = self.data.reference(chosen)
        return reference_statistics(
            images.images,
            self.extractor,
            data_name=images.name,
            data_hash=images.sha256,
            split=self.data.resolve_split(chosen),
            count=len(images),
            cache_dir=cache_folder() / "reference",
            neighbours=5_000,  # the cost of neighbours is quadratic; the Fréchet distance uses all images
        )

    def _trainer(self, evaluation: Evaluation, recorder: Recorder, purge: int | None) -> pl.Trainer:
        options = {"accelerator": "auto", "devices": 1, "log_every_n_steps": 25, **self.trainer}
        logger = TensorBoardLogger(
            self.folder.logs_root,
            name="",
            version=self.folder.name,
            default_hp_metric=False,
            purge_step=None if purge is None else purge + 1,
        )
        if purge is None:
            logger.log_hyperparams(dict(flatten(self.settings)), {"fid_min": math.nan})
        shape = self.data.image_shape
        callbacks = [
            EpochClock(recorder),
            evaluation,
            recorder,
            SampleGrid(self.folder.samples, self.real_images(self.evaluation.grid), self.evaluation.grid),
            RunCheckpoint(self.folder, evaluation, self.config, shape),
            *([ProgressBar(recorder)] if self.progress_bar else []),
        ]
        return pl.Trainer(
            max_epochs=self.epochs,
            logger=logger,
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO()],
            enable_checkpointing=True,
            enable_progress_bar=self.progress_bar,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            **options,
        )

    def real_images(self, count: int) -> Tensor:
        """The first training images in [-1, 1]."""
        return to_unit(self.data.train.images[:count])

    def _finish(self, evaluation: Evaluation, recorder: Recorder, trainer: pl.Trainer) -> dict[str, Any]:
        """The minimum was chosen among noisy scores, so it is scored again on latents not used to choose."""
        self.gan.to(trainer.strategy.root_device)  # Lightning puts it on the CPU when training ends
        features = evaluation.features(self.gan, stream=0)
        final = score_features(features, evaluation.reference)
        shares = self._class_shares(features)
        rescored, unmoved = self._score_best(evaluation)
        summary = summarise(
            self.gan,
            recorder,
            evaluation,
            rescored,
            unmoved,
            final,
            shares,
            self.real_images(256).to(self.gan.device),
            self.folder,
            self.settings,
        )
        if trainer.logger is not None:
            trainer.logger.log_metrics({"fid_min_rescored": rescored.fid}, trainer.global_step)
            trainer.logger.finalize("success")
        return summary

    def _score_best(self, evaluation: Evaluation) -> tuple[Scores, Scores | None]:
        """Scores of the best checkpoint on fresh latents, and of its base generator where that differs."""
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
            moved, unmoved = evaluation.score(self.gan, stream=-1), None
            if isinstance(self.gan.generator, OrbitGenerator):
                features = evaluation.features(self.gan, stream=-1, moved=False)
                unmoved = score_features(features, evaluation.reference, neighbours=False)
            return moved, unmoved
        finally:
            self.gan.ema.load_state_dict(kept)

    def _class_shares(self, features: Tensor) -> list[float] | None:
        """Share of each digit among the samples, where the feature network can tell digits."""
        network = self.extractor.module
        if (
            not isinstance(network, FeatureNetwork)
            or self.data.num_classes != network.classifier.out_features
        ):
            return None
        device = next(network.parameters()).device
        classes = network.heads(features.to(device))[0].argmax(1)
        return (classes.bincount(minlength=network.classifier.out_features) / len(features)).tolist()


def flatten(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings as pairs of a dotted key and a plain value."""
    flat: list[tuple[str, Any]] = []
    for key, value in settings.items():
        if isinstance(value, dict):
            flat += flatten(value, f"{prefix}{key}.")
        else:
            flat.append((prefix + key, value if isinstance(value, int | float | str | bool) else str(value)))
    return flat
