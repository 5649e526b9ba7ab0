"""How a group element acts on a feature map: one pure function, whose docstring is its law."""

from functools import cache

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from eqgan.groups import FieldType


def act(
    g: int, x: Shaped[Tensor, "batch channels height width"], field_type: FieldType
) -> Shaped[Tensor, "batch channels height2 width2"]:
    """[g.f](c, s) = f(g^-1 c, g^-1 s), for c a coset of the fiber and s a site.

    Args:
        g: number of an element of ``field_type.group.point_group``; 0 is the identity.
        x: (batch, multiplicity * dim, height, width).

    Returns:
        The moved map; height and width change places when g turns by a quarter.

    Raises:
        ValueError: for another number of channels, or for a group of the hexagonal lattice.

    Example:
        >>> import torch
        >>> from eqgan.groups import P4, scalar
        >>> x = torch.arange(4.0).view(1, 1, 2, 2)
        >>> bool((act(1, x, scalar(P4, 1)) == torch.rot90(x, 1, (2, 3))).all())
        True
    """
    if x.shape[1] != field_type.channels:
        raise ValueError(f"expected {field_type.channels} channels ({field_type}), got {x.shape[1]}")
    if field_type.group.lattice != "square":
        raise ValueError(f"expected a group of the square lattice, got {field_type.group}")
    transpose, flips, fiber = _moves(g, field_type)
    moved = x.transpose(2, 3) if transpose else x
    moved = moved.flip(flips) if flips else moved
    if fiber is None:
        return moved
    return moved.unflatten(1, (field_type.multiplicity, field_type.dim))[:, :, list(fiber)].flatten(1, 2)


def act_each(
    elements: Int64[Tensor, "batch"], x: Shaped[Tensor, "batch channels side side"], field_type: FieldType
) -> Shaped[Tensor, "batch channels side side"]:
    """Each map moved by an element of its own: map i by ``elements[i]``, as in ``act``.

    Args:
        elements: numbers of elements, on the device of ``x``.
        x: (batch, multiplicity * dim, side, side), square so that every element keeps the size.

    Example:
        >>> from eqgan.groups import P2, scalar
        >>> x = torch.arange(4.0).view(2, 1, 1, 2).expand(2, 1, 2, 2)
        >>> act_each(torch.tensor([0, 1]), x, scalar(P2, 1))[:, 0, 0].tolist()
        [[0.0, 1.0], [3.0, 2.0]]
    """
    rows = [(elements == g).nonzero().squeeze(1) for g in range(field_type.group.order)]
    moved = [act(g, x[chosen], field_type) for g, chosen in enumerate(rows)]
    return torch.cat(moved)[torch.cat(rows).argsort()]


@cache
def _moves(g: int, field_type: FieldType) -> tuple[bool, tuple[int, ...], tuple[int, ...] | None]:
    """Transpose first, then flip these axes, then gather the fiber by g^-1."""
    (a, b), (c, d) = field_type.group.point_group.elements[g].tolist()
    transpose = a == 0
    # x' = a x + b y, y' = c x + d y with y up. Transposing rows and columns maps (x, y) to (-y, -x).
    flip_x = (-b if transpose else a) < 0
    flip_y = (-c if transpose else d) < 0
    flips = ((2,) if flip_y else ()) + ((3,) if flip_x else ())
    inverse = int(field_type.group.point_group.inverse[g])
    fiber = tuple(field_type.representation.action[inverse].tolist())
    return transpose, flips, None if fiber == tuple(range(len(fiber))) else fiber
