"""Real irreducible representations of a finite group and their Fourier transform, from its Cayley table.

Nothing here is written per group: every subgroup's real characters are induced, which gives all irreps of C1,
C2, C4, D1, D2 and D4 (and most of many others) with entries 0 and +-1, exactly. What is left is split
numerically, to rounding.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

from eqgan.groups.point import IntArray, PointGroup

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RealIrrep:
    """A real irreducible representation, in a basis adapted to what commutes with it.

    Args:
        matrices: orthogonal, (order, dim, dim).
        field: real dimension of the algebra that commutes with it: 1 real, 2 complex, 4 quaternionic type.
    """

    matrices: FloatArray
    field: int

    @property
    def dim(self) -> int:
        return int(self.matrices.shape[1])

    @property
    def copies(self) -> int:
        """How often it occurs in the regular representation. Rows 0, field, 2 field, ... are independent."""
        return self.dim // self.field

    @property
    def rows(self) -> FloatArray:
        """Its independent matrix entries as functions on the group, (copies, dim, order)."""
        return np.moveaxis(self.matrices[:, :: self.field], 0, -1)


@dataclass(frozen=True, eq=False)
class GroupFourier:
    """The Fourier transform of real functions on a finite group: it makes a convolution a few small products.

    For out[s] = sum_u k[u] f[s u] (a group convolution at one cell of the window) and every irrep,

        transform(out)[i] = transform(f)[i] @ filter_blocks(k),      i = 0 .. copies - 1,

    a row of ``dim`` numbers times a matrix (dim, dim).

    Args:
        product: Cayley table, (order, order); the identity is number 0.
        irreps: all of them, once each.
    """

    product: IntArray
    irreps: tuple[RealIrrep, ...]

    @property
    def order(self) -> int:
        return len(self.product)

    @property
    def analysis(self) -> FloatArray:
        """The transform, (order, order): rows are irrep by irrep, copy by copy, entry by entry; orthogonal.

        Its transpose undoes it, up to the factor dim / order of each irrep, which ``filter_matrix`` holds.
        """
        return np.concatenate([irrep.rows.reshape(-1, self.order) for irrep in self.irreps])

    @property
    def filter_matrix(self) -> FloatArray:
        """From a filter on the group to its blocks, (sum of dim^2, order), entry (in l, out j) row-major.

        Block[l, j] = dim / order * sum_u k[u] rho(u)[j, l].
        """
        blocks = [
            irrep.dim / self.order * irrep.matrices.transpose(2, 1, 0).reshape(-1, self.order)
            for irrep in self.irreps
        ]
        return np.concatenate(blocks)

    @property
    def multiplications(self) -> int:
        """For one convolution over the group; the direct sum takes order^2."""
        return self.multiplications_for(())

    def multiplications_for(self, stabiliser: tuple[int, ...]) -> int:
        """The same where what comes out is a function on the cosets G/H: fewer irreps have a part in it."""
        known = self.irreps_of(stabiliser)
        parts = ((known >> n & 1, irrep) for n, irrep in enumerate(self.irreps))
        return sum(irrep.copies * irrep.dim**2 for has_part, irrep in parts if has_part)

    def irreps_of(self, stabiliser: tuple[int, ...]) -> int:
        """A bit for each irrep that has a part in functions on a subgroup's cosets; of no elements, all."""
        members = list(stabiliser) or [0]
        fixed = (np.abs(irrep.matrices[members].sum(axis=0)).max() > 1e-9 for irrep in self.irreps)
        return sum(1 << number for number, found in enumerate(fixed) if found)

    def convolve(self, f: FloatArray, k: FloatArray) -> FloatArray:
        """out[s] = sum_u k[u] f[s u] by way of the transform."""
        features, blocks, out = self.analysis @ f, self.filter_matrix @ k, []
        first, entry = 0, 0
        for irrep in self.irreps:
            d, size = irrep.dim, irrep.copies * irrep.dim
            block = blocks[entry : entry + d * d].reshape(d, d)
            out.append(features[first : first + size].reshape(-1, d) @ block)
            first, entry = first + size, entry + d * d
        inverse: FloatArray = self.analysis.T @ np.concatenate([o.ravel() for o in out])
        return inverse


@cache
def group_fourier(group: PointGroup) -> GroupFourier:
    """The transform of a point group.

    Example:
        >>> from eqgan.groups import D4
        >>> transform = group_fourier(D4)
        >>> [irrep.dim for irrep in transform.irreps], transform.multiplications
        ([1, 1, 1, 1, 2], 12)
    """
    return table_fourier(group.product)


def table_fourier(product: IntArray) -> GroupFourier:
    """The transform of any finite group, given its Cayley table with the identity as number 0.

    References:
        Serre, Linear Representations of Finite Groups (1977), chapters 2, 7 (induction), 13 (real types).
    """
    irreps = _complete(product, _monomial(product))
    return GroupFourier(product, tuple(sorted(irreps, key=lambda irrep: irrep.dim)))


def _character(matrices: FloatArray) -> FloatArray:
    character: FloatArray = np.trace(matrices, axis1=1, axis2=2)
    return character


def _type(character: FloatArray, product: IntArray) -> int | None:
    """1, 2 or 4 for an irrep of real, complex or quaternionic type; None if it splits over the reals.

    Norm and Frobenius-Schur indicator together tell: (1, 1), (2, 0), (4, -2).
    """
    norm = round(float(np.mean(character**2)))
    indicator = round(float(np.mean(character[np.diagonal(product)])))
    return norm if (norm, indicator) in ((1, 1), (2, 0), (4, -2)) else None


