"""Where the cells of a window go, as integers the engines read."""

import threading
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from eqgan.groups import PointGroup, intertwiner_index, window_action
from eqgan.groups.fourier import group_fourier
from eqgan.groups.representation import Representation, regular, trivial
from eqgan.nn.fourier.native import output_side

MOST_SIDE = 8  # of blocks that are not cut, as in source/blocks.h
P = ParamSpec("P")
T = TypeVar("T")


class FilterTables:
    """Of one group and window: (order, cells) tables of cells and filter entries.

    Of fields on G/H the co-rotated patch of cell h z is that of z with its elements moved by h. So one cell
    of each orbit of H is enough, and where some of H leave it alone, one element of each coset of these: the
    others' entries are none, -1.

    Args:
        stabiliser: the elements of H; none from regular fields.

    Attributes:
        plane: (order,), the plane of a field that each element reads.
        irreps: a bit for each that has a part in the fields.
        shift: (order, cells, 2), row and column of the cell that each element moves a cell to.
        entry: which weight of a pair of fields each element's filter has at a cell.
        transposed_entry: of the gradient of the input, at every cell of the window, that of every element of
            a coset the same.
        lifting_entry: of lifting, the cell of the base filter that the filter of each element has at a cell.
    """

    def __init__(self, group: PointGroup, size: int, stabiliser: tuple[int, ...] = ()) -> None:
        moved = window_action(group, size)
        cells = size * size
        members = stabiliser or (group.identity,)
        self.irreps = group_fourier(group).irreps_of(stabiliser)
        self.plane = plane = _int32(Representation(group, members).coset_of)
        kept = np.flatnonzero(moved[list(members)].min(axis=0) == np.arange(cells))
        entry = np.where(_moves_to_lesser(group, members, moved), -1, plane[:, None] * cells + moved)
        self.shift = _int32(np.stack(np.divmod(moved[:, kept], size), axis=-1))
        self.entry = _int32(entry[:, kept])
        # the transposed filter is w~[v](q) = w[v^-1](-(v^-1 q)): co-rotated, the cell's own opposite
        self.transposed_entry = _int32(plane[group.inverse][:, None] * cells + np.arange(cells)[::-1])
        self.lifting_entry = _int32(intertwiner_index(regular(group), trivial(group), size)[0])


