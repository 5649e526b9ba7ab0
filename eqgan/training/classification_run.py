"""One run of a classifier from its parts to its table."""

from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
import torch
import yaml

from eqgan.data.imageset import ImageSet
from eqgan.data.loader import to_unit
from eqgan.data.module import ImageData
from eqgan.data.rotated import rotated
from eqgan.data.rotation import LARGEST_SIDE
from eqgan.nn.fourier import convolution_paths
from eqgan.training.base import TrainingRun
from eqgan.training.callbacks import Recorder, read_checkpoint
from eqgan.training.callbacks.confusion import ConfusionPicture, confusion_image
from eqgan.training.callbacks.validation import Validation
from eqgan.training.classification import Classification
from eqgan.training.classification_report import summarise, told_in_numbers


@dataclass(frozen=True)
class Judging:
    """How a classifier is judged.

    Args:
        every: epochs between scores on the validation images.
        patience: epochs without a better one after which the run ends; null: it never ends early.
        rotated: also test on images rotated by any angle, where the test images are not rotated already.
        batch_size: images at a time; changes the speed only.
    """

    every: int = 1
    patience: int | None = None
    rotated: bool = True
    batch_size: int = 500

    def __post_init__(self) -> None:
        if min(self.every, self.batch_size) < 1 or (self.patience is not None and self.patience < 1):
            raise ValueError(
                "judging: expected every, patience and batch_size of at least 1, got "
                f"every={self.every}, patience={self.patience}, batch_size={self.batch_size}"
            )


@dataclass(kw_only=True)
class ClassificationRun(TrainingRun):
    """What one training of a classifier needs.

    Args:
        classification: the module.
        judging: how it is judged.
    """

    classification: Classification
    judging: Judging = field(default_factory=Judging)

    roles = ("network", "preprocess")
    metric = "validation_error_min"
    advice = "Lower --optimizer.lr"
    shown_steps = ("loss", "accuracy")
    shown_epochs = ("validation_error", "validation_error_min")

    @property
    def module(self) -> Classification:
        return self.classification

    def check(self) -> None:
        """Also meets images without labels, or with other classes than the network tells apart, and numbers
        that the optimiser does not take."""
        network, data = self.classification.network, self.data
        require_labels(data)
        if (tuple(network.image_shape), network.num_classes) != (data.image_shape, data.num_classes):
            raise ValueError(
                f"the network tells {network.num_classes} classes of {tuple(network.image_shape)} images "
                f"apart, {data.name} has {data.num_classes} of {data.image_shape}"
            )
        if self.judging.patience is not None and not len(data.validation):
            raise ValueError(
                "--patience stops on the error of validation images, and there are none. "
                "Hold some out, --validation-fraction 0.1."
            )
        if self.judging.rotated and data.has_test_images and data.image_shape[1] > LARGEST_SIDE:
            raise ValueError(
                f"images of {data.image_shape[1]} pixels a side are not rotated for a test (at most "
                f"{LARGEST_SIDE:,}): --judging.rotated false, or a smaller --size"
            )
        super().check()
        try:
            self.classification.optimizer()
        except ValueError as error:
            raise ValueError(f"--optimizer: {error}") from error
        self._require_same_length()

    def _require_same_length(self) -> None:
        """A schedule that ends with the run would have given other rates to the steps already made."""
        schedule, kept = self.classification.schedule, self.folder.config
        if not schedule.depends_on_length or not kept.is_file():
            return
        before = yaml.safe_load(kept.read_text())["epochs"]
        if before != self.epochs:
            raise ValueError(
                f"--epochs {self.epochs}: the rates of {type(schedule).__name__} depend on the length of the "
                f"run, and {self.folder.name!r} was begun with --epochs {before}. Resume it with that."
            )

    def judge(self) -> Validation:
        how = self.judging
        return Validation(self.data, how.every, how.patience, how.batch_size, self.seed)

    def callbacks(self, judge: Validation) -> list[pl.Callback]:
        return [ConfusionPicture(judge, self.data.class_names)]

    def description(self) -> dict[str, Any]:
        network = self.classification.network
        return {
            **super().description(),
            "kind": "classifier",
            "class_names": list(self.data.class_names),
            "group": str(network.group),
        }

    def finish(self, judge: Validation, recorder: Recorder, trainer: pl.Trainer) -> dict[str, Any]:
        """The best epoch on the validation images, or else the last one, meets the test images."""
        module = self.classification
        module.to(trainer.strategy.root_device)  # Lightning puts it on the CPU when training ends
        if self.folder.best.is_file():
            module.load_state_dict(read_checkpoint(self.folder.best)["state_dict"])
        sets = self.test_sets()
        tests = {name: judge.score(module, images) for name, images in sets.items()}
        unturned = {name: judge.score(module, images, 1) for name, images in sets.items() if module.turns > 1}
        summary = summarise(
            module,
            recorder,
            judge,
            tests,
            unturned,
            to_unit(self.data.train.head(256)).to(module.device, module.dtype),
            self.folder,
            self.data,
            self.settings,
        )
        if trainer.logger is not None:
            trainer.logger.log_metrics(told_in_numbers(summary), trainer.global_step)
            for name, scores in tests.items():
                picture = confusion_image(scores.confusion, self.data.class_names, f"{name}, test")
                trainer.logger.experiment.add_image(f"test_confusion_{name}", picture, trainer.global_step)
            trainer.logger.finalize("success")
        return summary

    def convolution_paths(self) -> dict[str, dict[str, str]]:
        module = self.classification
        images = torch.zeros(self.data.batch_size, *self.data.image_shape, device=module.device)
        return {"network": convolution_paths(module.network, images)}

    def test_sets(self) -> dict[str, ImageSet]:
        """The test images, and those that are upright once more, each rotated by an angle of its own."""
        sets = self.data.test_sets()
        upright = [name for name, images in sets.items() if images.angles is None]
        if self.judging.rotated:
            sets |= {
                f"{name}-rotated": rotated(sets[name]) for name in upright if f"{name}-rotated" not in sets
            }
        return sets


def require_labels(data: ImageData) -> None:
    """Raises ValueError for images without labels, or all of one class."""
    if not data.has_classes:
        raise ValueError(
            f"{data.name}: expected images of at least two classes, got "
            f"{'no labels' if data.train.labels is None else 'one class'}. A folder of images needs one "
            "folder a class, an .npz an array 'labels'."
        )
