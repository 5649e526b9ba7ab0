"""Pooling over the fiber, over cosets, over a subgroup, and over space: exact, and typed by what is left."""

from functools import reduce
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from eqgan.groups import FieldType, PlaneGroup, quotient, regular, scalar
from eqgan.nn.eager import only_numbers_wanted
from eqgan.nn.geometry import check_channels, output_size
from eqgan.nn.maximum import maximum

PoolMode = Literal["max", "mean"]


def _reduce(x: Tensor, dim: int, mode: str) -> Tensor:
    return maximum(x, dim) if mode == "max" else x.mean(dim)


class _FiberGather(nn.Module):
    """Gathers values of the fiber by a table (positions, values pooled together) and pools them."""

    table: Tensor

    def __init__(self, in_type: FieldType, out_type: FieldType, table: Tensor, mode: PoolMode) -> None:
        super().__init__()
        if mode not in ("max", "mean"):
            raise ValueError(f"expected mode 'max' or 'mean', got {mode!r}")
        self.in_type, self.out_type, self.mode = in_type, out_type, mode
        self.register_buffer("table", table, persistent=False)

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch out_channels height width"]:
        check_channels(x.shape[1], self.in_type, type(self).__name__)
        fields = x.unflatten(1, (self.in_type.multiplicity, self.in_type.dim))
        if len(self.table) == 1:  # the whole fiber: no gather needed
            return _reduce(fields, 2, self.mode)
        gathered = fields.index_select(2, self.table.flatten()).unflatten(2, tuple(self.table.shape))
        return _reduce(gathered, 3, self.mode).flatten(1, 2)

    def extra_repr(self) -> str:
        return f"{self.in_type} -> {self.out_type}, mode={self.mode!r}"


class CosetPool(_FiberGather):
    """out(g H) = max over h in H of in(g h): a field on G/H, exactly equivariant under all of G.

    Args:
        in_type: a field on G/K with K inside H (regular: K = {e}).
        subgroup: H, as a plane group or as element numbers.
        mode: ``"max"`` or ``"mean"``.

    References:
        Cohen & Welling, arXiv:1602.07576, section 6.3.
    """

    def __init__(
        self, in_type: FieldType, subgroup: PlaneGroup | tuple[int, ...], mode: PoolMode = "max"
    ) -> None:
        out_type = quotient(in_type.group, subgroup, in_type.multiplicity)
        source, target = in_type.representation, out_type.representation
        if not set(source.stabiliser) <= set(target.stabiliser):
            raise ValueError(
                f"cannot pool {in_type} over {target.stabiliser}: its own stabiliser is not inside"
            )
        target_of = target.coset_of[source.group.left_cosets(source.stabiliser)[:, 0]]
        table = torch.stack([torch.from_numpy((target_of == c).nonzero()[0]) for c in range(target.dim)])
        super().__init__(in_type, out_type, table, mode)
        self.plane_of: tuple[int, ...] = tuple(target_of.tolist())  # that each value of a fiber may be on


class GroupPool(CosetPool):
    """The maximum (or mean) over the whole fiber: a scalar field, that the group only moves about."""

    def __init__(self, in_type: FieldType, mode: PoolMode = "max") -> None:
        super().__init__(in_type, in_type.group.point_group.everything, mode)


class SubgroupPool(_FiberGather):
    """Pools over a region, then samples on a subgroup H: out(h) = max over u in U of in(h u).

    U is a transversal of the cosets H u, so that every value is seen once. The result is a regular field *of
    H*: the stride over H < G keeps equivariance under H only, and the output type says so.

    Args:
        in_type: regular fields of G.
        subgroup: H as a plane group whose point group lies in that of G.

    References:
        Cohen & Welling, arXiv:1602.07576, section 6.3.
    """

    def __init__(self, in_type: FieldType, subgroup: PlaneGroup, mode: PoolMode = "max") -> None:
        table = _restriction_table(in_type, subgroup).T.contiguous()
        super().__init__(in_type, regular(subgroup, in_type.multiplicity), table, mode)


class Restrict(nn.Module):
    """Reads fields of G as fields of a subgroup H: the same numbers, in H's order.

    A regular field of G is |G/H| regular fields of H (one a right coset H u); scalars stay scalars.
    """

    order: Tensor

    def __init__(self, in_type: FieldType, subgroup: PlaneGroup) -> None:
        super().__init__()
        self.in_type = in_type
        if in_type.representation.is_trivial:
            in_type.group.point_group.subgroup(subgroup.point_group)
            table = torch.zeros(1, 1, dtype=torch.long)
            self.out_type = scalar(subgroup, in_type.multiplicity)
        else:
            table = _restriction_table(in_type, subgroup)
            self.out_type = regular(subgroup, in_type.multiplicity * len(table))
        self.register_buffer("order", table.flatten(), persistent=False)

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        check_channels(x.shape[1], self.in_type, type(self).__name__)
        fields = x.unflatten(1, (self.in_type.multiplicity, self.in_type.dim))
        return fields.index_select(2, self.order).flatten(1, 2)

    def extra_repr(self) -> str:
        return f"{self.in_type} -> {self.out_type}"


