"""From which size on the fast path is taken: a model of the time of both ways, fitted to measurements."""

import json
import os
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from eqgan.groups import PointGroup
from eqgan.groups.fourier import group_fourier
from eqgan.nn.fourier.tables import Form, layout, sites_of_block

MODES = ("auto", "bank", "fourier")
KINDS = ("training", "eval", "training_bf16", "eval_bf16")
# In training where what is lifted wants a gradient too: in steps of generators and in penalties of their
# discriminators, and where networks lift again.
LIFTING_KINDS = (*KINDS, "images", "images_bf16")
MEASURED = Path(__file__).parent / "measured.json"
NEVER = sys.maxsize
MOST_PATCH_ROWS = 27  # planes times cells; beyond, lifting waits for multiplications as a dense one does


def mode() -> str:
    """The environment variable EQGAN_CONV: auto (default), bank, or fourier wherever it can.

    Raises:
        ValueError: for another word.
    """
    chosen = os.environ.get("EQGAN_CONV") or "auto"
    if chosen not in MODES:
        raise ValueError(f"expected EQGAN_CONV to be one of {', '.join(MODES)}, got {chosen!r}")
    return chosen


@cache
def cpu_multiplies_bf16() -> bool:
    """Whether this CPU has instructions for it; others emulate it, slowly."""
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def instruction_set() -> str:
    """Measurements are kept under it: ``avx2``, ``avx512``, ``avx512 with bf16``, ``avx512 with amx``, ..."""
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    more = " with amx" if capabilities.get("amx_bf16") else " with bf16" if cpu_multiplies_bf16() else ""
    return torch.backends.cpu.get_cpu_capability().lower() + more


def _up(fields: int) -> int:
    """Products of few columns leave the multipliers waiting for features."""
    return -(-fields // 4) * 4


class Layer(NamedTuple):
    """What the choice depends on."""

    group: PointGroup
    size: int
    fields_in: int
    fields_out: int
    lifting: bool = False
    stride: int = 1
    transposed: bool = False  # then the stride is of the output
    whole: bool = False  # of maps as large as the window
    stabiliser: tuple[int, ...] = ()  # H of fields on G/H in; none of regular ones

    @property
    def fitted_as(self) -> str:
        """Whose times are taken for it: of convolutions that PyTorch goes about in the same way."""
        if self.whole:
            return "whole"
        if self.stabiliser:
            return "quotient"
        if self.lifting:
            return "lifting" if self.stride == 1 else "strided_lifting"
        if self.transposed:
            return "transposed"
        return "regular" if self.stride == 1 else "strided"

    @property
    def kinds(self) -> tuple[str, ...]:
        """What it is fitted for."""
        return LIFTING_KINDS if self.lifting else KINDS


@dataclass(frozen=True)
class Work:
    """What both ways do for a layer: a constant, for its filter, and for each output site."""

    multiplications: int
    features: tuple[int, int]  # of the fields in, and of the fields out
    values: tuple[int, int]
    weights: int
    dense: int
    moved: int = 0  # values picked out of maps, or put into them, block by block
    backwards: int = 0  # multiplications, where they are not those of the way forward

    @classmethod
    def of(cls, layer: Layer) -> "Work":
        """Of a layer that the fast path can serve at all; of a transposed one, for a site of its blocks; of
        whole maps, for an item, each a block."""
        group, size, fields_in, fields_out, lifting, stride, transposed, whole, stabiliser = layer
        if whole:
            work = cls.of(Layer(group, 1, fields_in * size**2, fields_out))
            return replace(work, moved=work.values[0])
        if stride > 1 and not lifting:
            blocks = sites_of_block(size, stride)
            if blocks is None:
                raise ValueError(f"expected a stride that makes blocks, got {stride} for a window of {size}")
            if transposed:
                work = cls.of(Layer(group, size // stride, fields_in, fields_out * blocks))
                return replace(work, moved=work.values[1])
            work = cls.of(Layer(group, size // stride, fields_in * blocks, fields_out))
            return replace(work, moved=work.values[0])
        order, pairs, cells = group.order, fields_in * fields_out, size * size
        if lifting:  # as many multiplications as the dense one; its features are the patches
            dense, out = pairs * cells * order, fields_out * order
            return cls(dense, (cells * fields_in, out), (fields_in * stride**2, out), dense, dense)
        form, transform = Form(stabiliser=stabiliser), group_fourier(group)
        patches, planes = layout(group, size, form, False).cells, form.planes(group)
        columns = (
            fields_in * _up(fields_out) + fields_out * _up(fields_in)
        ) / 2  # forward, and for gradients
        backwards = int(columns * cells * transform.multiplications_for(stabiliser))
        return cls(
            multiplications=int(columns * patches * transform.multiplications),
            features=(patches * fields_in * order, cells * fields_out * order),
            values=(fields_in * planes, fields_out * order),
            weights=pairs * cells * planes,
            dense=pairs * cells * planes * order,
            backwards=backwards if stabiliser else 0,
        )

    def fourier_terms(self, sites: int) -> tuple[float, ...]:
        """What the time of the fast path is fitted to be a sum of multiples of."""
        others = (count for count in (self.moved, self.backwards) if count)
        each = self.multiplications, *self.features, *self.values, *others
        return 1.0, float(self.weights), *(float(sites * count) for count in each)

    def bank_terms(self, sites: int) -> tuple[float, ...]:
        return 1.0, float(self.dense), *(float(sites * count) for count in (self.dense, *self.values))


@cache
def measured() -> dict[str, Any]:
    """By instruction set and processor: nanoseconds a term, as benchmarks/fit_fast_conv.py fitted them."""
    found: dict[str, Any] = json.loads(MEASURED.read_text())
    return found


def least_sites(kind: str, layer: Layer) -> int:
    """Output sites from which on the fast path is expected to be faster by the margin; NEVER if it is not.

    It is to be faster on every processor with these instructions that was measured.

    Args:
        kind: one of the layer's: with gradients or without, in float32 or under autocast to bfloat16.
    """
    if (chosen := mode()) != "auto":
        return 0 if chosen == "fourier" else NEVER
    if layer.size == layer.stride:
        return NEVER  # one cell is a matrix product, which no convolution need be gathered for
    if layer.lifting and layer.fields_in * layer.size**2 > MOST_PATCH_ROWS:
        return NEVER
    processors = measured()["fits"].get(instruction_set(), {}).values()
    return max((_least_sites(kind, layer, fits) for fits in processors), default=NEVER)


def _least_sites(kind: str, layer: Layer, processor: dict[str, Any]) -> int:
    """By the times of one processor."""
    fits = processor.get(layer.fitted_as)
    if fits is None or layer.group.name not in fits["groups"]:
        return NEVER
    if kind not in fits["times"]:  # not measured: a gradient of images more is in favour of the fast path
        kind = kind.replace("images", "training")
    found = crossing(Work.of(layer), fits["times"][kind], fits["margins"][kind])
    return max(found, fits.get("fewest_sites", 0))  # nothing is said of fewer than were measured


def crossing(work: Work, fit: dict[str, list[float]], margin: float) -> int:
    """Both times are linear in the sites."""

    def times(sites: int) -> float:
        ours = sum(c * t for c, t in zip(fit["fourier"], work.fourier_terms(sites)))
        return ours - margin * sum(c * t for c, t in zip(fit["bank"], work.bank_terms(sites)))

    start, slope = times(0), times(1) - times(0)
    if slope >= 0:
        return NEVER
    return max(0, int(start / -slope) + 1)
