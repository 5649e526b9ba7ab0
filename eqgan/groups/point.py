"""Finite point groups of the plane as exact integer algebra."""

from dataclasses import dataclass, field
from functools import cache
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = tuple[tuple[int, int], tuple[int, int]]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class PointGroup:
    """A finite group of 2x2 integer matrices, given by generators: the stabiliser of a lattice point.

    Square-lattice groups act on column vectors ``(x, y)`` with x to the right and y *up*; hexagonal ones
    on axial coordinates ``(q, r)`` whose second axis is the first turned by 60 degrees. Elements are
    numbered rotations first, then the same rotations times the mirror.

    Args:
        name: Schoenflies name, such as ``"D4"``.
        generators: matrices, each of which normalises the group made by those before it.

    Example:
        >>> C4.order, int(C4.product[1, 3]), int(C4.inverse[1])
        (4, 0, 3)
    """

    name: str
    generators: tuple[Matrix, ...] = ()
    # A plain number, not a property: torch.compile reads it in layers and must not trace into the tables.
    order: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "order", len(_elements(self.generators)))

    @property
    def elements(self) -> IntArray:
        """The matrices, (order, 2, 2); the identity is number 0."""
        return _elements(self.generators)

    @property
    def identity(self) -> int:
        return 0

    @property
    def product(self) -> IntArray:
        """Cayley table: ``product[g, h]`` is the number of g h."""
        return _product(self.generators)

    @property
    def inverse(self) -> IntArray:
        """``inverse[g]`` is the number of g^-1."""
        return _inverse(self.generators)

    @property
    def everything(self) -> tuple[int, ...]:
        """The group as a subgroup of itself."""
        return tuple(range(self.order))

    def index(self, matrix: Any) -> int:
        """The number of the element with this matrix.

        Raises:
            ValueError: if the group has no such element.
        """
        found = np.flatnonzero((self.elements == np.asarray(matrix)).all(axis=(1, 2)))
        if not len(found):
            raise ValueError(f"{self.name} has no element {np.asarray(matrix).tolist()}")
        return int(found[0])

    def subgroup(self, members: "PointGroup | tuple[int, ...] | list[int]") -> tuple[int, ...]:
        """Element numbers, sorted, of a subgroup given by its numbers or as a group of the same matrices.

        Raises:
            ValueError: if the members are no subgroup of this group.
        """
        if isinstance(members, PointGroup):
            try:
                return tuple(sorted(self.index(m) for m in members.elements))
            except ValueError as error:
                raise ValueError(f"{members.name} is not a subgroup of {self.name}: {error}") from None
        chosen = tuple(sorted({int(m) for m in members}))
        if not chosen or chosen[0] < 0 or chosen[-1] >= self.order:
            raise ValueError(f"expected element numbers 0..{self.order - 1} of {self.name}, got {members}")
        if set(self.product[np.ix_(chosen, chosen)].ravel().tolist()) != set(chosen):
            raise ValueError(f"elements {chosen} of {self.name} are not closed under the product")
        return chosen

    def subgroups(self) -> tuple[tuple[int, ...], ...]:
        """Every subgroup, smallest first (subgroups of cyclic and dihedral groups need two generators)."""
        return _subgroups(self)

    def left_cosets(self, subgroup: tuple[int, ...]) -> IntArray:
        """The cosets g H, (order / |H|, |H|); row c starts with its least element, rows in order of it."""
        return self._cosets(self.product[:, list(self.subgroup(subgroup))])

    def right_cosets(self, subgroup: tuple[int, ...]) -> IntArray:
        """The cosets H g, (order / |H|, |H|), column j being h_j times the row's least element."""
        return self._cosets(self.product[list(self.subgroup(subgroup)), :].T)

    def _cosets(self, translates: IntArray) -> IntArray:
        cosets: IntArray = translates[translates.min(axis=1) == np.arange(self.order)]
        return cosets

    def __deepcopy__(self, memo: dict[int, Any]) -> "PointGroup":
        return self  # copies of a network share the tables

    def __str__(self) -> str:
        return self.name


def _freeze(array: Any) -> IntArray:
    frozen = np.asarray(array, dtype=np.int64)
    frozen.setflags(write=False)  # the tables are shared by everyone
    return frozen


@cache
def _elements(generators: tuple[Matrix, ...]) -> IntArray:
    members = [np.eye(2, dtype=np.int64)]
    for generator in generators:
        step = np.asarray(generator, dtype=np.int64)
        powers = [np.eye(2, dtype=np.int64)]
        while not any((powers[-1] @ step == m).all() for m in members):
            powers.append(powers[-1] @ step)
            if len(powers) > 12:
                raise ValueError(f"generator {generator} has no finite order on a lattice of the plane")
        members = [m @ p for p in powers for m in members]
    return _freeze(members)


@cache
def _product(generators: tuple[Matrix, ...]) -> IntArray:
    elements = _elements(generators)
    products = np.einsum("gij,hjk->ghik", elements, elements)
    same = (products[:, :, None] == elements).all(axis=(-1, -2))
    if not (same.sum(-1) == 1).all():
        raise ValueError("the generators do not close: each must normalise the group made by those before it")
    return _freeze(same.argmax(-1))


@cache
def _inverse(generators: tuple[Matrix, ...]) -> IntArray:
    return _freeze((_product(generators) == 0).argmax(1))


@cache
def _subgroups(group: PointGroup) -> tuple[tuple[int, ...], ...]:
    found = {_generated(group, pair) for pair in combinations_with_replacement(range(group.order), 2)}
    return tuple(sorted(found, key=lambda members: (len(members), members)))


def _generated(group: PointGroup, seeds: tuple[int, ...]) -> tuple[int, ...]:
    members = {0, *seeds}
    while len(grown := set(group.product[np.ix_(sorted(members), sorted(members))].ravel().tolist())) > len(
        members
    ):
        members = grown
    return tuple(sorted(members))


_QUARTER, _HALF = ((0, -1), (1, 0)), ((-1, 0), (0, -1))
_MIRROR_X, _MIRROR_Y = ((-1, 0), (0, 1)), ((1, 0), (0, -1))  # x -> -x (left-right), y -> -y (up-down)
_SIXTH, _THIRD, _SWAP = ((0, -1), (1, 1)), ((-1, -1), (1, 0)), ((0, 1), (1, 0))  # axial coordinates

C1 = PointGroup("C1")
C2 = PointGroup("C2", (_HALF,))
C3 = PointGroup("C3", (_THIRD,))
C4 = PointGroup("C4", (_QUARTER,))
C6 = PointGroup("C6", (_SIXTH,))
D1 = PointGroup("D1", (_MIRROR_X,))
D2 = PointGroup("D2", (_HALF, _MIRROR_X))
D3 = PointGroup("D3", (_THIRD, _SWAP))
D4 = PointGroup("D4", (_QUARTER, _MIRROR_Y))
D6 = PointGroup("D6", (_SIXTH, _SWAP))

POINT_GROUPS = {group.name: group for group in (C1, C2, C3, C4, C6, D1, D2, D3, D4, D6)}
