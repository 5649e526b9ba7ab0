"""The compiled code of one group, and how it is called."""

import ctypes
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eqgan.groups import PointGroup
from eqgan.nn.fourier.build import isas

_POINTER, _INDEX = ctypes.c_void_p, ctypes.c_int64
SIZES = ("batch", "fields_in", "other", "height", "width", "out_height", "out_width")
_TENSORS = ("patched", "filter", "bias", "out", "plain", "filter_gradient", "shift", "plane", "other_plane")
REGULAR, LIFTING, LIFTING_BACKWARDS = range(3)  # kinds of tasks
NOTHING, PATCHED, OTHER = range(3)  # which side is in blocks


class Task(ctypes.Structure):
    """As in source/engine.h."""

    _fields_ = (
        ("kind", _INDEX),
        *((name, _POINTER) for name in _TENSORS),
        *(
            (name, _INDEX)
            for name in (
                *SIZES,
                "planes",
                "other_planes",
                "irreps",
                "padding",
                "stride",
                "side",
                "cells",
                "rows",
                "slices",
            )
        ),
        *((name, _POINTER) for name in ("weight_gradient", "bias_gradient")),
        ("bfloat16", _INDEX),
        *((name, _INDEX) for name in ("blocked", "cut", "block_side")),
        *((name, _INDEX) for name in ("map_height", "map_width", "map_padding")),
        ("sites", _POINTER),
        ("rectified", _INDEX),
        ("slope", ctypes.c_float),
        ("pooled", _INDEX),
        ("sums", _POINTER),
        ("sums_cell", _INDEX),
    )


class Filter(ctypes.Structure):
    _fields_ = (
        *((name, _POINTER) for name in ("weight", "packed", "entry")),
        *((name, _INDEX) for name in ("fields_in", "other", "layer_in", "layer_other")),
        *((name, _INDEX) for name in ("in_stride", "other_stride", "cells", "gradients")),
    )


class Native:
    """The compiled code of one group.

    Args:
        group: the point group.
        library: what ``build.load`` gave.
        isa: number of the instruction set among ``build.isas()``; None for the best of this machine.
    """

    def __init__(self, group: PointGroup, library: ctypes.CDLL, isa: int | None = None) -> None:
        self.group, self.library = group, library
        for function in (library.packed_size, library.gradient_size):
            function.restype, function.argtypes = _INDEX, (ctypes.c_int, _INDEX, _INDEX, _INDEX)
        for function in (library.pack, library.unpack):
            function.restype, function.argtypes = None, (ctypes.c_int, _POINTER, _INDEX, _POINTER)
        self.isa = library.best_isa() if isa is None else isa
        self.isa_name = list(isas())[self.isa]
        self.tile = 8 if self.isa_name.startswith("avx512") else 4  # columns in one; on ARM more than it says
        self.lanes = {"plain": 4, "avx2": 8, "avx512": 16, "avx512_bf16": 16}[self.isa_name]
        self.team = _openmp_of_torch()

    def execute(self, task: Task) -> None:
        """Runs source/engine.h's task in torch's threads."""
        if self.library.run(self.isa, ctypes.byref(task), self.team):
            raise MemoryError("the group convolution found no memory for its block of features")


def lifts(weight: Tensor, size: int) -> bool:
    """Whether a filter (out, in, entries of a pair) is of planes rather than of regular fields."""
    return weight.shape[2] == size * size


def bias_gradient(out_gradient: Tensor, weight: Tensor) -> Tensor:
    """(out) of a gradient (batch, out * order, height, width), in the type of the filter."""
    return out_gradient.unflatten(1, (len(weight), -1)).sum((0, 2, 3, 4), dtype=weight.dtype)


def which_are_bfloat16(*tensors: Tensor | None) -> int:
    """A bit for each."""
    return sum(1 << i for i, t in enumerate(tensors) if t is not None and t.dtype == torch.bfloat16)


class After(NamedTuple):
    """What follows a convolution, in one pass with it.

    Args:
        slope: what is below zero is multiplied by it; None: nothing is.
        pool: for each element of the group, of which plane of a field left it may be the largest; then a
            slope is not negative. Without one, all are kept.
    """

    slope: float | None = None
    pool: tuple[int, ...] = ()

    @property
    def planes(self) -> int | None:
        """Of each field of the result; None without a pool."""
        return max(self.pool) + 1 if self.pool else None

    def told(self) -> dict[str, Any]:
        """What a task is told of it."""
        rectified = {} if self.slope is None else {"rectified": 1, "slope": self.slope}
        if not self.pool:
            return rectified
        table = _table_of(self.pool).ctypes.data
        return {**rectified, "pooled": 1, "other_plane": table, "other_planes": self.planes}

    def require_sense(self, order: int) -> None:
        """Raises ValueError for numbers that say nothing of a group of this order."""
        if self.pool and (len(self.pool) != order or set(self.pool) != set(range(max(self.pool) + 1))):
            raise ValueError(f"expected a plane for each of {order} elements, none left out, got {self.pool}")
        if self.pool and self.slope is not None and self.slope < 0:
            raise ValueError(f"expected a slope of at least 0 before a maximum, got {self.slope}")


NOTHING_MORE = After()


@cache
def _table_of(pool: tuple[int, ...]) -> NDArray[np.int32]:
    """The one table that the engine reads."""
    return np.array(pool, dtype=np.int32)


def address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def output_side(length: Any, size: int, padding: int, stride: int = 1) -> Any:
    return (length + 2 * padding - size) // stride + 1


def output_sides(x: Tensor, size: int, padding: int, stride: int = 1) -> tuple[int, int]:
    return output_side(x.shape[2], size, padding, stride), output_side(x.shape[3], size, padding, stride)


@cache
def _openmp_of_torch() -> ctypes.c_void_p | None:
    """The address of GOMP_parallel in the OpenMP that torch runs on: a second would fight it for cores."""
    try:
        maps = Path("/proc/self/maps").read_text(errors="surrogateescape")
    except OSError:
        return None
    paths = set(re.findall(r"\S*/lib(?:gomp|iomp5|omp)[-\w]*\.so[.\d]*", maps))
    own = str(Path(torch.__file__).parent)
    candidates = [path for path in paths if path.startswith(own)] or sorted(paths)
    if len(candidates) != 1:
        return None
    try:
        return ctypes.cast(ctypes.CDLL(candidates[0]).GOMP_parallel, ctypes.c_void_p)
    except (OSError, AttributeError):
        return None
