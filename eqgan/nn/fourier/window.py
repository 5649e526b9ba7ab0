"""The arguments of ``eqgan::group_conv2d``: what they stand for, and what is refused."""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from torch import Tensor

from eqgan.groups import POINT_GROUPS, PointGroup
from eqgan.nn.eager import is_differentiated_forwards
from eqgan.nn.fourier.tables import Form


@cache
def flat_generators(group: PointGroup) -> list[int]:
    """A group as an argument of the operators."""
    return [entry for matrix in group.generators for row in matrix for entry in row]


@cache
def group_of(generators: tuple[int, ...]) -> PointGroup:
    """Back from ``flat_generators``."""
    if len(generators) % 4:
        raise ValueError(f"expected four entries for each 2x2 generator, got {len(generators)} in all")
    matrices = tuple(((a, b), (c, d)) for a, b, c, d in zip(*[iter(generators)] * 4))
    known = (group for group in POINT_GROUPS.values() if group.generators == matrices)
    return next(known, PointGroup("unnamed", matrices))


class Window(NamedTuple):
    """The numbers among the arguments of the operators."""

    generators: list[int]
    size: int
    padding: int
    stride: int = 1
    transposed: bool = False
    cut: bool = False
    stabiliser: Sequence[int] = ()

    @property
    def group(self) -> PointGroup:
        return group_of(tuple(self.generators))

    @property
    def form(self) -> Form:
        """That of a layer from fields with a fiber."""
        return Form(self.stride, self.transposed, self.cut, tuple(self.stabiliser))

    def require_sense(self) -> None:
        """Raises ValueError for numbers that are no layer's."""
        if self.size < 1:
            raise ValueError(f"expected a window of at least 1 cell a side, got {self.size}")
        whole = not self.transposed and not self.padding and self.size % max(self.stride, 1) == 0
        if self.stride < 1 or (self.transposed and self.stride == 1) or (self.cut and not whole):
            raise ValueError(
                "expected a stride of at least 1, above it to transpose, and of maps that are cut whole "
                f"blocks in the window and no padding, got {self}"
            )
        if self.stabiliser:
            members = self.group.subgroup(tuple(self.stabiliser))
            once = len(members) == len(self.stabiliser)
            if self.transposed or self.cut or not once or not 1 < len(members) < self.group.order:
                raise ValueError(
                    "expected the stabiliser of a quotient, each element once, more than the identity and "
                    f"less than the group, of maps that are not cut, not to transpose, got {self}"
                )

    def output_shape(self, x: Tensor, fields: int) -> list[Any]:
        """Of maps that may be recorded ones, whose sides are no integers."""
        self._require_fit(x)
        sides = [self.form.output_side(length, self.size, self.padding) for length in x.shape[2:]]
        return [x.shape[0], fields * self.group.order, *sides]

    def _require_fit(self, x: Tensor) -> None:
        least = max(1, self.size - 2 * self.padding)
        if self.cut:
            least = self.size // self.stride
        elif self.transposed:
            least = max(1, (2 * self.padding - self.size) // self.stride + 2)
        if self.padding < 0 or min(x.shape[2], x.shape[3]) < least:
            raise ValueError(
                f"a window of {self.size} with padding {self.padding} does not fit {tuple(x.shape[2:])} "
                f"maps; use maps of at least {least} sites a side or a smaller window"
            )


def refuse_forward_mode() -> None:
    """Raises RuntimeError where derivatives are taken forwards, which torch would say are zero."""
    if is_differentiated_forwards():
        raise RuntimeError(
            "eqgan::group_conv2d has no forward-mode derivatives (torch.func.jvp, forward_ad): use a layer, "
            "whose filter bank has them, or reverse mode"
        )


def output_shape(x: Tensor, weight: Tensor, window: Window) -> list[Any]:
    """Raises ValueError unless maps, weight and window are of one layer; RuntimeError in forward mode."""
    refuse_forward_mode()
    cells = window.size**2
    entries = weight.shape[2] if weight.ndim == 3 else 0
    window.require_sense()
    planes = window.form.planes(window.group)
    fiber = 1 if entries == cells else planes * (window.stride**2 if window.cut else 1)
    if x.ndim != 4 or weight.ndim != 3 or x.shape[1] != weight.shape[1] * fiber:
        raise ValueError(
            "expected x (batch, in * planes, height, width) and weight (out, in, planes * size^2), "
            "or, to lift, x (batch, in, height, width) and weight (out, in, size^2), "
            f"planes {planes}, got {tuple(x.shape)} and {tuple(weight.shape)}"
        )
    if not weight.shape[0] or not weight.shape[1]:
        raise ValueError(f"expected at least one field in and one out, got weights {tuple(weight.shape)}")
    if entries not in (planes * cells, cells):
        raise ValueError(
            f"expected planes * size^2 = {planes * cells} weights a pair, or {cells} to lift, got {entries}"
        )
    if entries == cells and (window.transposed or window.cut or window.stabiliser):
        raise ValueError(
            "expected fields in, not planes, to transpose a convolution, of maps cut or with a stabiliser"
        )
    return window.output_shape(x, len(weight))


def require_bias(bias: Tensor | None, fields: int) -> None:
    if bias is not None and tuple(bias.shape) != (fields,):
        raise ValueError(f"expected a bias of {fields} numbers, one a field, got {tuple(bias.shape)}")


def require_gradient(out_gradient: Tensor, shape: list[Any]) -> None:
    if list(out_gradient.shape) != shape:
        raise ValueError(f"expected the gradient of an output {shape}, got {tuple(out_gradient.shape)}")
