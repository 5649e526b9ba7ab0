"""One report on the symmetry of a network: the elements, the angles, the layers, and a plain verdict."""

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eqgan.groups import P2MM, P4M, SQUARE_PLANE_GROUPS, FieldType, PlaneGroup, plane_group, regular, scalar
from eqgan.metrics.equivariance import (
    ElementError,
    RotationError,
    eq_r,
    orbit_errors,
    rotation_errors,
)
from eqgan.metrics.layers import LayerError, layer_errors, where_it_breaks
from eqgan.metrics.rotation import disc, rotate_images, smooth_images

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
"""Largest deviation, over the largest output, that counts as rounding."""
ANGLES = tuple(range(0, 181, 15))


@dataclass(frozen=True)
class Audit:
    """What was measured of one network.

    Args:
        law: "invariant" (f(g x) = f(x)) or "equivariant" (f(g x) = g f(x)).
        group: plane group that the layers were held to.
        tolerance: up to which ``largest`` is rounding.
        elements: of p4m, or of as much of it as the types of input and output know.
        rotations, layers: see their classes; layers in order of execution.
        ceiling: PSNR of the test images after a rotation by each angle and back, in dB: what interpolation
            costs. An EQ-R near it says nothing against the network.
    """

    law: str
    group: PlaneGroup
    tolerance: float
    elements: tuple[ElementError, ...]
    rotations: tuple[RotationError, ...]
    ceiling: tuple[float, ...]
    layers: tuple[LayerError, ...]

    @property
    def exact_groups(self) -> tuple[str, ...]:
        """The plane groups of the square lattice under which the law holds up to rounding."""
        kept = {element.matrix for element in self.elements if element.largest <= self.tolerance}
        return tuple(name for name, g in SQUARE_PLANE_GROUPS.items() if _matrices(g) <= kept)

    @property
    def breaks_in(self) -> LayerError | None:
        """The layer in which the group is lost, see ``where_it_breaks``."""
        return None if self.holds(self.group) else where_it_breaks(list(self.layers), self._rounding)

    @property
    def _rounding(self) -> float:
        return max(1e-8, 100 * self.tolerance)

    def holds(self, group: PlaneGroup) -> bool:
        """Whether the law holds under this group up to rounding."""
        return group.name in self.exact_groups

    def verdict(self) -> list[str]:
        """The result in plain sentences."""
        return [*self._about_group(), *self._about_layers(), *self._about_angles()]

    def _about_group(self) -> list[str]:
        lines = []
        largest = max(self.exact_groups, key=lambda name: SQUARE_PLANE_GROUPS[name].order)
        members = _matrices(SQUARE_PLANE_GROUPS[largest])
        if len(members) > 1:
            rounding = max(e.largest for e in self.elements if e.matrix in members)
            lines.append(
                f"Exactly {self.law} under {largest}: over its {len(members)} elements the largest relative "
                f"deviation is {rounding:.1e}, which is rounding."
            )
        asked = self.elements
        if not self.holds(self.group):
            asked = tuple(e for e in self.elements if e.matrix in _matrices(self.group))
        broken = [e for e in asked if e.largest > self.tolerance]
        if broken:
            worst = max(broken, key=lambda e: e.error)
            tried = self.group if not self.holds(self.group) else P4M if len(asked) == P4M.order else P2MM
            lines.append(
                f"Not {self.law} under {tried}: {_name(worst.matrix)} changes the output by "
                f"{worst.error:.2g} of its spread between images."
            )
        return lines

    def _about_layers(self) -> list[str]:
        layer = self.breaks_in
        if layer is None:
            return []
        if layer.input_error is not None and layer.input_error <= self._rounding:
            where = f"in {layer.name} ({layer.kind}): its input follows {self.group}, its output does not"
        else:
            where = f"before {layer.name} ({layer.kind}), the first layer that is given something else"
        return [f"The symmetry is lost {where}."]

    def _about_angles(self) -> list[str]:
        between = [r for r in self.rotations if r.degrees % 90]
        if not between:
            return []
        worst = max(between, key=lambda r: r.error)
        line = f"Between quarter turns the deviation is up to {worst.error:.2g} of the spread "
        line += f"(at {worst.degrees:g} degrees"
        if worst.psnr is not None:
            ceiling = min(c for r, c in zip(self.rotations, self.ceiling) if r.degrees == worst.degrees)
            line += f", EQ-R {worst.psnr:.1f} dB; a rotation of the images there and back: {ceiling:.0f} dB"
        return [line + ")."]

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, ready for JSON."""
        found = self.breaks_in
        return {
            "law": self.law,
            "group": self.group.name,
            "tolerance": self.tolerance,
            "exact_groups": list(self.exact_groups),
            "elements": [asdict(element) for element in self.elements],
            "rotations": [
                {**asdict(r), "there_and_back_psnr": c} for r, c in zip(self.rotations, self.ceiling)
            ],
            "eq_r": eq_r([r for r in self.rotations if r.degrees % 90]),
            "layers": [asdict(layer) for layer in self.layers],
            "breaks_in": None if found is None else found.name,
            "verdict": self.verdict(),
        }


@torch.no_grad()
def audit(
    network: nn.Module,
    shape: tuple[int, int, int],
    group: PlaneGroup | None = None,
    *,
    images: Tensor | None = None,
    law: str = "auto",
    fields: str = "scalar",
    degrees: Sequence[float | int] = ANGLES,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    count: int = 16,
    seed: int = 0,
) -> Audit:
    """Measures the symmetry of a network, ours or not; a copy is measured, the network stays as it is.

    Args:
        network: from images to values (batch,), (batch, k) or maps (batch, channels, height, width).
        shape: (channels, height, width) of its input.
        group: plane group of the square lattice that its layers are held to; by default the network's own
            (its attribute ``group``), else p4m.
        images: to measure with, in [-1, 1]; by default random ones. At least four.
        law: "invariant", "equivariant", or "auto": maps are equivariant, values invariant.
        fields: what the channels of maps are, where the network has no ``out_type``: "scalar" or "regular"
            (field-major).
        degrees: angles at which it is measured too.
        dtype: float64, or float32 for networks that cannot compute in it.
        device: to measure on.
        count: random images.
        seed: of the random images.

    Raises:
        ValueError: for an input or output that cannot be measured; the message says why.
    """
    network = _prepared(network, dtype, device)
    group = group or _own_group(network, shape)
    generator = torch.Generator().manual_seed(seed)
    if images is None:
        rough = torch.rand(count, *shape, generator=generator, dtype=torch.float64) * 2 - 1
        smooth = smooth_images(count, shape, generator)
    else:
        rough = images.double().cpu()
        smooth = rough * disc(*rough.shape[-2:])
    rough, smooth = (x.to(device, dtype) for x in (rough, smooth))
    in_type, out_type = _types(network, rough, group, law, fields)
    widest = _widest(in_type, out_type, shape)
    layers = layer_errors(network, rough, group, in_type)
    rotations: list[RotationError] = []
    if _turns_freely(in_type) and (out_type is None or _turns_freely(out_type)):
        rotations = rotation_errors(network, smooth, degrees, out_type is None)
    return Audit(
        law="invariant" if out_type is None else "equivariant",
        group=group,
        tolerance=TOLERANCE[dtype],
        elements=tuple(orbit_errors(network, rough, widest, *_retyped(in_type, out_type, widest))),
        rotations=tuple(rotations),
        ceiling=tuple(_there_and_back(smooth, float(angle)) for angle in degrees)[: len(rotations)],
        layers=tuple(layers),
    )


def _prepared(network: nn.Module, dtype: torch.dtype, device: torch.device | str) -> nn.Module:
    try:
        return copy.deepcopy(network).to(device, dtype).eval()
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"the network cannot be copied or moved to {dtype} on {device}: {error}") from error


def _types(
    network: nn.Module, images: Tensor, group: PlaneGroup, law: str, fields: str
) -> tuple[FieldType, FieldType | None]:
    """What its input and output are; None for an output that shall be invariant."""
    in_type = getattr(network, "in_type", None) or scalar(group, images.shape[1])
    if in_type.channels != images.shape[1]:
        raise ValueError(f"the network takes {in_type} ({in_type.channels} channels), got {images.shape[1]}")
    try:
        output = network(images)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ValueError(
            f"the network fails on {images.dtype} images {tuple(images.shape)}: {str(error).strip()}. "
            "Give the shape of its input (--shape), or --dtype float32 if it cannot compute in float64"
        ) from error
    maps = isinstance(output, Tensor) and output.ndim == 4 and output.shape[-2:] != (1, 1)
    if law == "invariant" or (law == "auto" and not maps):
        return in_type, None
    if not maps:
        raise ValueError(f"expected maps to be equivariant, got an output of shape {tuple(output.shape)}")
    own = getattr(network, "out_type", None)
    if isinstance(own, FieldType):
        return in_type, own
    if fields == "scalar":
        return in_type, scalar(group, output.shape[1])
    if output.shape[1] % group.order:
        raise ValueError(f"{output.shape[1]} channels are no regular fields of {group}, order {group.order}")
    return in_type, regular(group, output.shape[1] // group.order)


def _own_group(network: nn.Module, shape: tuple[int, int, int]) -> PlaneGroup:
    """The group the network says it respects, else the largest that maps its images to themselves."""
    own = getattr(network, "group", None) or getattr(getattr(network, "in_type", None), "group", None)
    if isinstance(own, PlaneGroup) and own.lattice == "square" and own.order > 1:
        return own
    return P4M if shape[1] == shape[2] else P2MM


def _widest(in_type: FieldType, out_type: FieldType | None, shape: tuple[int, int, int]) -> PlaneGroup:
    """The largest group whose elements are known to act on input and output: on pixels, all of p4m."""
    for field_type in (in_type, out_type):
        if field_type is not None and not _turns_freely(field_type):
            return field_type.group
    return P4M if shape[1] == shape[2] else P2MM


def _retyped(
    in_type: FieldType, out_type: FieldType | None, group: PlaneGroup
) -> tuple[FieldType, FieldType | None]:
    """Scalar fields as fields of another group; other fields as they are."""
    types = [
        scalar(group, t.multiplicity) if t is not None and _turns_freely(t) else t
        for t in (in_type, out_type)
    ]
    return types[0], types[1]


def _turns_freely(field_type: FieldType) -> bool:
    """Only scalar fields can be turned by any angle: the fiber of others knows the group's alone."""
    return field_type.dim == 1