def _is_new(character: FloatArray, found: list[RealIrrep]) -> bool:
    return all(abs(np.mean(character * _character(irrep.matrices))) < 0.5 for irrep in found)


def _monomial(product: IntArray) -> list[RealIrrep]:
    """All irreps that are induced from a character +-1 of a subgroup, trivial one first."""
    found: list[RealIrrep] = []
    for members, kernel in _real_characters(product):
        matrices = _induce(product, members, kernel)
        field = _type(_character(matrices), product)
        if field and _is_new(_character(matrices), found):
            found.append(_adapt(matrices, field))
    return found


def _real_characters(product: IntArray) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """A subgroup and the kernel, of index 1 or 2, of a character +-1 of it; large subgroups first."""
    subgroups = _subgroups(product)
    for members in subgroups:
        for kernel in subgroups:
            if len(members) in (len(kernel), 2 * len(kernel)) and set(kernel) <= set(members):
                yield members, kernel


def _subgroups(product: IntArray) -> list[tuple[int, ...]]:
    found = {_closure(product, pair) for pair in combinations_with_replacement(range(len(product)), 2)}
    return sorted(found, key=lambda members: (-len(members), members))


def _closure(product: IntArray, seeds: tuple[int, ...]) -> tuple[int, ...]:
    members = {0, *seeds}
    while len(grown := {int(product[a, b]) for a in members for b in members}) > len(members):
        members = grown
    return tuple(sorted(members))


def _induce(product: IntArray, members: tuple[int, ...], kernel: tuple[int, ...]) -> FloatArray:
    """g r_a = r_b h moves basis vector a to b, with the sign of h."""
    position = {}  # element -> (coset, sign)
    representatives: list[int] = []
    for g in range(len(product)):
        if g not in position:
            for h in members:
                position[int(product[g, h])] = (len(representatives), 1.0 if h in kernel else -1.0)
            representatives.append(g)
    matrices = np.zeros((len(product), len(representatives), len(representatives)))
    for g in range(len(product)):
        for a, representative in enumerate(representatives):
            b, sign = position[int(product[g, representative])]
            matrices[g, b, a] = sign
    return matrices


def _adapt(matrices: FloatArray, field: int) -> RealIrrep:
    """In a basis v, J v, ..., w, J w, ... (J commutes): every ``field``-th row is independent."""
    algebra = _commutant(matrices, field)
    basis: list[FloatArray] = []
    for vector in np.eye(matrices.shape[1]):
        rest = vector - sum((b * (b @ vector) for b in basis), np.zeros_like(vector))
        if (norm := np.linalg.norm(rest)) > 0.1 / len(vector):
            basis += [element @ rest / norm for element in algebra]
    change = np.array(basis)
    return RealIrrep(_snap(change @ matrices @ change.T), field)


def _commutant(matrices: FloatArray, field: int) -> list[FloatArray]:
    """What commutes with it: the identity, and orthogonal skew matrices that square to minus the identity."""
    dim = matrices.shape[1]
    found = [np.eye(dim)]
    for unit in np.eye(dim * dim).reshape(-1, dim, dim):
        mean = np.mean(matrices @ unit @ matrices.transpose(0, 2, 1), axis=0)
        mean = mean - sum((f * np.sum(f * mean) / dim for f in found), np.zeros_like(mean))
        if len(found) < field and (norm := np.linalg.norm(mean)) > 1e-6:
            found.append(mean * (dim**0.5 / norm))
    return found


def _snap(matrices: FloatArray) -> FloatArray:
    """Integers that rounding has touched become integers again."""
    whole = np.round(matrices)
    return np.where(np.abs(matrices - whole) < 1e-12, whole, matrices) + 0.0


def _complete(product: IntArray, found: list[RealIrrep]) -> list[RealIrrep]:
    """Adds what is not monomial: eigenspaces of a generic symmetric operator that commutes with the group.

    The operator is a convolution with a symmetric function, projected to what is not yet found. Its
    eigenspaces are irreducible, since it has as many different eigenvalues as an irrep has copies.
    """
    order = len(product)
    left = np.zeros((order, order, order))  # the regular representation: left[g] moves t to g t
    left[np.arange(order)[:, None], product, np.arange(order)[None, :]] = 1.0
    rest = np.eye(order)
    for irrep in found:  # the mean of left[g] times dim / type times the character projects to all copies
        rest -= irrep.dim / order / irrep.field * np.tensordot(_character(irrep.matrices), left, 1)
    if np.trace(rest) < 0.5:
        return found
    inverse = (product == 0).argmax(axis=1)
    weights = np.random.default_rng(0).uniform(1, 2, order)
    weights += weights[inverse]
    values, vectors = np.linalg.eigh(rest @ weights[product[inverse]] @ rest)
    start = 0
    for stop in [*(np.flatnonzero(np.diff(values) > 1e-8) + 1), order]:
        space, start = vectors[:, start:stop], int(stop)
        matrices = space.T @ left @ space
        field = _type(_character(matrices), product)
        if np.trace(space.T @ rest @ space) > 0.5 and field and _is_new(_character(matrices), found):
            found = [*found, _adapt(matrices, field)]
    return found
