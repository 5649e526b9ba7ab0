"""Strided group convolution as one of stride 1 on blocks of sites.

    blocks = to_blocks(x, flat_generators(group), stride, padding)

takes x (batch, in * order, height, width), pads it with zeros and cuts it into blocks of stride x stride
sites: (batch, sites * in * order, height', width'), as ``BlockTables`` says: regular fields, site by site.
``from_blocks`` takes it back and crops the padding; each is the derivative of the other.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from eqgan.groups import PointGroup
from eqgan.nn.fourier.engine import Engine, engine
from eqgan.nn.fourier.native import FROM_BLOCKS, TO_BLOCKS, Task, which_are_bfloat16
from eqgan.nn.fourier.operator import group_of
from eqgan.nn.fourier.tables import BlockTables, block_tables

_TO, _FROM = "eqgan::to_blocks", "eqgan::from_blocks"
for _name in (_TO, _FROM):
    torch.library.define(_name, "(Tensor x, int[] generators, int stride, int padding) -> Tensor")
to_blocks, from_blocks = torch.ops.eqgan.to_blocks, torch.ops.eqgan.from_blocks
MOST_SIDE = 8  # as in source/blocks.h


def _tables(generators: list[int], stride: int) -> BlockTables:
    return block_tables(group_of(tuple(generators)), stride)


def _fiber(generators: list[int]) -> int:
    return group_of(tuple(generators)).order


def _blocks_shape(x: Tensor, generators: list[int], stride: int, padding: int) -> list[Any]:
    planes, fiber = len(_tables(generators, stride).source), _fiber(generators)
    if x.ndim != 4 or x.shape[1] % fiber or padding < 0:
        raise ValueError(
            f"expected maps (batch, fields * {fiber}, height, width), got {tuple(x.shape)} padded by "
            f"{padding}"
        )
    if any((length + 2 * padding) % stride for length in x.shape[2:]):
        raise ValueError(
            f"expected maps of whole {stride}x{stride} blocks, got {tuple(x.shape[2:])} padded by {padding}"
        )
    sides = [(length + 2 * padding) // stride for length in x.shape[2:]]
    return [x.shape[0], x.shape[1] // fiber * planes, *sides]


def _map_shape(blocks: Tensor, generators: list[int], stride: int, padding: int) -> list[Any]:
    planes = len(_tables(generators, stride).source)
    if blocks.ndim != 4 or blocks.shape[1] % planes or padding < 0:
        raise ValueError(
            f"expected blocks (batch, fields * {planes}, height, width), got {tuple(blocks.shape)} with "
            f"padding {padding}"
        )
    sides = [length * stride - 2 * padding for length in blocks.shape[2:]]
    if min(sides) < 0:
        raise ValueError(f"blocks {tuple(blocks.shape)} are smaller than their padding of {padding}")
    return [blocks.shape[0], blocks.shape[1] // planes * _fiber(generators), *sides]


# ---- every device and dtype --------------------------------------------------------------------------------


def _index(generators: list[int], stride: int) -> Tensor:
    """Of each plane of the blocks of a field, its (plane, row, column) as one number."""
    source = torch.from_numpy(_tables(generators, stride).source.astype("int64"))
    return (source[:, 0] * stride + source[:, 1]) * stride + source[:, 2]


def _to_blocks(x: Tensor, generators: list[int], stride: int, padding: int) -> Tensor:
    shape = _blocks_shape(x, generators, stride, padding)
    cut = F.pad(x, (padding,) * 4).unflatten(3, (-1, stride)).unflatten(2, (-1, stride))
    cut = cut.unflatten(1, (-1, _fiber(generators))).permute(0, 1, 2, 4, 6, 3, 5).flatten(2, 4)
    blocks = cut.index_select(2, _index(generators, stride).to(x.device))
    return blocks.unflatten(2, (stride**2, -1)).transpose(1, 2).reshape(shape)


def _from_blocks(blocks: Tensor, generators: list[int], stride: int, padding: int) -> Tensor:
    shape = _map_shape(blocks, generators, stride, padding)
    index = _index(generators, stride).argsort().to(blocks.device)
    cut = blocks.unflatten(1, (stride**2, -1, _fiber(generators))).transpose(1, 2).flatten(2, 3)
    cut = cut.index_select(2, index).unflatten(2, (-1, stride, stride)).permute(0, 1, 2, 5, 3, 6, 4)
    whole = cut.flatten(5, 6).flatten(3, 4).flatten(1, 2)
    return whole[:, :, padding : padding + shape[2], padding : padding + shape[3]].contiguous()


# ---- by the engine -----------------------------------------------------------------------------------------


def _served(x: Tensor, group: PointGroup, stride: int) -> Engine | None:
    if x.dtype not in (torch.float32, torch.bfloat16) or stride > MOST_SIDE:
        return None
    return engine(group)


def _to_blocks_cpu(x: Tensor, generators: list[int], stride: int, padding: int) -> Tensor:
    shape = _blocks_shape(x, generators, stride, padding)
    made = _served(x, group_of(tuple(generators)), stride)
    if made is None:
        return _to_blocks(x, generators, stride, padding)
    x, blocks = x.contiguous(), x.new_empty(shape)
    _move(made, TO_BLOCKS, x, blocks, _tables(generators, stride), stride, padding)
    return blocks


def _from_blocks_cpu(blocks: Tensor, generators: list[int], stride: int, padding: int) -> Tensor:
    made = _served(blocks, group_of(tuple(generators)), stride)
    if made is None:
        return _from_blocks(blocks, generators, stride, padding)
    x = blocks.new_empty(_map_shape(blocks, generators, stride, padding))
    tables = _tables(generators, stride)
    _move(made, FROM_BLOCKS, x, blocks.contiguous(), tables, stride, padding)
    return x


def _move(
    made: Engine, kind: int, x: Tensor, blocks: Tensor, tables: BlockTables, stride: int, padding: int
) -> None:
    if not x.numel():  # then the blocks are all padding
        if kind == TO_BLOCKS:
            blocks.zero_()
        return
    fields = x.shape[0] * x.shape[1] // made.group.order
    task = Task(
        kind=kind,
        patched=x.data_ptr(),
        out=blocks.data_ptr(),
        shift=tables.source.ctypes.data,
        batch=len(x),
        fields_in=x.shape[1],
        other=blocks.shape[1],
        height=x.shape[2],
        width=x.shape[3],
        out_height=blocks.shape[2],
        out_width=blocks.shape[3],
        padding=padding,
        side=stride,
        slices=max(1, min(torch.get_num_threads(), fields)),
        bfloat16=which_are_bfloat16(x),
    )
    made.execute(task)


# ---- what torch asks of an operator ------------------------------------------------------------------------


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.how = inputs[1:]


def _differentiate_to(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    return from_blocks(gradient, *ctx.how), *(None,) * 3


def _differentiate_from(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    return to_blocks(gradient, *ctx.how), *(None,) * 3


def _map_over(name: str) -> None:
    """vmap: maps of one batch are moved alike, and so are those of many."""
    operator = getattr(torch.ops.eqgan, name.split("::")[1])

    def mapped(info: Any, in_dims: tuple[Any, ...], x: Tensor, *how: Any) -> tuple[Tensor, int]:
        together = x.movedim(in_dims[0], 0)
        return operator(together.flatten(0, 1), *how).unflatten(0, together.shape[:2]), 0

    torch.library.register_vmap(name, mapped)


for _name, _default, _cpu, _shape, _differentiate in (
    (_TO, _to_blocks, _to_blocks_cpu, _blocks_shape, _differentiate_to),
    (_FROM, _from_blocks, _from_blocks_cpu, _map_shape, _differentiate_from),
):
    torch.library.impl(_name, "default", _default)
    torch.library.impl(_name, "cpu", _cpu)
    torch.library.register_fake(_name, lambda x, *how, _shape=_shape: x.new_empty(_shape(x, *how)))
    torch.library.register_autograd(_name, _differentiate, setup_context=_save)
    _map_over(_name)
