"""Group convolution from its definition: plain loops over group elements, np.rot90, np.flip, correlate2d.

An element is a pair (mirrored, turns): first the mirror if there is one, then quarter turns. They are
numbered as the package promises (turns first, then the mirrored ones). Nothing here imports eqgan.
"""

from itertools import product

import numpy as np
from scipy.signal import correlate2d

Element = tuple[bool, int]

# the quarter turns of the group and the axis its mirror flips (0: rows, up-down; 1: columns, left-right)
GROUPS: dict[str, tuple[tuple[int, ...], int | None]] = {
    "z2": ((0,), None),
    "p2": ((0, 2), None),
    "pm": ((0,), 1),
    "p4": ((0, 1, 2, 3), None),
    "p2mm": ((0, 2), 1),
    "p4m": ((0, 1, 2, 3), 0),
}


def elements(name: str) -> list[Element]:
    turns, axis = GROUPS[name]
    return [(mirrored, k) for mirrored in ((False,) if axis is None else (False, True)) for k in turns]


def multiply(g: Element, h: Element) -> Element:
    """First h, then g; passing a mirror reverses a turn."""
    return g[0] != h[0], (g[1] + (-h[1] if g[0] else h[1])) % 4


def invert(g: Element) -> Element:
    return g if g[0] else (False, -g[1] % 4)


def move(name: str, g: Element, array: np.ndarray) -> np.ndarray:
    """The array whose value at a point p is array(g^-1 p), over its last two axes."""
    mirrored, turns = g
    flipped = np.flip(array, GROUPS[name][1] - 2) if mirrored else array
    return np.rot90(flipped, turns, axes=(-2, -1))


def slide(image: np.ndarray, window: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """Cross-correlation of two planes, zeros outside."""
    return correlate2d(np.pad(image, padding), window, mode="valid")[::stride, ::stride]


def group_convolution(
    name: str, x: np.ndarray, w: np.ndarray, stride: int = 1, padding: int = 0
) -> np.ndarray:
    """out[s](p) = sum_q sum_t w[s^-1 t](s^-1 (q - p)) in[t](q).

    Args:
        x: (batch, fields in, order, height, width).
        w: (fields out, fields in, order, k, k).

    Returns:
        (batch, fields out, order, height', width').
    """
    members = elements(name)
    number = {g: i for i, g in enumerate(members)}
    out = np.array(
        [
            [
                [
                    sum(
                        slide(
                            image[j, number[t]],
                            move(name, s, w[i, j, number[multiply(invert(s), t)]]),
                            stride,
                            padding,
                        )
                        for j, t in product(range(w.shape[1]), members)
                    )
                    for s in members
                ]
                for i in range(w.shape[0])
            ]
            for image in x
        ]
    )
    return out


def lifting_convolution(
    name: str, x: np.ndarray, w: np.ndarray, stride: int = 1, padding: int = 0
) -> np.ndarray:
    """out[s](p) = sum_q w(s^-1 (q - p)) in(q); x (batch, in, h, w), w (fields out, fields in, k, k)."""
    return np.array(
        [
            [
                [
                    sum(slide(image[j], move(name, s, w[i, j]), stride, padding) for j in range(w.shape[1]))
                    for s in elements(name)
                ]
                for i in range(w.shape[0])
            ]
            for image in x
        ]
    )


def cosets(name: str, subgroup: list[int]) -> list[frozenset[Element]]:
    """The cosets g H in the order of the least number in each."""
    members = elements(name)
    found: list[frozenset[Element]] = []
    for g in members:
        coset = frozenset(multiply(g, members[h]) for h in subgroup)
        if coset not in found:
            found.append(coset)
    return found


def coset_action(name: str, g: Element, subgroup: list[int]) -> list[int]:
    """The number of g c for each coset c."""
    all_cosets = cosets(name, subgroup)
    return [all_cosets.index(frozenset(multiply(g, h) for h in coset)) for coset in all_cosets]


def move_bank(
    name: str, g: Element, bank: np.ndarray, out_subgroup: list[int], in_subgroup: list[int]
) -> np.ndarray:
    """[g.K](z)[a, b] = K(g^-1 z)[g^-1 a, g^-1 b]; bank (cosets out, cosets in, k, k)."""
    back = invert(g)
    rows, columns = coset_action(name, back, out_subgroup), coset_action(name, back, in_subgroup)
    return move(name, g, bank[rows][:, columns])


def average_bank(name: str, bank: np.ndarray, out_subgroup: list[int], in_subgroup: list[int]) -> np.ndarray:
    """The nearest equivariant bank, the mean of all moved ones: an equivariant bank is its own average."""
    moved = [move_bank(name, g, bank, out_subgroup, in_subgroup) for g in elements(name)]
    return np.mean(moved, axis=0)


def equivariant_dimension(name: str, size: int, out_subgroup: list[int], in_subgroup: list[int]) -> int:
    """Dimension of the space of equivariant banks: the null space of all (move - identity), by SVD."""
    shape = (len(cosets(name, out_subgroup)), len(cosets(name, in_subgroup)), size, size)
    units = np.eye(int(np.prod(shape))).reshape(-1, *shape)
    constraints = [
        np.stack([(move_bank(name, g, unit, out_subgroup, in_subgroup) - unit).ravel() for unit in units], 1)
        for g in elements(name)
    ]
    return len(units) - int(np.linalg.matrix_rank(np.concatenate(constraints)))
