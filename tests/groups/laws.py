"""The axioms, tried out on every case: each function raises AssertionError where a table breaks one."""

import numpy as np


def require_group(product: np.ndarray, inverse: np.ndarray, identity: int = 0) -> None:
    require_closure(product)
    require_associativity(product)
    require_identity(product, identity)
    require_inverses(product, inverse, identity)


def require_closure(product: np.ndarray) -> None:
    order = len(product)
    assert product.shape == (order, order)
    everything = np.arange(order)
    assert (np.sort(product, axis=0) == everything[:, None]).all(), "a column is no permutation"
    assert (np.sort(product, axis=1) == everything).all(), "a row is no permutation"


def require_associativity(product: np.ndarray) -> None:
    """(g h) k = g (h k) over every triple."""
    left = product[product]  # left[g, h, k] = (g h) k
    right = product[:, product]  # right[g, h, k] = g (h k)
    assert (left == right).all(), f"not associative at {np.argwhere(left != right)[0].tolist()}"


def require_identity(product: np.ndarray, identity: int) -> None:
    everything = np.arange(len(product))
    assert (product[identity] == everything).all()
    assert (product[:, identity] == everything).all()


def require_inverses(product: np.ndarray, inverse: np.ndarray, identity: int) -> None:
    everything = np.arange(len(product))
    assert (product[everything, inverse] == identity).all()
    assert (product[inverse, everything] == identity).all()


def require_action(table: np.ndarray, product: np.ndarray, identity: int = 0) -> None:
    """``table[g, point]``: permutations, e acts as nothing, and g (h p) = (g h) p."""
    order, points = table.shape
    assert order == len(product)
    assert (np.sort(table, axis=1) == np.arange(points)).all(), "an element does not permute the points"
    assert (table[identity] == np.arange(points)).all(), "the identity moves something"
    composed = table[:, table]  # composed[g, h, p] = g (h p)
    assert (composed == table[product]).all(), "not a homomorphism"


def require_partition(cosets: np.ndarray, order: int) -> None:
    assert sorted(cosets.ravel().tolist()) == list(range(order)), "the cosets do not partition the group"


def conjugacy_classes(product: np.ndarray, inverse: np.ndarray) -> set[frozenset[int]]:
    everything = range(len(product))
    return {frozenset(int(product[product[g, h], inverse[g]]) for g in everything) for h in everything}
