"""The compiled engine of one group, called on plain CPU tensors."""

import ctypes
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eqgan.groups import PointGroup, intertwiner_index, window_action
from eqgan.groups.fourier import group_fourier
from eqgan.groups.representation import regular, trivial
from eqgan.nn.fourier.build import isas, load
from eqgan.nn.fourier.emit import group_header

_POINTER, _INDEX = ctypes.c_void_p, ctypes.c_int64
_SIZES = ("batch", "fields_in", "other", "height", "width", "out_height", "out_width")
_TENSORS = ("patched", "filter", "bias", "out", "plain", "filter_gradient", "shift")
_POSITIONS = 160  # at most in a block: its features stay in the second level of cache
_PATCHES = 12_288  # of lifting, numbers at most in the patches of a block: they stay in the first
FEWEST_SITES = 16  # of an output map that is lifted to: those of the widest vector
_REGULAR, _LIFTING, _LIFTING_BACKWARDS = range(3)  # kinds


class _Task(ctypes.Structure):
    """As in source/engine.h."""

    _fields_ = (
        ("kind", _INDEX),
        *((name, _POINTER) for name in _TENSORS),
        *((name, _INDEX) for name in (*_SIZES, "padding", "side", "cells", "rows", "slices")),
        *((name, _POINTER) for name in ("weight_gradient", "bias_gradient")),
        ("bfloat16", _INDEX),
    )


class _Filter(ctypes.Structure):
    _fields_ = (
        *((name, _POINTER) for name in ("weight", "packed", "entry")),
        *((name, _INDEX) for name in ("fields_in", "other", "in_stride", "other_stride", "cells")),
    )


