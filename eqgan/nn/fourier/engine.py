"""Group convolution by the compiled code of one group, on plain CPU tensors."""

import ctypes
from functools import cache

import torch
from torch import Tensor

from eqgan.groups import PointGroup
from eqgan.groups.fourier import group_fourier
from eqgan.nn.fourier.build import load
from eqgan.nn.fourier.emit import group_header
from eqgan.nn.fourier.native import (
    SIZES,
    Filter,
    Native,
    Task,
    address,
    bias_gradient,
    output_sides,
    which_are_bfloat16,
)
from eqgan.nn.fourier.tables import filter_tables

_WEIGHTS = 16_384  # at least, of a filter that is packed in parts
_POSITIONS = 160  # at most in a block: its features stay in the second level of cache


class Engine(Native):
    """Group convolution between regular fields with stride 1, on contiguous CPU tensors.

    Maps are float32 or bfloat16, filters, biases and the filters' gradients float32.
    """

    # ---- the three operations ------------------------------------------------------------------------------

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None, size: int, padding: int) -> Tensor:
        """x (batch, in * order, h, w), weight (out, in, order * size^2), bias (out) or None."""
        return self.forward_packed(x, self.pack(weight, size), bias, len(weight), size, padding)

    def forward_packed(
        self, x: Tensor, packed: Tensor, bias: Tensor | None, fields: int, size: int, padding: int
    ) -> Tensor:
        """For a filter that was packed."""
        out = x.new_empty(len(x), fields * self.group.order, *output_sides(x, size, padding))
        packed, bias = packed.contiguous(), None if bias is None else bias.contiguous()
        self._run(x, size, padding, fields, filter=packed, bias=bias, out=out)
        return out

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
        """In one pass.

        The gradient of x is a group convolution of the output's gradient with the transposed filter; it needs
        neighbourhoods of the output's gradient, and the filter's gradient is taken from the same ones.
        """
        own, (fields_out, fields_in) = weight.new_empty(0), weight.shape[:2]
        x_gradient = torch.empty_like(x) if need[0] else x.new_empty(0)
        # of one cell there is no neighbourhood that both could take from
        if need[1] and (size == 1 or (not need[0] and fields_in <= fields_out)):
            own, need = self._filter_gradient(x, out_gradient, weight, size, padding), (need[0], False)
        if not any(need):
            return x_gradient, own
        options: dict[str, Tensor] = {"plain": x} if need[1] else {}
        if need[0]:
            options |= {"filter": self.pack(weight, size, transposed=True), "out": x_gradient}
        packed = self._run(out_gradient, size, size - 1 - padding, fields_in, **options, plane=x)
        return x_gradient, self._unpack(packed, weight, size, transposed=True) if need[1] else own

    def _filter_gradient(
        self, x: Tensor, out_gradient: Tensor, weight: Tensor, size: int, padding: int
    ) -> Tensor:
        packed = self._run(x, size, padding, len(weight), plain=out_gradient)
        return self._unpack(packed, weight, size, transposed=False)

    def packed_size(self, fields_in: int, fields_out: int, cells: int) -> int:
        """Numbers in a packed filter."""
        return int(self.library.packed_size(self.isa, fields_in, fields_out, cells))

    # ---- filters -------------------------------------------------------------------------------------------

    def pack(self, weight: Tensor, size: int, transposed: bool = False) -> Tensor:
        """The filter's blocks, in the order in which they are multiplied."""
        weight = weight.contiguous()
        filter = self._filter(weight, size, transposed)
        packed = weight.new_empty(self.packed_size(filter.fields_in, filter.other, filter.cells))
        filter.packed = packed.data_ptr()
        self.library.pack(self.isa, ctypes.byref(filter), _slices_of(weight), self.team)
        return packed

    def _unpack(self, packed: Tensor, like: Tensor, size: int, transposed: bool) -> Tensor:
        weight = torch.empty(like.shape, dtype=torch.float32)  # whatever torch's default is
        filter = self._filter(weight, size, transposed)
        filter.packed, filter.gradients = packed.data_ptr(), len(packed)
        self.library.unpack(self.isa, ctypes.byref(filter), _slices_of(weight), self.team)
        return weight

    def _filter(self, weight: Tensor, size: int, transposed: bool) -> Filter:
        fields_out, fields_in, entries = weight.shape
        tables = filter_tables(self.group, size)
        sides = [(fields_in, entries), (fields_out, fields_in * entries)]
        (n_in, in_stride), (other, other_stride) = reversed(sides) if transposed else sides
        entry = tables.transposed_entry if transposed else tables.entry
        return Filter(
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
        """Runs source/engine.h's task; returns the packed filter gradient, in parts that are its summands
        (slices, floats), empty if none was asked for."""
        order, (batch, channels, height, width) = self.group.order, patched.shape
        out_height, out_width = output_sides(patched, size, padding) if plane is None else plane.shape[2:]
        fields_in = channels // order
        rows = _rows_in_block(batch * out_height, out_width, self.lanes)
        slices = max(1, min(torch.get_num_threads(), -(-batch * out_height // rows)))
        gradient = torch.empty(0, 0, dtype=torch.float32)
        if tensors.get("plain") is not None:
            floats = self.library.gradient_size(self.isa, fields_in, other, size * size)
            gradient = torch.zeros(slices, floats, dtype=torch.float32)
        if batch and out_height and out_width:
            numbers = (batch, fields_in, other, height, width, out_height, out_width)
            maps = patched, tensors.get("out"), tensors.get("plain")
            task = Task(
                **{name: address(tensor) for name, tensor in tensors.items()},
                filter_gradient=gradient.data_ptr(),
                patched=patched.data_ptr(),
                shift=filter_tables(self.group, size).shift.ctypes.data,
                **dict(zip(SIZES, numbers)),
                **{"padding": padding, "stride": 1, "side": size, "cells": size * size},
                **{"rows": rows, "slices": slices},
                bfloat16=which_are_bfloat16(*maps),
            )
            self.execute(task)
        elif (out := tensors.get("out")) is not None:
            out.zero_()
        return gradient


def _slices_of(weight: Tensor) -> int:
    """Parts that threads pack; of a small filter waking them takes as long."""
    return max(1, min(torch.get_num_threads(), weight.numel() // _WEIGHTS))


@cache
def _rows_in_block(rows: int, width: int, lanes: int) -> int:
    """As many output rows as fill the vectors best."""

    def filled(count: int) -> float:
        return count * width / (-(-count * width // lanes) * lanes)

    most = max(1, min(rows, _POSITIONS // max(width, 1)))
    return max(range(max(1, most // 2), most + 1), key=lambda count: (round(filled(count), 2), count))


@cache
def engine(group: PointGroup) -> Engine | None:
    """The engine of this group, compiled at the first call; None where it cannot be."""
    library = load(group_header(group_fourier(group)))
    return None if library is None else Engine(group, library)
