"""Actions of point groups on windows of a lattice, and the intertwiners they leave free."""

from functools import cache

import numpy as np

from eqgan.groups.point import IntArray, PointGroup
from eqgan.groups.representation import Representation


@cache
def square_window(size: int) -> IntArray:
    """Cells of a size x size window in row-major order, (size^2, 2), as *doubled* coordinates (x, y).

    The origin is the centre of the window and y points up; doubling keeps even windows, whose centre lies
    between cells, in integers.
    """
    rows, columns = np.divmod(np.arange(size * size), size)
    return np.stack([2 * columns - (size - 1), (size - 1) - 2 * rows], axis=1)


@cache
def hexagonal_window(size: int) -> IntArray:
    """Cells of a hexagon, ``size`` (odd) across, (3 r (r + 1) + 1, 2), in doubled axial coordinates."""
    if size % 2 == 0:
        raise ValueError(f"expected an odd size for a hexagonal window (a cell at the centre), got {size}")
    radius = size // 2
    span = range(-radius, radius + 1)
    return 2 * np.array([(q, r) for r in span for q in span if abs(q + r) <= radius], dtype=np.int64)


@cache
def window_action(group: PointGroup, size: int, lattice: str = "square") -> IntArray:
    """``window_action[g, cell]`` is the cell to which g moves ``cell``, (order, cells).

    Raises:
        ValueError: if the group does not map the window to itself, as a six-fold group on a square one.
    """
    if lattice not in ("square", "hexagonal"):
        raise ValueError(f"expected lattice 'square' or 'hexagonal', got {lattice!r}")
    cells = square_window(size) if lattice == "square" else hexagonal_window(size)
    number = {tuple(cell): i for i, cell in enumerate(cells.tolist())}
    moved = np.einsum("gij,cj->gci", group.elements, cells).tolist()
    try:
        table = np.array([[number[tuple(cell)] for cell in row] for row in moved], dtype=np.int64)
    except KeyError:
        raise ValueError(
            f"{group} does not map a {lattice} {size}-window to itself. "
            "C1, C2, C4, D1, D2 and D4 fit square windows; C1, C2, C3, C6, D3 and D6 fit hexagonal ones."
        ) from None
    table.setflags(write=False)
    return table


@cache
def intertwiner_index(
    out_rep: Representation, in_rep: Representation, size: int, lattice: str = "square"
) -> tuple[IntArray, int]:
    """Which free parameter stands at each entry of an equivariant filter.

    A convolution maps fields of type ``in_rep`` to ``out_rep`` equivariantly exactly if its filter obeys
    K(g z)[g a, g b] = K(z)[a, b]: it is constant on the orbits of G on (out fiber x in fiber x window).

    Returns:
        The parameter of each entry, (out dim, in dim, cells), numbered by first appearance, and how many
        there are. For a regular output that is in dim x cells; the first output row holds them in order.

    References:
        Cohen et al., arXiv:1811.02017, theorem 3.3 (kernels as intertwiners).
    """
    if out_rep.group != in_rep.group:
        raise ValueError(f"expected one group, got {in_rep.group} in and {out_rep.group} out")
    cells = window_action(out_rep.group, size, lattice)
    n_in, n_cells = in_rep.dim, cells.shape[1]
    # number of the image of each entry (a, b, z) under each g; the least one names the orbit
    images = (out_rep.action[:, :, None, None] * n_in + in_rep.action[:, None, :, None]) * n_cells + cells[
        :, None, None, :
    ]
    _, index = np.unique(images.min(axis=0), return_inverse=True)
    index = index.reshape(out_rep.dim, n_in, n_cells).astype(np.int64)
    index.setflags(write=False)
    return index, int(index.max()) + 1
