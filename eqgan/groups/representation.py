"""Permutation representations: how a group acts on the values above a site (the fiber)."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from eqgan.groups.point import IntArray, PointGroup


@dataclass(frozen=True)
class Representation:
    """Functions on the cosets G/H: regular for H = {e}, trivial for H = G, a quotient in between.

    Args:
        group: G.
        stabiliser: the element numbers of H.

    Example:
        >>> from eqgan.groups import C4
        >>> quotient(C4, C4.subgroup((0, 2))).dim
        2
    """

    group: PointGroup
    stabiliser: tuple[int, ...]

    def __post_init__(self) -> None:
        self.group.subgroup(self.stabiliser)

    @property
    def dim(self) -> int:
        return self.group.order // len(self.stabiliser)

    @property
    def is_trivial(self) -> bool:
        return self.dim == 1

    @property
    def is_regular(self) -> bool:
        return len(self.stabiliser) == 1

    @property
    def coset_of(self) -> IntArray:
        """The coset of each group element, (order,)."""
        return _coset_of(self)

    @property
    def action(self) -> IntArray:
        """``action[g, c]`` is the coset g c, (order, dim)."""
        return _action(self)

    def __str__(self) -> str:
        if self.is_trivial:
            return "trivial"
        return "regular" if self.is_regular else f"quotient by {{{', '.join(map(str, self.stabiliser))}}}"


@cache
def _coset_of(rep: Representation) -> IntArray:
    cosets = rep.group.left_cosets(rep.stabiliser)
    table = np.empty(rep.group.order, dtype=np.int64)
    table[cosets] = np.arange(len(cosets))[:, None]
    table.setflags(write=False)
    return table


@cache
def _action(rep: Representation) -> IntArray:
    representatives = rep.group.left_cosets(rep.stabiliser)[:, 0]
    table = rep.coset_of[rep.group.product[:, representatives]]
    table.setflags(write=False)
    return table


def trivial(group: PointGroup) -> Representation:
    """One value above each site, which the group leaves as it is."""
    return Representation(group, group.everything)


def regular(group: PointGroup) -> Representation:
    """One value for each group element; the group permutes them by multiplication from the left."""
    return Representation(group, (group.identity,))


def quotient(group: PointGroup, subgroup: "PointGroup | tuple[int, ...]") -> Representation:
    """One value for each coset g H."""
    return Representation(group, group.subgroup(subgroup))
