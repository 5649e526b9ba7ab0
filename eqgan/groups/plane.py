"""Plane (wallpaper) groups by name, and the types of the fields that live on their lattice."""

from dataclasses import dataclass
from typing import Any

from eqgan.groups.point import C1, C2, C3, C4, C6, D1, D2, D3, D4, D6, PointGroup
from eqgan.groups.representation import Representation
from eqgan.groups.representation import quotient as _quotient
from eqgan.groups.representation import regular as _regular
from eqgan.groups.representation import trivial as _trivial
from eqgan.nearest import nearest


@dataclass(frozen=True)
class PlaneGroup:
    """The translations of a lattice together with a point group that fixes a lattice point.

    Args:
        name: such as ``"p4m"``.
        point_group: the stabiliser of the origin.
        lattice: ``"square"`` or ``"hexagonal"``.
    """

    name: str
    point_group: PointGroup
    lattice: str = "square"

    @property
    def order(self) -> int:
        """Order of the point group: how many values a regular field has above a site."""
        return self.point_group.order

    def contains(self, other: "PlaneGroup") -> bool:
        """Whether every symmetry of the other group is one of this group.

        Example:
            >>> P4M.contains(P4), P4.contains(PM)
            (True, False)
        """
        mine = {element.tobytes() for element in self.point_group.elements}
        return self.lattice == other.lattice and all(
            element.tobytes() in mine for element in other.point_group.elements
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> "PlaneGroup":
        return self

    def __str__(self) -> str:
        return self.name


Z2 = PlaneGroup("z2", C1)
P2 = PlaneGroup("p2", C2)
P4 = PlaneGroup("p4", C4)
PM = PlaneGroup("pm", D1)
P2MM = PlaneGroup("p2mm", D2)
P4M = PlaneGroup("p4m", D4)
P3 = PlaneGroup("p3", C3, "hexagonal")
P3M1 = PlaneGroup("p3m1", D3, "hexagonal")
P6 = PlaneGroup("p6", C6, "hexagonal")
P6M = PlaneGroup("p6m", D6, "hexagonal")

PLANE_GROUPS = {g.name: g for g in (Z2, P2, P4, PM, P2MM, P4M, P3, P3M1, P6, P6M)}
SQUARE_PLANE_GROUPS = {name: g for name, g in PLANE_GROUPS.items() if g.lattice == "square"}
_ALIASES = {"p1": "z2", "pmm": "p2mm", "p4mm": "p4m", "p6mm": "p6m"}


def plane_group(name: str) -> PlaneGroup:
    """The plane group of this name (case does not matter; z2 is p1, p4mm is p4m).

    Raises:
        ValueError: naming the nearest known group.

    Example:
        >>> plane_group("P4M").order
        8
    """
    key = _ALIASES.get(name.lower(), name.lower())
    if key not in PLANE_GROUPS:
        meant = nearest(key, [*PLANE_GROUPS, *_ALIASES])
        raise ValueError(
            f"unknown plane group {name!r}; did you mean {meant!r}? Known: {', '.join(PLANE_GROUPS)}."
        )
    return PLANE_GROUPS[key]


@dataclass(frozen=True)
class FieldType:
    """What the channels of a feature map are: ``multiplicity`` fields of one representation.

    Channels are field-major: ``channel = field * representation.dim + position in the fiber``.

    Raises:
        ValueError: if the representation is of another group, or there is no field.
    """

    group: PlaneGroup
    representation: Representation
    multiplicity: int

    def __post_init__(self) -> None:
        if self.representation.group != self.group.point_group:
            raise ValueError(
                f"expected a representation of {self.group.point_group} (the point group of {self.group}), "
                f"got one of {self.representation.group}"
            )
        if self.multiplicity < 1:
            raise ValueError(f"expected at least one field, got multiplicity {self.multiplicity}")

    @property
    def dim(self) -> int:
        """Values above a site for one field."""
        return self.representation.dim

    @property
    def channels(self) -> int:
        return self.multiplicity * self.dim

    def with_multiplicity(self, multiplicity: int) -> "FieldType":
        return FieldType(self.group, self.representation, multiplicity)

    def __str__(self) -> str:
        return f"{self.multiplicity} x {self.group} {self.representation}"


def scalar(group: PlaneGroup, multiplicity: int) -> FieldType:
    """Fields that the group only moves about: images, and feature maps pooled over the fiber."""
    return FieldType(group, _trivial(group.point_group), multiplicity)


def regular(group: PlaneGroup, multiplicity: int) -> FieldType:
    """Fields with a value for each element of the point group."""
    return FieldType(group, _regular(group.point_group), multiplicity)


def quotient(group: PlaneGroup, subgroup: "PlaneGroup | tuple[int, ...]", multiplicity: int) -> FieldType:
    """Fields with a value for each coset of a subgroup: ``quotient(P4M, P4, 3)`` has two values a site."""
    members = subgroup.point_group if isinstance(subgroup, PlaneGroup) else subgroup
    return FieldType(group, _quotient(group.point_group, members), multiplicity)
