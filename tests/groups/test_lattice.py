"""Actions on windows against np.rot90 and np.flip, and the count of free parameters against Burnside."""

from math import cos, pi, sin

import numpy as np
import pytest

from eqgan.groups import (
    C1,
    C2,
    C3,
    C4,
    C6,
    D1,
    D2,
    D3,
    D4,
    D6,
    Representation,
    hexagonal_window,
    intertwiner_index,
    square_window,
    window_action,
)
from eqgan.groups.representation import quotient, regular, trivial
from tests.groups import laws

SQUARE, HEXAGONAL = (C1, C2, C4, D1, D2, D4), (C1, C2, C3, C6, D3, D6)
WINDOWS = [(g, n, "square") for g in SQUARE for n in range(1, 7)]
WINDOWS += [(g, n, "hexagonal") for g in HEXAGONAL for n in (1, 3, 5, 7)]

# the same elements, in the same order, as NumPy moves arrays whose first row is on top
ON_ARRAYS = {
    C1: [lambda a: a],
    C2: [lambda a: a, lambda a: np.rot90(a, 2)],
    C4: [lambda a, k=k: np.rot90(a, k) for k in range(4)],
    D1: [lambda a: a, np.fliplr],
    D2: [lambda a: a, lambda a: np.rot90(a, 2), np.fliplr, np.flipud],
    D4: [lambda a, k=k: np.rot90(a, k) for k in range(4)]
    + [lambda a, k=k: np.rot90(np.flipud(a), k) for k in range(4)],
}


@pytest.mark.parametrize(("group", "size", "lattice"), WINDOWS, ids=str)
def test_windows_are_permuted_by_an_action(group, size, lattice):
    laws.require_action(window_action(group, size, lattice), group.product)


@pytest.mark.parametrize("group", SQUARE, ids=str)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_agrees_with_numpy_on_arrays(group, size):
    array = np.random.default_rng(0).normal(size=(size, size))
    for g, move in enumerate(ON_ARRAYS[group]):
        moved = np.empty(size * size)
        moved[window_action(group, size)[g]] = (
            array.ravel()
        )  # the value at a cell goes where g moves the cell
        assert (moved.reshape(size, size) == move(array)).all()


def test_square_window_is_in_row_major_order_with_y_up():
    assert square_window(2).tolist() == [[-1, 1], [1, 1], [-1, -1], [1, -1]]
    assert square_window(3)[0].tolist() == [-2, 2]
    assert square_window(3)[4].tolist() == [0, 0]


@pytest.mark.parametrize("size", [1, 3, 5, 7, 9])
def test_hexagonal_window_is_a_hexagon(size):
    cells, radius = hexagonal_window(size), size // 2
    assert len(cells) == len({tuple(c) for c in cells.tolist()}) == 3 * radius * (radius + 1) + 1
    q, r = (cells // 2).T
    assert (np.maximum.reduce([abs(q), abs(r), abs(q + r)]) <= radius).all()


@pytest.mark.parametrize("size", [3, 5])
def test_hexagonal_cells_turn_by_sixty_degrees(size):
    basis = np.array([[1.0, 0.5], [0.0, 3**0.5 / 2]])
    sites = hexagonal_window(size) @ basis.T
    turn = np.array([[cos(pi / 3), -sin(pi / 3)], [sin(pi / 3), cos(pi / 3)]])
    np.testing.assert_allclose(sites[window_action(C6, size, "hexagonal")[1]], sites @ turn.T, atol=1e-12)


def test_even_hexagonal_windows_are_refused():
    with pytest.raises(ValueError, match=r"odd size for a hexagonal window.*got 4"):
        hexagonal_window(4)


@pytest.mark.parametrize("group", [C3, C6, D3, D6], ids=str)
@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_three_and_six_fold_groups_do_not_fit_square_windows(group, size):
    with pytest.raises(
        ValueError, match=f"{group} does not map a square {size}-window to itself.*D6 fit hexag"
    ):
        window_action(group, size)


@pytest.mark.parametrize("group", [C4, D1, D2, D4], ids=str)
def test_four_fold_groups_do_not_fit_hexagonal_windows(group):
    with pytest.raises(ValueError, match=f"{group} does not map a hexagonal 3-window"):
        window_action(group, 3, "hexagonal")


def test_unknown_lattices_are_refused():
    with pytest.raises(ValueError, match="'square' or 'hexagonal', got 'cubic'"):
        window_action(C4, 3, "cubic")


@pytest.mark.parametrize(("group", "size", "lattice"), [w for w in WINDOWS if w[1] <= 5], ids=str)
def test_intertwiners_between_all_pairs_of_representations(group, size, lattice):
    """Constant on orbits, different on different orbits: as many parameters as Burnside's lemma counts."""
    cells = window_action(group, size, lattice)
    reps = [Representation(group, members) for members in group.subgroups()]
    for out_rep in reps:
        for in_rep in reps:
            index, count = intertwiner_index(out_rep, in_rep, size, lattice)
            require_intertwiner(index, out_rep, in_rep, cells)
            assert count == burnside(out_rep.action, in_rep.action, cells)
            assert set(index.ravel().tolist()) == set(range(count))


def require_intertwiner(index, out_rep, in_rep, cells):
    for g in out_rep.group.everything:
        moved = index[np.ix_(out_rep.action[g], in_rep.action[g], cells[g])]
        assert (moved == index).all(), f"not constant on the orbits of element {g}"


def burnside(*actions):
    """Orbits on the product of the sets: the mean number of fixed points."""
    fixed = np.prod([(a == np.arange(a.shape[1])).sum(axis=1) for a in actions], axis=0)
    orbits, rest = divmod(int(fixed.sum()), len(fixed))
    assert rest == 0
    return orbits


@pytest.mark.parametrize("group", SQUARE, ids=str)
@pytest.mark.parametrize("in_rep", [trivial, regular])
def test_the_first_row_of_a_regular_output_holds_the_base_filter(group, in_rep):
    index, count = intertwiner_index(regular(group), in_rep(group), 3)
    assert count == index[0].size
    assert (index[0].ravel() == np.arange(count)).all()


def test_parameters_are_numbered_by_first_appearance():
    index, count = intertwiner_index(quotient(D4, D1), quotient(D4, C2), 4)
    _, first = np.unique(index, return_index=True)
    assert len(first) == count
    assert (np.diff(first) > 0).all()


def test_known_counts():
    """A p4m scalar-to-scalar 3x3 filter has centre, edge and corner; a p4 one the same; a z2 one all nine."""
    for group, count in ((D4, 3), (C4, 3), (D2, 4), (C2, 5), (D1, 6), (C1, 9)):
        assert intertwiner_index(trivial(group), trivial(group), 3)[1] == count


def test_a_broken_index_fails():
    index = intertwiner_index(regular(D4), regular(D4), 3)[0].copy()
    index[0, 0, 0], index[0, 0, 1] = index[0, 0, 1], index[0, 0, 0]
    with pytest.raises(AssertionError, match="not constant on the orbits"):
        require_intertwiner(index, regular(D4), regular(D4), window_action(D4, 3))


def test_representations_of_two_groups_are_refused():
    with pytest.raises(ValueError, match="expected one group, got C4 in and D4 out"):
        intertwiner_index(regular(D4), regular(C4), 3)


def test_tables_are_read_only():
    for table in (window_action(D4, 3), intertwiner_index(regular(D4), regular(D4), 3)[0]):
        with pytest.raises(ValueError, match="read-only"):
            table[0] = 1
