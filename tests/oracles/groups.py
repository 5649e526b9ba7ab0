"""Point groups once more, from geometry: turns and mirrors as floats, and as permutations of polygon corners.

Elements are numbered as the package promises: the n turns, then the same turns after the mirror. Nothing here
imports eqgan.
"""

from math import cos, pi, sin

import numpy as np

# order of the rotations, and the angle (degrees) of the mirror's axis against the x axis, if there is one
GEOMETRY: dict[str, tuple[int, float | None]] = {
    "C1": (1, None),
    "C2": (2, None),
    "C3": (3, None),
    "C4": (4, None),
    "C6": (6, None),
    "D1": (1, 90.0),
    "D2": (2, 90.0),
    "D3": (3, 30.0),
    "D4": (4, 0.0),
    "D6": (6, 30.0),
}


def rotation(angle: float) -> np.ndarray:
    return np.array([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]])


def reflection(axis: float) -> np.ndarray:
    return np.array([[cos(2 * axis), sin(2 * axis)], [sin(2 * axis), -cos(2 * axis)]])


def float_matrices(name: str) -> np.ndarray:
    """The elements as orthogonal matrices, (order, 2, 2)."""
    n, axis = GEOMETRY[name]
    turns = [rotation(2 * pi * k / n) for k in range(n)]
    if axis is not None:
        turns += [turn @ reflection(axis * pi / 180) for turn in turns]
    return np.array(turns)


def cartesian(elements: np.ndarray, lattice: str) -> np.ndarray:
    """Integer matrices in lattice coordinates as orthogonal ones; axial axes are 60 degrees apart."""
    basis = np.eye(2) if lattice == "square" else np.array([[1.0, 0.5], [0.0, 3**0.5 / 2]])
    return basis @ elements @ np.linalg.inv(basis)


def polygon_permutations(name: str) -> list[tuple[int, ...]]:
    """The elements as permutations of the corners of a 3n-gon, on which even D1 and D2 act faithfully."""
    n, axis = GEOMETRY[name]
    corners = range(3 * n)
    turns = [tuple((i + 3 * k) % (3 * n) for i in corners) for k in range(n)]
    if axis is None:
        return turns
    mirror = tuple(-i % (3 * n) for i in corners)
    return turns + [compose(turn, mirror) for turn in turns]


def compose(p: tuple[int, ...], q: tuple[int, ...]) -> tuple[int, ...]:
    """First q, then p."""
    return tuple(p[q[i]] for i in range(len(q)))


def cayley_table(permutations: list[tuple[int, ...]]) -> np.ndarray:
    number = {p: i for i, p in enumerate(permutations)}
    return np.array([[number[compose(p, q)] for q in permutations] for p in permutations])


def all_subgroups(product: np.ndarray) -> set[tuple[int, ...]]:
    """Every subset that holds the identity and is closed, by trying all of them."""
    order = len(product)
    found = set()
    for mask in range(1, 2**order, 2):  # odd: the identity, number 0, is in it
        members = [g for g in range(order) if mask >> g & 1]
        if order % len(members) == 0 and {product[g][h] for g in members for h in members} == set(members):
            found.add(tuple(members))
    return found