def _moves_to_lesser(
    group: PointGroup, stabiliser: tuple[int, ...], moved: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """(order, cells): whether u has a lesser u h, with an h of the stabiliser that leaves the cell alone."""
    lesser = group.product[:, list(stabiliser)] < np.arange(group.order)[:, None]
    fixed = moved[list(stabiliser)] == np.arange(moved.shape[1])
    return np.einsum("uh,hz->uz", lesser, fixed)


class BlockTables:
    """How a strided convolution of a group is one of stride 1 on blocks of stride x stride sites.

    G moves the sites of a block as it moves the cells of a window. So it permutes the pairs (element t of the
    fiber, site c), freely if the fiber is regular: each orbit is a regular field. The orbit of (e, c) has at
    element g what the map has at (g, g c).

    Attributes:
        source: (sites * order, 3), for each plane of a field's block the plane of the field, row and column
            that it holds.
    """

    def __init__(self, group: PointGroup, stride: int) -> None:
        sites = window_action(group, stride).T  # (fields, order)
        planes = np.broadcast_to(np.arange(group.order), sites.shape)
        self.group, self.stride = group, stride
        self.source = _int32(np.stack([planes, *np.divmod(sites, stride)], axis=-1).reshape(-1, 3))

    def filter_order(self, size: int, transposed: bool = False) -> NDArray[np.int64]:
        """(sites, entries): which entry of a pair of fields stands at each entry of the blocks' filter.

        Args:
            size: of the window.
            transposed: of the transposed convolution, whose output is in blocks: site b of these takes from
                x[b - j] what stands in cell stride j + r of the window, r being the place in the block.
        """
        if transposed:
            return self._transposed_order(size)
        blocks = size // self.stride
        bank = self._bank(size)
        plane, row, column = self.source.T[:, :, None]
        cell_row, cell_column = np.divmod(np.arange(blocks * blocks), blocks)
        found = bank[plane, self.stride * cell_row + row, self.stride * cell_column + column]
        return self._at_entries(found, blocks)

    def _bank(self, size: int) -> NDArray[np.int64]:
        """(order, size, size): the entry of a pair of fields that the bank of the identity has there."""
        fiber = regular(self.group)
        return intertwiner_index(fiber, fiber, size)[0][0].reshape(-1, size, size)

    def _transposed_order(self, size: int) -> NDArray[np.int64]:
        blocks = size // self.stride
        bank = self._bank(size)
        cell_row, cell_column = blocks - 1 - np.stack(np.divmod(np.arange(blocks * blocks), blocks))
        of_identity = self.source[:: self.group.order]  # at e, field c holds site c
        row, column = of_identity.T[1:, :, None]
        found = bank[:, self.stride * cell_row + row, self.stride * cell_column + column]
        return self._at_entries(found.swapaxes(0, 1), blocks)

    def _at_entries(self, found: NDArray[np.int64], blocks: int) -> NDArray[np.int64]:
        """What was found for each field, plane and cell, where the blocks' filter has them."""
        of_blocks = intertwiner_index(regular(self.group), regular(self.group), blocks)[0][0]
        order = np.empty((self.stride**2, of_blocks.size), dtype=np.int64)
        order[:, of_blocks.flatten()] = found.reshape(self.stride**2, -1)
        return order


def _int32(array: Any) -> NDArray[np.int32]:
    return np.ascontiguousarray(array, dtype=np.int32)


# The engine is told addresses: of several threads that ask at first, none may have a table of its own, which
# would be gone when it is read.
_lock = threading.RLock()


def _made_once(make: Callable[P, T]) -> Callable[P, T]:
    """``functools.cache`` whose values are made once, whoever asks at the same time."""
    cached: Any = cache(make)

    @wraps(make)
    def one(*arguments: P.args, **named: P.kwargs) -> T:
        with _lock:
            found: T = cached(*arguments, **named)
            return found

    one.cache_clear = cached.cache_clear  # type: ignore[attr-defined]
    return one


@_made_once
def filter_tables(group: PointGroup, size: int, stabiliser: tuple[int, ...] = ()) -> FilterTables:
    """The one table of a group and window."""
    return FilterTables(group, size, stabiliser)


@_made_once
def block_tables(group: PointGroup, stride: int) -> BlockTables:
    """The one table of a group and stride."""
    return BlockTables(group, stride)


class Form(NamedTuple):
    """How a layer is one of stride 1 between regular fields.

    Args:
        side: the stride: the layer is one on blocks of side x side sites (``BlockTables``).
        of_output: of a transposed layer, whose output is in blocks.
        cut: the sites of each block are channels, in the order of ``F.pixel_unshuffle``; there is no padding.
        stabiliser: H of the fields on G/H in (``FilterTables``), of stride 1; empty for regular ones.
    """

    side: int = 1
    of_output: bool = False
    cut: bool = False
    stabiliser: tuple[int, ...] = ()

    def planes(self, group: PointGroup) -> int:
        """Of a field in."""
        return group.order // max(1, len(self.stabiliser))

    @property
    def sites(self) -> tuple[int, int]:
        """Fields of the input and of the output for each field of the layer."""
        sites = self.side**2
        return (1, sites) if self.of_output else (sites, 1)

    def output_side(self, length: Any, size: int, padding: int) -> Any:
        """Of maps, or of blocks that are cut, of this side, by a window of size x size sites."""
        if self.of_output:
            return (length - 1) * self.side - 2 * padding + size
        if self.cut:
            return output_side(length, size // self.side, 0)
        return output_side(length, size, padding, self.side)

    def padding(self, size: int, padding: int) -> int:
        """That of the convolution of stride 1, of a layer with this window and padding."""
        if self.side == 1:
            return padding
        return size // self.side - 1 if self.of_output else 0


PLAIN = Form()


class Layout(NamedTuple):
    """What a pass of the engine is told of the group, the window and the form of a layer.

    Args:
        cells: at which patches are taken.
        planes: of a field of the patched side, and of the other.
        told: fields of source/engine.h's task, addresses of tables among them.
        tables: those, which must not be gone when they are read.
    """

    cells: int
    planes: tuple[int, int]
    told: dict[str, int]
    tables: dict[str, NDArray[np.int32]]


@_made_once
def layout(group: PointGroup, size: int, form: Form, back: bool) -> Layout:
    """Of a pass forwards, or back: then what is patched is the gradient of the output."""
    side = size // form.side
    regular, own = (filter_tables(group, side, members) for members in ((), form.stabiliser))
    (patched, other), planes = (own, regular), (form.planes(group), group.order)
    if back:
        (patched, other), planes = (regular, own), planes[::-1]
    tables = {"shift": patched.shift, "plane": patched.plane, "other_plane": other.plane}
    if form.side > 1:
        tables["sites"] = block_tables(group, form.side).source
    cells = patched.shift.shape[1]
    numbers = {"planes": planes[0], "other_planes": planes[1], "irreps": other.irreps, "stride": 1}
    numbers |= {"side": side, "cells": cells, "cut": int(form.cut), "block_side": form.side}
    in_middle = (patched.shift[0] == side // 2).all(axis=1)
    numbers["sums_cell"] = int(in_middle.argmax()) if back else -1
    addresses = {name: table.ctypes.data for name, table in tables.items()}
    return Layout(cells, planes, addresses | numbers, tables)


@cache
def filter_order(group: PointGroup, size: int, form: Form) -> NDArray[np.int64]:
    """``BlockTables.filter_order`` of a window; of no blocks, the entries as they stand."""
    if form.side == 1:
        return np.arange(group.order * size * size)[None]
    return block_tables(group, form.side).filter_order(size, form.of_output)


@_made_once
def packed_entries(group: PointGroup, size: int, form: Form, transposed: bool) -> NDArray[np.int32]:
    """(sites, order, cells): the one table of where the weights of a pair of fields are that are packed.

    Args:
        transposed: for the filter of the gradient of the input.
    """
    tables = filter_tables(group, size // form.side, form.stabiliser)
    entry = tables.transposed_entry if transposed else tables.entry
    if form.side == 1:
        return entry[None]
    return _int32(filter_order(group, size, form)[:, entry])


def sites_of_block(size: int, stride: int) -> int | None:
    """Regular fields of the blocks for each field of the map.

    None for a window not made of whole blocks, and for larger ones than the engine knows.
    """
    return None if size % stride or stride > MOST_SIDE else stride**2
