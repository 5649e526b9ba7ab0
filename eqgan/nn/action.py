"""How a group element acts on a feature map: one pure function, whose docstring is its law."""

from functools import cache

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from eqgan.groups import FieldType, PlaneGroup, Representation


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
    _require(x.shape[1], field_type)
    transpose, flips, fiber = _moves(g, field_type)
    moved = x.transpose(2, 3) if transpose else x
    moved = moved.flip(flips) if flips else moved
    if fiber is None:
        return moved
    return moved.unflatten(1, (field_type.multiplicity, field_type.dim))[:, :, list(fiber)].flatten(1, 2)


def act_each(
    elements: Int64[Tensor, "batch"],
    x: Shaped[Tensor, "batch channels height width"],
    field_type: FieldType,
) -> Shaped[Tensor, "batch channels height width"]:
    """Each map moved by an element of its own: map i by ``elements[i]``, as in ``act``.

    Args:
        elements: numbers of elements, on the device of ``x``, which is not waited for.
        x: (batch, multiplicity * dim, height, width), square under a group with quarter turns.

    Raises:
        ValueError: as ``act``, and for a size that an element changes.

    Example:
        >>> from eqgan.groups import P2, scalar
        >>> x = torch.arange(4.0).view(2, 1, 1, 2).expand(2, 1, 2, 2)
        >>> act_each(torch.tensor([0, 1]), x, scalar(P2, 1))[:, 0, 0].tolist()
        [[0.0, 1.0], [3.0, 2.0]]
    """
    _require(x.shape[1], field_type)
    height, width = x.shape[2:]
    sources = _sources(field_type.group, field_type.representation, height, width, x.device)[elements]
    fields = x.unflatten(1, (field_type.multiplicity, field_type.dim)).flatten(2)
    return fields.gather(2, sources[:, None].expand_as(fields)).view_as(x)


def _require(channels: int, field_type: FieldType) -> None:
    if channels != field_type.channels:
        raise ValueError(f"expected {field_type.channels} channels ({field_type}), got {channels}")
    if field_type.group.lattice != "square":
        raise ValueError(f"expected a group of the square lattice, got {field_type.group}")


@cache
@torch.inference_mode(False)  # whoever asks first: training uses the table too
def _sources(
    group: PlaneGroup, representation: Representation, height: int, width: int, device: torch.device
) -> Int64[Tensor, "order values"]:
    """For each element, where each value of a moved field comes from, both numbered as they lie."""
    kind = FieldType(group, representation, 1)
    numbers = torch.arange(kind.dim * height * width).view(1, kind.dim, height, width)
    moved = [act(g, numbers, kind) for g in range(group.order)]
    if any(m.shape != numbers.shape for m in moved):
        raise ValueError(
            f"expected square images, got {width} x {height} (width x height), which the quarter turns of "
            f"{group} do not keep. Crop or resize them."
        )
    return torch.cat(moved).flatten(1).to(device)


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
