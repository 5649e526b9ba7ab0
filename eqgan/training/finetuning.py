"""Starting a classifier from weights that know something already, and what of it may still learn."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from eqgan.networks import Classifier, GroupResNet, freeze, initialise, parameter_groups, read_weights
from eqgan.networks.freezing import Trainable
from eqgan.training.callbacks.checkpoint import read_checkpoint
from eqgan.training.load import classifier_description, judged_weights
from eqgan.training.preprocessed import PreprocessedClassifier


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
        path: of a classifier's checkpoint, whose network must be the same but for image shape and classes;
            or of a state dict. Those of a plain residual network, torchvision's too, are inflated.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or of a network that differs elsewhere than in the last layers.
    """
    path = Path(path)
    group, weights = _weights(path)
    inner = network.network if isinstance(network, PreprocessedClassifier) else network
    if isinstance(inner, GroupResNet) and group in (None, "z2", str(inner.group)):
        head = next((w for name, w in weights.items() if name.endswith(("fc.weight", "head.weight"))), None)
        initialise(inner, weights, head=head is not None and len(head) == inner.num_classes)
    elif group not in (None, str(network.group)):
        raise ValueError(f"{path} holds a {group} network, expected {network.group}")
    else:
        _fill(network, weights, path)


def _weights(path: Path) -> tuple[str | None, Mapping[str, Tensor]]:
    """The group, where it is known, and the weights."""
    try:
        checkpoint = read_checkpoint(path)
    except ValueError as error:
        try:
            return None, read_weights(path)
        except Exception:
            raise error from None  # what the first reader said is the clearer
    return classifier_description(checkpoint, path)["group"], judged_weights(checkpoint)


def _fill(network: Classifier, theirs: Mapping[str, Tensor], path: Path) -> None:
    """Takes every tensor over up to the first that is of another shape; from there on none may fit."""
    ours = network.state_dict()
    fits = [name in theirs and theirs[name].shape == tensor.shape for name, tensor in ours.items()]
    names = list(ours)
    first_new = fits.index(False) if False in fits else len(fits)
    if not any(fits) or any(fits[first_new:]) or theirs.keys() - ours.keys():
        different = names[first_new] if first_new < len(names) else min(theirs.keys() - ours.keys())
        raise ValueError(
            f"{path} holds another network than {type(network).__name__} with these settings: its weights do "
            f"not fit {different}. Use the same --net, with the same settings"
        )
    network.load_state_dict({**ours, **{name: theirs[name] for name in names[:first_new]}})
