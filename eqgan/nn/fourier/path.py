"""Which layers take the fast group convolution, and when."""

import copy
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from eqgan.groups import FieldType, PointGroup
from eqgan.groups.fourier import group_fourier
from eqgan.nn.fourier.engine import engine
from eqgan.nn.fourier.operator import flat_generators

MODES = ("auto", "bank", "fourier")
MEASURED = Path(__file__).parent / "measured.json"
NEVER = sys.maxsize


def mode() -> str:
    """The environment variable EQGAN_CONV: auto (default), bank, or fourier wherever it can.

    Raises:
        ValueError: for another word.
    """
    chosen = os.environ.get("EQGAN_CONV") or "auto"
    if chosen not in MODES:
        raise ValueError(f"expected EQGAN_CONV to be one of {', '.join(MODES)}, got {chosen!r}")
    return chosen


def _has_engine(group: PointGroup) -> bool:
    return engine(group) is not None


_available: Callable[[PointGroup], bool] = torch.compiler.assume_constant_result(_has_engine)


@dataclass(frozen=True)
class FourierPath:
    """The fast path of one layer, and from how many output sites (batch x height x width) on it is taken.

    Where it cannot be taken (no compiler, another dtype or device, autocast, export, forward-mode
    differentiation) or is not known to pay, the filter bank serves the same numbers.
    """

    group: PointGroup
    generators: list[int]
    size: int
    padding: int
    fields: int
    least_sites: int

    @classmethod
    def of(
        cls, in_type: FieldType, out_type: FieldType, size: int, stride: int, padding: int
    ) -> "FourierPath | None":
        """None for a layer that always takes the bank."""
        group = in_type.group.point_group
        regular = in_type.representation.is_regular and out_type.representation.is_regular
        if not regular or stride != 1 or group.order == 1:
            return None
        least = least_sites(group, size, in_type.multiplicity, out_type.multiplicity)
        if least == NEVER:
            return None
        return cls(group, flat_generators(group), size, padding, out_type.multiplicity, least)

    def takes(self, x: Tensor, weight: Tensor) -> bool:
        if x.dtype != torch.float32 or weight.dtype != torch.float32 or x.device.type != "cpu":
            return False
        if x.shape[0] * self._side(x.shape[2]) * self._side(x.shape[3]) < self.least_sites:
            return False
        if min(self._side(x.shape[2]), self._side(x.shape[3])) < 1:
            return False  # the convolution says what is wrong
        if self.least_sites and _channels_last(x):
            return False
        return not torch.is_autocast_enabled("cpu") and not _recorded(x) and _available(self.group)

    def _side(self, length: int) -> int:
        return length + 2 * self.padding - self.size + 1

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return torch.ops.eqgan.group_conv2d(x, weight, bias, self.generators, self.size, self.padding)

    def pack(self, weight: Tensor) -> Tensor:
        if (made := engine(self.group)) is None:
            raise ValueError(f"expected an engine for {self.group}, there is none; ask takes() first")
        return made.pack(weight.detach(), self.size)

    def apply_packed(self, x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
        return torch.ops.eqgan.group_conv2d_packed(
            x, packed, bias, self.generators, self.size, self.padding, self.fields
        )


def _channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _recorded(x: Tensor) -> bool:
    """Whether the operations are written down for elsewhere, or differentiated forwards."""
    exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
    if exporting() or torch.jit.is_tracing():  # type: ignore[attr-defined]
        return True
    return not torch.compiler.is_compiling() and forward_ad.unpack_dual(x).tangent is not None


# ---- choice by size ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """What both ways do for a layer: a constant, for its filter, and for each output site."""

    multiplications: int
    features: int
    outputs: int
    weights: int
    dense: int
    bank: int

    @classmethod
    def of(cls, group: PointGroup, size: int, fields_in: int, fields_out: int) -> "Work":
        order, pairs, cells = group.order, fields_in * fields_out, size * size
        return cls(
            multiplications=pairs * cells * group_fourier(group).multiplications,
            features=(fields_in + fields_out) * cells * order,
            outputs=(fields_in + fields_out) * order,
            weights=pairs * cells * order,
            dense=pairs * cells * order**2,
            bank=pairs * cells * order**2,
        )

    def fourier_terms(self, sites: int) -> tuple[float, ...]:
        """What the time of the fast path is fitted to be a sum of multiples of."""
        each = self.multiplications, self.features, self.outputs
        return 1.0, float(self.weights), *(float(sites * count) for count in each)

    def bank_terms(self, sites: int) -> tuple[float, ...]:
        return 1.0, float(self.bank), float(sites * self.dense), float(sites * self.outputs)


@cache
def measured() -> dict[str, Any]:
    """By instruction set: nanoseconds a term, as benchmarks/fast_conv.py fitted them."""
    found: dict[str, Any] = json.loads(MEASURED.read_text())
    return found


def least_sites(group: PointGroup, size: int, fields_in: int, fields_out: int) -> int:
    """Output sites from which on the fast path is expected to be faster by the margin; NEVER if it is not."""
    if (chosen := mode()) != "auto":
        return 0 if chosen == "fourier" else NEVER
    fits = measured()["fits"].get(torch.backends.cpu.get_cpu_capability().lower())
    if fits is None or group.name not in fits["groups"]:
        return NEVER
    work = Work.of(group, size, fields_in, fields_out)
    return max(_crossing(work, fit, measured()["margin"]) for fit in fits["times"].values())


def _crossing(work: Work, fit: dict[str, list[float]], margin: float) -> int:
    """Both times are linear in the sites."""

    def times(sites: int) -> float:
        ours = sum(c * t for c, t in zip(fit["fourier"], work.fourier_terms(sites)))
        return ours - margin * sum(c * t for c, t in zip(fit["bank"], work.bank_terms(sites)))

    start, slope = times(0), times(1) - times(0)
    if slope >= 0:
        return NEVER
    return max(0, int(start / -slope) + 1)


@torch.no_grad()
def convolution_paths(network: nn.Module, x: Tensor) -> dict[str, str]:
    """Which way each group convolution of a network takes for this input: ``{"body.3": "fourier", ...}``."""
    network = copy.deepcopy(network).eval()
    found: dict[str, str] = {}

    def watch(name: str) -> Any:
        def hook(module: Any, inputs: tuple[Tensor, ...]) -> None:
            path = module._fourier
            taken = path is not None and path.takes(inputs[0], module.weight)
            found[name] = "fourier" if taken else "bank"

        return hook

    for name, module in network.named_modules():
        if hasattr(module, "_fourier"):
            module.register_forward_pre_hook(watch(name))
    network(x)
    return found