class Engine:
    """Group convolution from regular fields or planes (lifting) to regular fields: stride 1, contiguous, CPU.

    Maps are float32 or bfloat16, filters, biases and the filters' gradients float32. A filter of one window a
    pair lifts, one of a window an element is between regular fields.

    Args:
        group: the point group.
        library: what ``build.load`` gave.
        isa: number of the instruction set among ``build.isas()``; None for the best of this machine.
    """

    def __init__(self, group: PointGroup, library: ctypes.CDLL, isa: int | None = None) -> None:
        self.group, self.library = group, library
        for function in (library.packed_size, library.gradient_size):
            function.restype, function.argtypes = _INDEX, (ctypes.c_int, _INDEX, _INDEX, _INDEX)
        self.isa = library.best_isa() if isa is None else isa
        self.isa_name = list(isas())[self.isa]
        self.lanes = {"plain": 4, "avx2": 8, "avx512": 16, "avx512_bf16": 16}[self.isa_name]
        self.team = _openmp_of_torch()

    # ---- the three operations ------------------------------------------------------------------------------

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None, size: int, padding: int) -> Tensor:
        """x (batch, in * order, h, w), weight (out, in, order * size^2), bias (out) or None.

        Of lifting, x (batch, in, h, w) and weight (out, in, size^2).
        """
        if not lifts(weight, size):
            return self.forward_packed(x, self.pack(weight, size), bias, len(weight), size, padding)
        out = self._empty_output(x, len(weight), size, padding)
        self._lift(_LIFTING, x, weight, size, padding, bias=bias, out=out)
        return out

    def forward_packed(
        self, x: Tensor, packed: Tensor, bias: Tensor | None, fields: int, size: int, padding: int
    ) -> Tensor:
        """Between regular fields."""
        out = self._empty_output(x, fields, size, padding)
        self._run(x, size, padding, fields, filter=packed, bias=bias, out=out)
        return out

    def _empty_output(self, x: Tensor, fields: int, size: int, padding: int) -> Tensor:
        return x.new_empty(len(x), fields * self.group.order, *output_sides(x, size, padding))

    def backward(
        self,
        out_gradient: Tensor,
        x: Tensor,
        weight: Tensor,
        size: int,
        padding: int,
        need: tuple[bool, bool, bool],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of x, of the weight and of the bias, of those that are needed (else empty tensors)."""
        if lifts(weight, size):
            return self._lift_backward(out_gradient, x, weight, size, padding, need)
        of_bias = bias_gradient(out_gradient, weight) if need[2] else weight.new_empty(0)
        return *self._backward(out_gradient, x, weight, size, padding, need[:2]), of_bias

    def _backward(
        self,
        out_gradient: Tensor,
        x: Tensor,
        weight: Tensor,
        size: int,
        padding: int,
        need: tuple[bool, bool],
    ) -> tuple[Tensor, Tensor]:
        """Of regular fields, in one pass.

        The gradient of x is a group convolution of the output's gradient with the transposed filter; it needs
        neighbourhoods of the output's gradient, and the filter's gradient is taken from the same ones.
        """
        empty, fields_out, fields_in = weight.new_empty(0), *weight.shape[:2]
        x_gradient = torch.empty_like(x) if need[0] else x.new_empty(0)
        if not need[0] and (not need[1] or fields_in <= fields_out):
            own = self._filter_gradient(x, out_gradient, weight, size, padding) if need[1] else empty
            return x_gradient, own
        options: dict[str, Tensor] = {"plain": x} if need[1] else {}
        if need[0]:
            options |= {"filter": self.pack(weight, size, transposed=True), "out": x_gradient}
        packed = self._run(out_gradient, size, size - 1 - padding, fields_in, **options, plane=x)
        return x_gradient, self._unpack(packed, weight, size, transposed=True) if need[1] else empty

    def _filter_gradient(
        self, x: Tensor, out_gradient: Tensor, weight: Tensor, size: int, padding: int
    ) -> Tensor:
        packed = self._run(x, size, padding, len(weight), plain=out_gradient)
        return self._unpack(packed, weight, size, transposed=False)

    def _lift_backward(
        self,
        out_gradient: Tensor,
        x: Tensor,
        weight: Tensor,
        size: int,
        padding: int,
        need: tuple[bool, bool, bool],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradient of the bias comes with that of the weight, from the same reading."""
        x_gradient, of_weight, of_bias = x.new_empty(0), weight.new_empty(0), weight.new_empty(0)
        if need[0]:
            x_gradient = torch.empty_like(x)
            self._lift(_LIFTING_BACKWARDS, x_gradient, weight, size, padding, plain=out_gradient)
        if need[1]:
            of_weight, of_bias = torch.empty(weight.shape), torch.empty(len(weight))
            self._lift(_LIFTING, x, weight, size, padding, plain=out_gradient, gradients=(of_weight, of_bias))
        elif need[2]:
            of_bias = bias_gradient(out_gradient, weight)
        return x_gradient, of_weight, of_bias if need[2] else weight.new_empty(0)

    # ---- filters -------------------------------------------------------------------------------------------

    def pack(self, weight: Tensor, size: int, transposed: bool = False) -> Tensor:
        """The filter's blocks, in the order in which they are multiplied."""
        weight = weight.contiguous()
        filter = self._filter(weight, size, transposed)
        packed = weight.new_empty(
            self.library.packed_size(self.isa, filter.fields_in, filter.other, filter.cells)
        )
        filter.packed = packed.data_ptr()
        self.library.pack(self.isa, ctypes.byref(filter))
        return packed

    def _unpack(self, packed: Tensor, like: Tensor, size: int, transposed: bool) -> Tensor:
        weight = torch.empty(like.shape)
        filter = self._filter(weight, size, transposed)
        filter.packed = packed.data_ptr()
        self.library.unpack(self.isa, ctypes.byref(filter))
        return weight

    def _filter(self, weight: Tensor, size: int, transposed: bool) -> _Filter:
        fields_out, fields_in, entries = weight.shape
        tables = filter_tables(self.group, size)
        sides = [(fields_in, entries), (fields_out, fields_in * entries)]
        (n_in, in_stride), (other, other_stride) = reversed(sides) if transposed else sides
        entry = tables.transposed_entry if transposed else tables.entry
        return _Filter(
            weight.data_ptr(), None, entry.ctypes.data, n_in, other, in_stride, other_stride, size * size
        )

    # ---- a pass --------------------------------------------------------------------------------------------

    def _run(
        self,
        patched: Tensor,
        size: int,
        padding: int,
        other: int,
        plane: Tensor | None = None,
        **tensors: Tensor | None,
    ) -> Tensor:
        """Runs source/engine.h's task; returns the packed filter gradient (empty if none was asked for)."""
        order, (batch, channels, height, width) = self.group.order, patched.shape
        out_height, out_width = output_sides(patched, size, padding) if plane is None else plane.shape[2:]
        fields_in = channels // order
        rows = _rows_in_block(batch * out_height, out_width, self.lanes)
        slices = max(1, min(torch.get_num_threads(), -(-batch * out_height // rows)))
        gradient = torch.empty(0)
        if tensors.get("plain") is not None:
            floats = self.library.gradient_size(self.isa, fields_in, other, size * size)
            gradient = torch.zeros(slices, floats)
        if batch and out_height and out_width:
            numbers = (batch, fields_in, other, height, width, out_height, out_width)
            maps = patched, tensors.get("out"), tensors.get("plain")
            task = _Task(
                **{name: _address(tensor) for name, tensor in tensors.items()},
                filter_gradient=gradient.data_ptr(),
                patched=patched.data_ptr(),
                shift=filter_tables(self.group, size).shift.ctypes.data,
                **dict(zip(_SIZES, numbers)),
                **{"padding": padding, "side": size, "cells": size * size, "rows": rows, "slices": slices},
                bfloat16=_which_are_bfloat16(*maps),
            )
            self._execute(task)
        elif (out := tensors.get("out")) is not None:
            out.zero_()
        return gradient.sum(0) if slices > 1 and gradient.numel() else gradient

    def _lift(
        self,
        kind: int,
        planes: Tensor,
        weight: Tensor,
        size: int,
        padding: int,
        bias: Tensor | None = None,
        out: Tensor | None = None,
        plain: Tensor | None = None,
        gradients: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Between planes (batch, in, h, w) and fields (batch, out * order, h', w'), ``out`` or ``plain``.

        One call into the engine, filters and all: between small maps, most of the time is that of calls.
        """
        (batch, planes_in, height, width), cells = planes.shape, size * size
        out_height, out_width = output_sides(planes, size, padding)
        rows, fields = lifting_rows(planes_in * cells, out_width, self.lanes), len(weight)
        units = batch if kind == _LIFTING_BACKWARDS else batch * -(-out_height // rows)
        slices = max(1, min(torch.get_num_threads(), units))
        weight = weight.contiguous()
        sums = of_weight = of_bias = None
        if gradients is not None:
            sums = torch.empty(slices * (planes_in * cells + 1) * fields * self.group.order)
            of_weight, of_bias = gradients
        if not batch:  # nothing has an address
            for gradient in gradients or ():
                gradient.zero_()
            return
        task = _Task(
            *(kind, planes.data_ptr(), None if sums is not None else weight.data_ptr()),
            *(_address(bias), _address(out), _address(plain), _address(sums)),
            filter_tables(self.group, size).lifting_entry_address,
            *(batch, planes_in, fields, height, width, out_height, out_width),
            *(padding, size, cells, rows, slices, _address(of_weight), _address(of_bias)),
            _which_are_bfloat16(planes, out, plain),
        )
        self._execute(task)

    def _execute(self, task: _Task) -> None:
        if self.library.run(self.isa, ctypes.byref(task), self.team):
            raise MemoryError("the group convolution found no memory for its block of features")


def lifts(weight: Tensor, size: int) -> bool:
    """Whether a filter (out, in, entries of a pair) is of planes rather than of regular fields."""
    return weight.shape[2] == size * size


def bias_gradient(out_gradient: Tensor, weight: Tensor) -> Tensor:
    """(out) of a gradient (batch, out * order, height, width), in the type of the filter."""
    return out_gradient.unflatten(1, (len(weight), -1)).sum((0, 2, 3, 4), dtype=weight.dtype)


def _which_are_bfloat16(*tensors: Tensor | None) -> int:
    """A bit for each."""
    return sum(1 << i for i, t in enumerate(tensors) if t is not None and t.dtype == torch.bfloat16)


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def output_sides(x: Tensor, size: int, padding: int) -> tuple[int, int]:
    return x.shape[2] + 2 * padding - size + 1, x.shape[3] + 2 * padding - size + 1


def lifting_rows(patch_rows: int, width: int, lanes: int) -> int:
    """Most output rows in a block; with half of them a block still fills a vector."""
    return max(_PATCHES // (patch_rows * width), 2 * -(-lanes // width) + 2)


@cache
def _rows_in_block(rows: int, width: int, lanes: int) -> int:
    """As many output rows as fill the vectors best."""

    def filled(count: int) -> float:
        return count * width / (-(-count * width // lanes) * lanes)

    most = max(1, min(rows, _POSITIONS // max(width, 1)))
    return max(range(max(1, most // 2), most + 1), key=lambda count: (round(filled(count), 2), count))


class FilterTables:
    """Where the cells and filter entries of a window go, as integers the engine reads."""

    def __init__(self, group: PointGroup, size: int) -> None:
        moved = window_action(group, size)
        cells = size * size
        self.shift = _int32(np.stack(np.divmod(moved, size), axis=-1))
        self.entry = _int32(np.arange(group.order)[:, None] * cells + moved)
        # the transposed filter is w~[v](q) = w[v^-1](-(v^-1 q)): co-rotated, the cell's own opposite
        self.lifting_entry = _int32(intertwiner_index(regular(group), trivial(group), size)[0])
        self.lifting_entry_address = self.lifting_entry.ctypes.data
        self.transposed_entry = _int32(group.inverse[:, None] * cells + np.arange(cells)[::-1])


def _int32(array: Any) -> NDArray[np.int32]:
    return np.ascontiguousarray(array, dtype=np.int32)


@cache
def filter_tables(group: PointGroup, size: int) -> FilterTables:
    return FilterTables(group, size)


@cache
def engine(group: PointGroup) -> Engine | None:
    """The engine of this group, compiled at the first call; None where it cannot be."""
    library = load(group_header(group_fourier(group)))
    return None if library is None else Engine(group, library)


@cache
def _openmp_of_torch() -> ctypes.c_void_p | None:
    """The address of GOMP_parallel in the OpenMP that torch runs on: a second would fight it for cores."""
    try:
        maps = Path("/proc/self/maps").read_text()
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
