"""The laws, for your own modules: is this network really equivariant, is that one really invariant?

Example:
    >>> import torch
    >>> from eqgan.groups import P4, regular, scalar
    >>> from eqgan.nn import LiftingConv2d
    >>> layer = LiftingConv2d(scalar(P4, 1), regular(P4, 2), kernel_size=3).double()
    >>> assert_equivariant(layer, torch.randn(2, 1, 7, 7, dtype=torch.float64))

    A module of your own, in plain PyTorch, that maps grey images to the steepness of each pixel; its types
    say that one image comes in and one goes out:

    >>> from eqgan.groups import P4M
    >>> class Slope(torch.nn.Module):
    ...     def forward(self, x):
    ...         down = x[..., 2:, 1:-1] - x[..., :-2, 1:-1]
    ...         right = x[..., 1:-1, 2:] - x[..., 1:-1, :-2]
    ...         return down**2 + right**2
    >>> x, grey = torch.randn(2, 1, 8, 8, dtype=torch.float64), scalar(P4M, 1)
    >>> assert_equivariant(Slope(), x, in_type=grey, out_type=grey)

    Differences to one side only would be a mistake, and which one is told:

    >>> class Slanted(torch.nn.Module):
    ...     def forward(self, x):
    ...         return (x[..., 1:, 1:] - x[..., :-1, 1:]) ** 2 + (x[..., 1:, 1:] - x[..., 1:, :-1]) ** 2
    >>> assert_equivariant(Slanted(), x, in_type=grey, out_type=grey)
    Traceback (most recent call last):
    ...
    AssertionError: not equivariant under element 1 of p4m (matrix [[0, -1], [1, 0]]): ...
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from eqgan.groups import FieldType, PlaneGroup, PointGroup, scalar
from eqgan.nn import act

Map = nn.Module | Callable[[Tensor], Tensor]


@torch.no_grad()
def assert_equivariant(
    module: Map,
    x: Tensor,
    in_type: FieldType | None = None,
    out_type: FieldType | None = None,
    rtol: float = 1e-10,
) -> None:
    """Requires module(g x) = g module(x) for every element g of the point group.

    Args:
        module: any map of feature maps; use ``eval()`` where training draws random numbers.
        x: (batch, channels, height, width), best in float64.
        in_type, out_type: default to the module's own attributes of these names.
        rtol: largest difference allowed, over the largest output.

    Raises:
        AssertionError: naming the element and the error; also if the output is zero or constant or does not
            depend on the input, of which any law would hold.
        ValueError: if the types are neither given nor attributes of the module.
    """
    in_type = in_type or getattr(module, "in_type", None)
    out_type = out_type or getattr(module, "out_type", None)
    if in_type is None or out_type is None:
        raise ValueError(
            "expected field types: the map has no in_type and out_type, so give them as arguments"
        )
    group = in_type.group.point_group
    if out_type.group != in_type.group:
        # a layer that restricts the group keeps the law of the smaller group
        group = out_type.group.point_group
    _compare(module, x, in_type, lambda g, y: act(g, y, out_type), group, out_type.group, rtol)


@torch.no_grad()
def assert_invariant(module: Map, x: Tensor, group: PlaneGroup, rtol: float = 1e-10) -> None:
    """Requires module(g x) = module(x) for every element g of the point group, x being images.

    Raises:
        AssertionError: naming the element and the error; also if the output does not depend on the input.

    Example:
        >>> from eqgan.groups import P4
        >>> x = torch.randn(3, 1, 8, 8, dtype=torch.float64)
        >>> assert_invariant(lambda x: x.mean((1, 2, 3)), x, P4)
        >>> assert_invariant(lambda x: x[:, 0, 0, 0], x, P4)
        Traceback (most recent call last):
        ...
        AssertionError: not invariant under element 1 of p4 ...
    """
    _compare(module, x, scalar(group, x.shape[1]), None, group.point_group, group, rtol)


def _compare(
    module: Map,
    x: Tensor,
    in_type: FieldType,
    move_output: Callable[[int, Tensor], Tensor] | None,
    members: PointGroup,
    group: PlaneGroup,
    rtol: float,
) -> None:
    reference = module(x)
    scale = reference.abs().max().item()
    if not torch.isfinite(reference).all():
        raise AssertionError("the output is not finite")
    if scale == 0 or (reference.numel() > 1 and (reference - reference.flatten()[0]).abs().max() == 0):
        raise AssertionError("the output is constant, of which every law holds; use other inputs or weights")
    # other sizes of every entry: no symmetry of a map that reads its input survives this
    other = module(x * torch.linspace(0.5, 1.5, x.numel(), dtype=x.dtype, device=x.device).view_as(x))
    if (other - reference).abs().max() == 0:
        raise AssertionError("the output does not depend on the input; use other inputs or weights")
    larger = in_type.group.point_group
    for g, matrix in enumerate(members.elements):
        moved = module(act(larger.index(matrix), x, in_type))
        expected = reference if move_output is None else move_output(g, reference)
        law = "invariant" if move_output is None else "equivariant"
        if moved.shape != expected.shape:
            raise AssertionError(
                f"not {law} under element {g} of {group}: shape {tuple(moved.shape)}, "
                f"expected {tuple(expected.shape)}"
            )
        error = (moved - expected).abs().max().item() / scale
        if not error <= rtol:
            raise AssertionError(
                f"not {law} under element {g} of {group} (matrix {matrix.tolist()}): "
                f"largest relative error {error:.3g}, allowed {rtol:.3g}"
            )
