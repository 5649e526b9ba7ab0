"""Starting a classifier from weights that know something already, and what of it may still learn."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from eqgan.networks import (
    Classifier,
    freeze,
    initialise,
    parameter_groups,
    read_weights,
    torchvision_weights,
)
from eqgan.networks.freezing import Trainable
from eqgan.training.callbacks.checkpoint import read_checkpoint
from eqgan.training.load import find_checkpoint, load_classifier
from eqgan.training.preprocessed import without_preprocessing

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FineTuning:
    """Which part of a classifier learns, and how fast.

    Args:
        trainable: ``"head"``, ``"last-stage"`` (with the head), ``"off-identity"`` (the taps of group
            convolutions off the identity, with the head) or ``"everything"``.
        stage_decay: factor on the learning rate from each stage to the one before it.
        rates: learning rates of stages by name, in place of those.
    """

    trainable: Trainable = "everything"
    stage_decay: float = 1.0
    rates: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.stage_decay <= 1 or any(rate < 0 for rate in self.rates.values()):
            raise ValueError(
                "finetune: expected a stage_decay above 0 and up to 1, and rates of at least 0, "
                f"got {self.stage_decay} and {self.rates}"
            )

    def apply(self, network: Classifier) -> None:
        """Freezes what is not to learn; raises ValueError for the name of a stage that there is not."""
        freeze(network, self.trainable)
        parameter_groups(network, 1.0, self.stage_decay, self.rates)

    def groups(self, network: Classifier, lr: float) -> list[dict[str, Any]]:
        """Parameter groups of the stages; weight decay acts on filters and matrices only.

        Args:
            lr: learning rate of the head.
        """
        groups = []
        for stage in parameter_groups(network, lr, self.stage_decay, self.rates):
            parameters = stage["params"]
            flat = {"weight_decay": 0.0, "params": [p for p in parameters if p.ndim <= 1]}
            groups += [{**stage, "params": [p for p in parameters if p.ndim > 1]}, {**stage, **flat}]
        return [group for group in groups if group["params"]]


def start_from(network: Classifier, path: str | Path) -> None:
    """Gives a network the weights of a trained one, but for the last layers if they tell other classes apart.

    Args:
        network: changed in place.
        path: of a classifier's checkpoint or run, or of a state dict (torchvision's too), or
            "torchvision:resnet18". The network must be the same but for its classes; a plain one with as many
            channels as this has fields is inflated.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or of a network that differs elsewhere than in the last layers.
    """
    if name := torchvision_network(path):
        group, weights = None, torchvision_weights(name)
    else:
        path = find_checkpoint(path)
        group, weights = _weights(path)
    if group not in (None, "z2", str(network.group)):
        raise ValueError(
            f"{path} holds a {group} network, expected {network.group}, or a plain one to inflate"
        )
    inner = without_preprocessing(network)
    try:
        initialise(inner, weights)
    except ValueError:  # then for other classes, or not at all
        try:
            initialise(inner, weights, head=False)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def torchvision_network(path: str | Path) -> str:
    """The network whose weights are meant by such words as torchvision:resnet18; else nothing."""
    before, _, name = str(path).partition(":")
    return name if before == "torchvision" else ""


def _weights(path: Path) -> tuple[str | None, Mapping[str, Tensor]]:
    """The group, where it is known, and the weights; without what was fitted to the images of that run."""
    try:
        read_checkpoint(path)
    except ValueError as error:
        try:
            return None, read_weights(path)
        except Exception:
            raise error from None  # what the first reader said is the clearer
    whole = load_classifier(path, turns=1)
    network = without_preprocessing(whole)
    if whole is not network:
        log.warning("%s: what was done to its images first (--preprocess) is not taken over", path)
    return str(network.group), network.state_dict()