def _restriction_table(in_type: FieldType, subgroup: PlaneGroup) -> Tensor:
    """Row u, column h: where in(h u) stands, h in the order of the subgroup's own elements."""
    group = in_type.group.point_group
    if not in_type.representation.is_regular:
        raise ValueError(f"expected regular fields, got {in_type}")
    members = group.subgroup(subgroup.point_group)
    in_order = [group.index(m) for m in subgroup.point_group.elements]
    return torch.from_numpy(group.product[in_order][:, group.right_cosets(members)[:, 0]].T.copy())


class _SpatialPool(nn.Module):
    """A window slid over space, refused where it would break the symmetry of its fields."""

    def __init__(
        self, in_type: FieldType, kernel_size: int, stride: int | None = None, padding: int = 0
    ) -> None:
        super().__init__()
        self.in_type = self.out_type = in_type
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        if kernel_size < 1 or self.stride < 1:
            raise ValueError(
                f"expected kernel_size and stride of at least 1, got {kernel_size} and {self.stride}"
            )
        if not 0 <= padding <= kernel_size // 2:
            raise ValueError(f"expected a padding of 0 to half of window {kernel_size}, got {padding}")
        self.padding = padding

    def _check(self, x: Tensor) -> None:
        check_channels(x.shape[1], self.in_type, type(self).__name__)
        self.output_size(x.shape[2]), self.output_size(x.shape[3])

    def output_size(self, size: int) -> int:
        """Side of the output; ValueError if the pool would drop a row."""
        group = self.in_type.group
        return output_size(size, self.kernel_size, self.stride, self.padding, group, type(self).__name__)

    def extra_repr(self) -> str:
        text = f"{self.in_type}, kernel_size={self.kernel_size}, stride={self.stride}"
        return text if self.padding == 0 else f"{text}, padding={self.padding}"


class AvgPool2d(_SpatialPool):
    """Mean over windows of space that leave no row out; padding counts as zeros, as in torch."""

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height2 width2"]:
        self._check(x)
        return F.avg_pool2d(x, self.kernel_size, self.stride, self.padding)


class MaxPool2d(_SpatialPool):
    """Maximum over windows of space that leave no row out; padding never is the maximum."""

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height2 width2"]:
        self._check(x)
        if only_numbers_wanted() and self._in_blocks(x):
            # on a CPU without their places maxima take a tenth of the time
            rows = reduce(torch.maximum, x.unflatten(-2, (-1, self.kernel_size)).unbind(-2))
            return reduce(torch.maximum, rows.unflatten(-1, (-1, self.kernel_size)).unbind(-1))
        return F.max_pool2d(x, self.kernel_size, self.stride, self.padding)

    def _in_blocks(self, x: Tensor) -> bool:
        """Whether the windows are blocks, of more than a site, of whole maps."""
        whole = x.shape[-2] % self.kernel_size == x.shape[-1] % self.kernel_size == 0
        return whole and 1 < self.kernel_size == self.stride and not self.padding and x.device.type == "cpu"


class GlobalPool2d(nn.Module):
    """Mean or maximum over all sites, (batch, channels, height, width) to (batch, channels)."""

    def __init__(self, mode: PoolMode = "mean") -> None:
        super().__init__()
        if mode not in ("max", "mean"):
            raise ValueError(f"expected mode 'max' or 'mean', got {mode!r}")
        self.mode = mode

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels"]:
        sites = x.flatten(2)
        return sites.amax(2) if self.mode == "max" else sites.mean(2)

    def extra_repr(self) -> str:
        return f"mode={self.mode!r}"


class Upsample2d(nn.Module):
    """Enlarges maps by a whole factor, nearest or bilinear with half-pixel centres: both exact."""

    def __init__(
        self, in_type: FieldType, factor: int = 2, mode: Literal["nearest", "bilinear"] = "nearest"
    ) -> None:
        super().__init__()
        if mode not in ("nearest", "bilinear"):
            raise ValueError(f"expected mode 'nearest' or 'bilinear', got {mode!r}")
        if factor < 1 or int(factor) != factor:
            raise ValueError(
                f"expected a whole factor of at least 1 (others break the symmetry), got {factor}"
            )
        self.in_type = self.out_type = in_type
        self.factor, self.mode = int(factor), mode

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height2 width2"]:
        check_channels(x.shape[1], self.in_type, type(self).__name__)
        align = False if self.mode == "bilinear" else None
        return F.interpolate(x, scale_factor=self.factor, mode=self.mode, align_corners=align)

    def extra_repr(self) -> str:
        return f"{self.in_type}, factor={self.factor}, mode={self.mode!r}"
