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
from eqgan.nn.fourier.tables import Blocks, block_tables, filter_order
from eqgan.nn.fourier.triton_engine import TritonEngine


@cache
def _order_of_planes(group: PointGroup, side: int) -> Tensor:
    """Of each plane of a field's block its place among the field's, (plane, row, column) as one number."""
    plane, row, column = torch.from_numpy(block_tables(group, side).source.astype("int64")).T
    return (plane * side + row) * side + column


def to_blocks(x: Tensor, group: PointGroup, blocks: Blocks, padding: int) -> Tensor:
    """Maps (batch, fields * order, height, width) or, if they are cut, blocks whose sites are channels.

    Returns:
        (batch, sites * fields * order, height', width'): padded with zeros, of blocks of side x side sites,
        site by site, as ``BlockTables`` says.
    """
    cut = x if blocks.cut else F.pixel_unshuffle(F.pad(x, (padding,) * 4), blocks.side)
    order = _order_of_planes(group, blocks.side).to(x.device)
    planes = cut.unflatten(1, (-1, len(order))).index_select(2, order)
    return planes.unflatten(2, (-1, group.order)).transpose(1, 2).flatten(1, 3)


def from_blocks(x: Tensor, group: PointGroup, blocks: Blocks, padding: int) -> Tensor:
    """Back from ``to_blocks``, without the padding."""
    order = _order_of_planes(group, blocks.side).argsort().to(x.device)
    planes = x.unflatten(1, (blocks.side**2, -1, group.order)).transpose(1, 2).flatten(2, 3)
    cut = planes.index_select(2, order).flatten(1, 2)
    if blocks.cut:
        return cut
    height, width = (side * blocks.side - padding for side in x.shape[2:])
    return F.pixel_shuffle(cut, blocks.side)[:, :, padding:height, padding:width].contiguous()


@cache
def _order_of_weights(group: PointGroup, size: int, blocks: Blocks) -> tuple[Tensor, Tensor]:
    """Which weight of a pair stands at each (site, entry) of a filter of blocks, and the other way round."""
    order = torch.tensor(filter_order(group, size, blocks), device="cpu")
    return order, order.flatten().argsort()


def filter_of_blocks(weight: Tensor, group: PointGroup, size: int, blocks: Blocks) -> Tensor:
    """A filter (out, in, ...) between fields of blocks: (out, sites * in, ...) or (sites * out, in, ...)."""
    order, _ = _order_of_weights(group, size, blocks)
    found = weight[:, :, order.to(weight.device)]  # (out, in, sites, entries)
    return (
        found.permute(2, 0, 1, 3).flatten(0, 1) if blocks.of_output else found.transpose(1, 2).flatten(1, 2)
    )


def filter_of_layer(weight: Tensor, group: PointGroup, size: int, blocks: Blocks) -> Tensor:
    """Back from ``filter_of_blocks``."""
    _, back = _order_of_weights(group, size, blocks)
    if blocks.of_output:
        found = weight.unflatten(0, (blocks.side**2, -1)).permute(1, 2, 0, 3)
    else:
        found = weight.unflatten(1, (blocks.side**2, -1)).transpose(1, 2)
    return found.flatten(2).index_select(2, back.to(weight.device))


class OnPlainFields(NamedTuple):
    """What an engine that knows of no blocks does with them."""

    made: TritonEngine
    blocks: Blocks

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None, size: int, padding: int) -> Tensor:
        blocks, group = self.blocks, self.made.group
        maps = x if blocks.of_output else to_blocks(x, group, blocks, padding)
        if bias is not None and blocks.of_output:
            bias = bias.repeat(blocks.sites[1])
        window = size // blocks.side, blocks.padding(size, padding)
        out = self.made.forward(maps, filter_of_blocks(weight, group, size, blocks), bias, *window)
        return from_blocks(out, group, blocks, padding) if blocks.of_output else out

    def backward(
        self,
        out_gradient: Tensor,
        x: Tensor,
        weight: Tensor,
        size: int,
        padding: int,
        need: tuple[bool, bool, bool],
    ) -> tuple[Tensor, Tensor, Tensor]:
        blocks, group = self.blocks, self.made.group
        maps = x if blocks.of_output else to_blocks(x, group, blocks, padding)
        gradient = to_blocks(out_gradient, group, blocks, padding) if blocks.of_output else out_gradient
        of_blocks = filter_of_blocks(weight, group, size, blocks)
        window = size // blocks.side, blocks.padding(size, padding)
        of_x, of_weight, _ = self.made.backward(gradient, maps, of_blocks, *window, (need[0], need[1], False))
        if need[0] and not blocks.of_output:
            of_x = from_blocks(of_x, group, blocks, padding)
        if need[1]:
            of_weight = filter_of_layer(of_weight, group, size, blocks)
        return of_x, of_weight, bias_gradient(out_gradient, weight) if need[2] else weight.new_empty(0)
