"""Where the cells of a window go, as integers the engines read."""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eqgan.groups import PointGroup, intertwiner_index, window_action
from eqgan.groups.representation import regular, trivial


class FilterTables:
    """Of one group and window: (order, cells) tables of cells and filter entries."""

    def __init__(self, group: PointGroup, size: int) -> None:
        moved = window_action(group, size)
        cells = size * size
        self.shift = _int32(np.stack(np.divmod(moved, size), axis=-1))
        self.entry = _int32(np.arange(group.order)[:, None] * cells + moved)
        # the transposed filter is w~[v](q) = w[v^-1](-(v^-1 q)): co-rotated, the cell's own opposite
        self.transposed_entry = _int32(group.inverse[:, None] * cells + np.arange(cells)[::-1])
        # of lifting, the cell of the base filter that the filter of each element has there
        self.lifting_entry = _int32(intertwiner_index(regular(group), trivial(group), size)[0])


def _int32(array: Any) -> NDArray[np.int32]:
    return np.ascontiguousarray(array, dtype=np.int32)


@cache
def filter_tables(group: PointGroup, size: int) -> FilterTables:
    return FilterTables(group, size)
