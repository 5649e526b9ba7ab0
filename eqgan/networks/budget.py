"""Equal budgets: what a width means under a group, and what a network costs."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from eqgan.groups import PlaneGroup
from eqgan.networks.parts import require_widths
from eqgan.nn import OperatorNorm, by_filter_banks

Match = Literal["parameters", "activations", "none"]


def fields_for(width: int, group: PlaneGroup, match: Match = "parameters") -> int:
    """Number of regular fields that stand for ``width`` channels of a plain convolution.

    A regular field has |G| channels and the filter between two of them |G| weights a cell. So ``width /
    sqrt(|G|)`` fields keep the parameters, ``width / |G|`` fields keep the activations (and the cost), and
    ``"none"`` takes ``width`` fields.

    Raises:
        ValueError: for an unknown rule or a width below one.

    Example:
        >>> from eqgan.groups import P4
        >>> [fields_for(64, P4, rule) for rule in ("parameters", "activations", "none")]
        [32, 16, 64]
    """
    require_widths(width)
    divisors = {"parameters": group.order**0.5, "activations": float(group.order), "none": 1.0}
    if match not in divisors:
        raise ValueError(f"expected match in {tuple(divisors)}, got {match!r}")
    return max(1, round(width / divisors[match]))


@dataclass(frozen=True)
class Budget:
    """What a network holds and does for one item: parameters, and multiply-adds of a forward pass."""

    parameters: int
    multiply_adds: int


def budget(network: nn.Module, *example: Tensor) -> Budget:
    """Counts the parameters, and the multiply-adds for the one item in ``example`` (batch of 1).

    Args:
        network: any.
        example: what it takes; of a conditional network also a label.

    Counted are convolutions and matrix products, as torch's own flop counter sees them, without those of the
    power iteration of an operator norm: they are done once a step, not once an item. Group convolutions
    count as by their filter banks, whatever way they take on this machine.
    """
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad(), by_filter_banks(network), FlopCounterMode(display=False) as counter:
            network(*example)
    finally:
        network.train(was_training)
    norms = [
        f"{type(network).__name__}.{n}" for n, m in network.named_modules() if isinstance(m, OperatorNorm)
    ]
    counts = counter.get_flop_counts()
    flops = counter.get_total_flops() - sum(sum(counts[name].values()) for name in norms if name in counts)
    return Budget(sum(p.numel() for p in network.parameters()), flops // 2)