def _there_and_back(images: Tensor, degrees: float) -> float:
    turned, _ = rotate_images(images, degrees)
    back, mask = rotate_images(turned, -degrees)
    deviation = (back - images)[..., mask.to(images.device)].double().square().mean().sqrt().item()
    value_range = (images.max() - images.min()).item()
    return 20 * math.log10(value_range / deviation) if deviation else math.inf


def _matrices(group: PlaneGroup) -> frozenset[tuple[tuple[int, int], tuple[int, int]]]:
    return frozenset(tuple(map(tuple, matrix.tolist())) for matrix in group.point_group.elements)


def _name(matrix: tuple[tuple[int, int], tuple[int, int]]) -> str:
    """An element of p4m in words."""
    return {
        ((1, 0), (0, 1)): "nothing at all",
        ((0, -1), (1, 0)): "a quarter turn",
        ((-1, 0), (0, -1)): "a half turn",
        ((0, 1), (-1, 0)): "a quarter turn",
        ((1, 0), (0, -1)): "the mirror that swaps top and bottom",
        ((-1, 0), (0, 1)): "the mirror that swaps left and right",
        ((0, 1), (1, 0)): "the mirror at the rising diagonal",
        ((0, -1), (-1, 0)): "the mirror at the falling diagonal",
    }[matrix]


def named_group(name: str) -> PlaneGroup:
    """A plane group of the square lattice by name.

    Raises:
        ValueError: for another name, or a group of the hexagonal lattice.
    """
    group = plane_group(name)
    if group.name not in SQUARE_PLANE_GROUPS:
        raise ValueError(f"{group} is of the {group.lattice} lattice; use {', '.join(SQUARE_PLANE_GROUPS)}")
    return group
