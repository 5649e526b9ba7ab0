"""Fine-tuning: which part of a classifier may learn, and how fast each stage does."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from eqgan.networks.classifiers import Classifier
from eqgan.nn import FieldBatchNorm2d, GroupConv2d

Trainable = Literal["head", "last-stage", "off-identity", "everything"]


class OffIdentity(nn.Module):
    """A filter whose identity taps are a constant and whose other taps are the parameter.

    The identity taps are not masked but absent from what an optimiser is given: no weight decay, momentum or
    restored state can move them.
    """

    identity: Tensor

    def __init__(self, identity: Tensor) -> None:
        super().__init__()
        self.register_buffer("identity", identity.detach().clone())

    def forward(self, others: Tensor) -> Tensor:
        return torch.cat([self.identity, others], dim=2)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight[..., self.identity.shape[2] :].clone()


def freeze(network: Classifier, but: Trainable) -> None:
    """Lets only a part of the network learn; what is frozen keeps its batch-norm statistics in training too.

    Args:
        network: any classifier; what an earlier call froze is free again first.
        but: ``"head"``; ``"last-stage"``, with the head; ``"off-identity"``, the taps of group convolutions
            that lie off the identity, with the head (an inflated network keeps all that the plain one knew);
            or ``"everything"``, which freezes nothing.

    Raises:
        ValueError: for another part, or for ``"off-identity"`` where there are no such taps.
    """
    parts = network.stages()
    free = {
        "head": ["head"],
        "last-stage": list(parts)[-2:],
        "off-identity": ["head"],
        "everything": list(parts),
    }
    if but not in free:
        raise ValueError(f"expected one of {tuple(free)} to stay trainable, got {but!r}")
    for module in network.modules():
        if isinstance(module, GroupConv2d) and parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
    for name, part in parts.items():
        _set_trainable(part, name in free[but])
    if but == "off-identity":
        _free_off_identity([part for name, part in parts.items() if name != "head"])


def _set_trainable(part: nn.Module, trainable: bool) -> None:
    part.requires_grad_(trainable)
    for module in part.modules():
        if isinstance(module, FieldBatchNorm2d):
            module.freeze(not trainable)


def _free_off_identity(parts: list[nn.ModuleList]) -> None:
    convolutions = [
        m for part in parts for m in part.modules() if isinstance(m, GroupConv2d) and _has_taps(m)
    ]
    if not convolutions:
        raise ValueError(
            "off-identity taps are those of convolutions between regular fields; this network has none. "
            "Use a group other than z2, or freeze all but 'head' or 'last-stage'."
        )
    for conv in convolutions:
        identity = conv.weight[..., : conv.kernel_size**2]
        parametrize.register_parametrization(conv, "weight", OffIdentity(identity))
        conv.requires_grad_(True)
        if conv.bias is not None:
            conv.bias.requires_grad_(False)


def _has_taps(conv: GroupConv2d) -> bool:
    regular = conv.in_type.representation.is_regular and conv.out_type.representation.is_regular
    return regular and conv.in_type.group.order > 1


def parameter_groups(
    network: Classifier, lr: float, decay: float = 1.0, rates: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """What may learn, as an optimiser's parameter groups: one for each stage, with its own learning rate.

    Args:
        network: any classifier, frozen in part or not.
        lr: of the head.
        decay: factor from each stage to the one before it.
        rates: learning rates of stages by name, in place of those.

    Returns:
        ``{"name": stage, "params": [...], "lr": rate}`` from image to head, without stages that are frozen.

    Raises:
        ValueError: for the name of a stage that the network does not have.

    Example:
        >>> from eqgan.groups import P4
        >>> from eqgan.networks import ResNet18
        >>> groups = parameter_groups(ResNet18((1, 33, 33), 2, P4, width=8, stem="small"), 0.1, decay=0.5)
        >>> [(g["name"], g["lr"]) for g in groups][-2:]
        [('stage4', 0.05), ('head', 0.1)]
    """
    parts, rates = network.stages(), dict(rates or {})
    unknown = rates.keys() - parts.keys()
    if unknown:
        raise ValueError(f"no stage {sorted(unknown)[0]!r} in this network; it has {', '.join(parts)}")
    groups: list[dict[str, Any]] = []
    for distance, (name, part) in enumerate(reversed(parts.items())):
        trainable = [p for p in part.parameters() if p.requires_grad]
        if trainable:
            groups.insert(0, {"name": name, "params": trainable, "lr": rates.get(name, lr * decay**distance)})
    return groups
