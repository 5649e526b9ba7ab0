"""A strided group convolution as one of stride 1 on blocks of sites, by torch's own indexing.

What the engine of the CPU does as it reads and writes maps. For an engine that knows of no blocks, maps and
filters are made those of a convolution of stride 1 on blocks.
"""

from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from eqgan.groups import PointGroup
from eqgan.nn.fourier.native import bias_gradient
from eqgan.nn.fourier.tables import Form, block_tables, filter_order
from eqgan.nn.fourier.triton_engine import TritonEngine


@cache
def _order_of_planes(group: PointGroup, side: int) -> Tensor:
    """Of each plane of a field's block its place among the field's, (plane, row, column) as one number."""
    plane, row, column = torch.from_numpy(block_tables(group, side).source.astype("int64")).T
    return (plane * side + row) * side + column


def to_blocks(x: Tensor, group: PointGroup, form: Form, padding: int) -> Tensor:
    """Maps (batch, fields * order, height, width) or, if they are cut, blocks whose sites are channels.

    Returns:
        (batch, sites * fields * order, height', width'): padded with zeros, of blocks of side x side sites,
        site by site, as ``BlockTables`` says.
    """
    cut = x if form.cut else F.pixel_unshuffle(F.pad(x, (padding,) * 4), form.side)
    order = _order_of_planes(group, form.side).to(x.device)
    planes = cut.unflatten(1, (-1, len(order))).index_select(2, order)
    return planes.unflatten(2, (-1, group.order)).transpose(1, 2).flatten(1, 3)


def from_blocks(x: Tensor, group: PointGroup, form: Form, padding: int) -> Tensor:
    """Back from ``to_blocks``, without the padding."""
    order = _order_of_planes(group, form.side).argsort().to(x.device)
    planes = x.unflatten(1, (form.side**2, -1, group.order)).transpose(1, 2).flatten(2, 3)
    cut = planes.index_select(2, order).flatten(1, 2)
    if form.cut:
        return cut
    height, width = (side * form.side - padding for side in x.shape[2:])
    return F.pixel_shuffle(cut, form.side)[:, :, padding:height, padding:width].contiguous()


@cache
def _order_of_weights(group: PointGroup, size: int, form: Form) -> tuple[Tensor, Tensor]:
    """Which weight of a pair stands at each (site, entry) of a filter of blocks, and the other way round."""
    order = torch.tensor(filter_order(group, size, form), device="cpu")
    return order, order.flatten().argsort()


def filter_of_blocks(weight: Tensor, group: PointGroup, size: int, form: Form) -> Tensor:
    """A filter (out, in, ...) between fields of blocks: (out, sites * in, ...) or (sites * out, in, ...)."""
    order, _ = _order_of_weights(group, size, form)
    found = weight[:, :, order.to(weight.device)]  # (out, in, sites, entries)
    return found.permute(2, 0, 1, 3).flatten(0, 1) if form.of_output else found.transpose(1, 2).flatten(1, 2)


def filter_of_layer(weight: Tensor, group: PointGroup, size: int, form: Form) -> Tensor:
    """Back from ``filter_of_blocks``."""
    _, back = _order_of_weights(group, size, form)
    if form.of_output:
        found = weight.unflatten(0, (form.side**2, -1)).permute(1, 2, 0, 3)
    else:
        found = weight.unflatten(1, (form.side**2, -1)).transpose(1, 2)
    return found.flatten(2).index_select(2, back.to(weight.device))


class OnPlainFields(NamedTuple):
    """What an engine that knows of no blocks does with them."""

    made: TritonEngine
    form: Form

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None, size: int, padding: int) -> Tensor:
        form, group = self.form, self.made.group
        maps = x if form.of_output else to_blocks(x, group, form, padding)
        if bias is not None and form.of_output:
            bias = bias.repeat(form.sites[1])
        window = size // form.side, form.padding(size, padding)
        out = self.made.forward(maps, filter_of_blocks(weight, group, size, form), bias, *window)
        return from_blocks(out, group, form, padding) if form.of_output else out

    def backward(
        self,
        out_gradient: Tensor,
        x: Tensor,
        weight: Tensor,
        size: int,
        padding: int,
        need: tuple[bool, bool, bool],
    ) -> tuple[Tensor, Tensor, Tensor]:
        form, group = self.form, self.made.group
        maps = x if form.of_output else to_blocks(x, group, form, padding)
        gradient = to_blocks(out_gradient, group, form, padding) if form.of_output else out_gradient
        of_blocks = filter_of_blocks(weight, group, size, form)
        window = size // form.side, form.padding(size, padding)
        of_x, of_weight, _ = self.made.backward(gradient, maps, of_blocks, *window, (need[0], need[1], False))
        if need[0] and not form.of_output:
            of_x = from_blocks(of_x, group, form, padding)
        if need[1]:
            of_weight = filter_of_layer(of_weight, group, size, form)
        return of_x, of_weight, bias_gradient(out_gradient, weight) if need[2] else weight.new_empty(0)
