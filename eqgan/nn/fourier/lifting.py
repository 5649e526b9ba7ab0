"""Lifting by the compiled code: planes without a fiber in, regular fields out."""

import torch
from torch import Tensor

from eqgan.nn.fourier.native import (
    LIFTING,
    LIFTING_BACKWARDS,
    NOTHING_MORE,
    After,
    Native,
    Task,
    address,
    bias_gradient,
    output_sides,
    which_are_bfloat16,
)
from eqgan.nn.fourier.tables import filter_tables

FEWEST_SITES = 16  # of an output map: those of the widest vector
MOST_ENTRIES = 32_768  # of the expanded filter: each thread sums its gradient in as many vectors, up to 2 MiB
_PATCHES = 12_288  # numbers at most in the patches of a block: they stay in the first level of cache


def serves(patch_rows: int, channels: int, sites: int) -> bool:
    """Whether ``Lifting`` takes a layer, by (planes * cells), channels out, and sites of an output map."""
    return patch_rows * channels <= MOST_ENTRIES and sites >= FEWEST_SITES


class Lifting:
    """x (batch, in, h, w) and weight (out, in, size^2), any stride, on contiguous CPU tensors.

    Maps are float32 or bfloat16, and filters and maps such as it ``serves``; filters, biases and the filters'
    gradients are float32.
    """

    def __init__(self, native: Native) -> None:
        self.native = native

    def forward(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        size: int,
        padding: int,
        stride: int,
        after: After = NOTHING_MORE,
    ) -> Tensor:
        """The layer and what follows it; a pool only where it ``pools``."""
        after.require_sense(self.native.group.order)
        if after.pool and not self.pools():
            raise ValueError("expected no pool here: a field's elements lie in two tiles; ask pools() first")
        channels = len(weight) * (after.planes or self.native.group.order)
        out = x.new_empty(len(x), channels, *output_sides(x, size, padding, stride))
        self._run(LIFTING, x, weight, (size, padding, stride), bias=bias, out=out, after=after)
        return out

    def pools(self) -> bool:
        """Whether it takes a pool over the fiber along."""
        return self.native.tile % self.native.group.order == 0

    def backward(
        self,
        out_gradient: Tensor,
        x: Tensor,
        weight: Tensor,
        size: int,
        padding: int,
        stride: int,
        need: tuple[bool, bool, bool],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradient of the bias comes with that of the weight, from the same reading."""
        x_gradient, of_weight, of_bias = x.new_empty(0), weight.new_empty(0), weight.new_empty(0)
        window = size, padding, stride
        if need[0]:
            x_gradient = torch.empty_like(x)
            self._run(LIFTING_BACKWARDS, x_gradient, weight, window, plain=out_gradient)
        if need[1]:
            of_weight = torch.empty(weight.shape, dtype=torch.float32)  # whatever torch's default is
            of_bias = torch.empty(len(weight), dtype=torch.float32)
            self._run(LIFTING, x, weight, window, plain=out_gradient, gradients=(of_weight, of_bias))
        elif need[2]:
            of_bias = bias_gradient(out_gradient, weight)
        return x_gradient, of_weight, of_bias if need[2] else weight.new_empty(0)

    def _run(
        self,
        kind: int,
        planes: Tensor,
        weight: Tensor,
        window: tuple[int, int, int],
        bias: Tensor | None = None,
        out: Tensor | None = None,
        plain: Tensor | None = None,
        gradients: tuple[Tensor, Tensor] | None = None,
        after: After = NOTHING_MORE,
    ) -> None:
        """Between planes (batch, in, h, w) and fields (batch, out * order, h', w'), ``out`` or ``plain``.

        One call into the engine, filters and all: between small maps, most of the time is that of calls.
        """
        size, padding, stride = window
        (batch, planes_in, height, width), cells = planes.shape, size * size
        out_height, out_width = output_sides(planes, size, padding, stride)
        rows, fields = rows_in_block(planes_in * cells, out_width, self.native.lanes), len(weight)
        units = batch if kind == LIFTING_BACKWARDS else batch * -(-out_height // rows)
        slices = max(1, min(torch.get_num_threads(), units))
        weight, bias = weight.contiguous(), None if bias is None else bias.contiguous()
        sums = of_weight = of_bias = None
        if gradients is not None:
            count = slices * (planes_in * cells + 1) * fields * self.native.group.order
            sums = torch.empty(count, dtype=torch.float32)
            of_weight, of_bias = gradients
        if not batch:  # nothing has an address
            for gradient in gradients or ():
                gradient.zero_()
            return
        task = Task(
            *(kind, planes.data_ptr(), None if sums is not None else weight.data_ptr()),
            *(address(bias), address(out), address(plain), address(sums)),
            filter_tables(self.native.group, size).lifting_entry.ctypes.data,
            *(None, None),
            *(batch, planes_in, fields, height, width, out_height, out_width),
            *(1, self.native.group.order, 0),
            *(padding, stride, size, cells, rows, slices, address(of_weight), address(of_bias)),
            which_are_bfloat16(planes, out, plain),
        )
        for name, value in after.told().items():
            setattr(task, name, value)
        self.native.execute(task)


def rows_in_block(patch_rows: int, width: int, lanes: int) -> int:
    """Most output rows in a block; with half of them a block still fills a vector."""
    return max(_PATCHES // (patch_rows * width), 2 * -(-lanes // width) + 2)
