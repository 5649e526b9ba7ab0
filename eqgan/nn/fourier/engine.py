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
from eqgan.nn.fourier.tables import NO_BLOCKS, Blocks, filter_tables, packed_entries

_WEIGHTS = 16_384  # at least, of a filter that is packed in parts
_POSITIONS = 160  # at most in a block: its features stay in the second level of cache


class Engine(Native):
    """Group convolution between regular fields with stride 1, on contiguous CPU tensors.

    Maps are float32 or bfloat16, filters, biases and the filters' gradients float32. Input or output may be
    in blocks of sites (``strided``); then sizes and paddings are in blocks, and weights those of the layer.
    """

    # ---- the three operations ------------------------------------------------------------------------------

    def forward(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        size: int,
        padding: int,
        blocks: Blocks = NO_BLOCKS,
    ) -> Tensor:
        """x (batch, in * order, h, w), weight (out, in, order * size^2), bias (out) or None.

        In blocks, x or the result has sites * in or sites * out fields, the weight of a pair sites * entries.
        """
        sites = blocks.sites[1]
        bias = bias if bias is None or sites == 1 else bias.repeat(sites)
        packed = self.pack(weight, size, blocks)
        return self.forward_packed(x, packed, bias, len(weight) * sites, size, padding)

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
        blocks: Blocks = NO_BLOCKS,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of x, of the weight and of the layer's bias; empty tensors for what is not needed."""
        of_bias = bias_gradient(out_gradient, weight, blocks.sites[1]) if need[2] else weight.new_empty(0)
        return *self._backward(out_gradient, x, weight, size, padding, need[:2], blocks), of_bias

    def _backward(
        self,
        out_gradient: Tensor,
        x: Tensor,
        weight: Tensor,
        size: int,
        padding: int,
        need: tuple[bool, bool],
        blocks: Blocks,
    ) -> tuple[Tensor, Tensor]:
        """In one pass.

        The gradient of x is a group convolution of the output's gradient with the transposed filter; it needs
        neighbourhoods of the output's gradient, and the filter's gradient is taken from the same ones.
        """
        own = weight.new_empty(0)
        fields_in, fields_out = x.shape[1] // self.group.order, out_gradient.shape[1] // self.group.order
        x_gradient = torch.empty_like(x) if need[0] else x.new_empty(0)
        # of one cell there is no neighbourhood that both could take from
        if need[1] and (size == 1 or (not need[0] and fields_in <= fields_out)):
            own, need = (
                self._filter_gradient(x, out_gradient, weight, size, padding, blocks),
                (need[0], False),
            )
        if not any(need):
            return x_gradient, own
        options: dict[str, Tensor] = {"plain": x} if need[1] else {}
        if need[0]:
            options |= {"filter": self.pack(weight, size, blocks, transposed=True), "out": x_gradient}
        packed = self._run(out_gradient, size, size - 1 - padding, fields_in, **options, plane=x)
        return x_gradient, self._unpack(packed, weight, size, blocks, transposed=True) if need[1] else own

    def _filter_gradient(
        self, x: Tensor, out_gradient: Tensor, weight: Tensor, size: int, padding: int, blocks: Blocks
    ) -> Tensor:
        fields = out_gradient.shape[1] // self.group.order
        packed = self._run(x, size, padding, fields, plain=out_gradient)
        return self._unpack(packed, weight, size, blocks, transposed=False)

    def packed_size(self, fields_in: int, fields_out: int, cells: int) -> int:
        """Numbers in a packed filter."""
        return int(self.library.packed_size(self.isa, fields_in, fields_out, cells))

    # ---- filters -------------------------------------------------------------------------------------------

    def pack(self, weight: Tensor, size: int, blocks: Blocks = NO_BLOCKS, transposed: bool = False) -> Tensor:
        """The filter's blocks, in the order in which they are multiplied."""
        weight = weight.contiguous()
        filter = self._filter(weight, size, blocks, transposed)
        packed = weight.new_empty(self.packed_size(filter.fields_in, filter.other, filter.cells))
        filter.packed = packed.data_ptr()
        self.library.pack(self.isa, ctypes.byref(filter), _slices_of(weight), self.team)
        return packed

    def _unpack(self, packed: Tensor, like: Tensor, size: int, blocks: Blocks, transposed: bool) -> Tensor:
        weight = torch.empty(like.shape, dtype=torch.float32)  # whatever torch's default is
        filter = self._filter(weight, size, blocks, transposed)
        filter.packed, filter.gradients = packed.data_ptr(), len(packed)
        self.library.unpack(self.isa, ctypes.byref(filter), _slices_of(weight), self.team)
        return weight

    def _filter(self, weight: Tensor, size: int, blocks: Blocks, transposed: bool) -> Filter:
        fields_out, fields_in, entries = weight.shape
        sides = list(zip((fields_in, fields_out), (entries, fields_in * entries), blocks.sites))
        (n_in, in_stride, in_sites), (other, other_stride, other_sites) = sides[::-1] if transposed else sides
        return Filter(
            weight=weight.data_ptr(),
            entry=packed_entries(self.group, size, blocks, transposed).ctypes.data,
            fields_in=n_in * in_sites,
            other=other * other_sites,
            layer_in=n_in,
            layer_other=other,
            in_stride=in_stride,
            other_stride=other_stride,
            cells=size * size,
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
