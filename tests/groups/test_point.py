"""Point groups: the axioms over every case, known facts as data, and two re-derivations from geometry."""

import copy
import pickle
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eqgan.groups import C2, C4, C6, D1, D3, D4, D6, POINT_GROUPS, PointGroup
from tests.groups import laws
from tests.oracles import groups as oracle

GROUPS = pytest.mark.parametrize("group", POINT_GROUPS.values(), ids=str)
HEXAGONAL = {"C3", "C6", "D3", "D6"}

# order, number of subgroups, number of conjugacy classes, abelian
FACTS = {
    "C1": (1, 1, 1, True),
    "C2": (2, 2, 2, True),
    "C3": (3, 2, 3, True),
    "C4": (4, 3, 4, True),
    "C6": (6, 4, 6, True),
    "D1": (2, 2, 2, True),
    "D2": (4, 5, 4, True),
    "D3": (6, 6, 3, False),
    "D4": (8, 10, 5, False),
    "D6": (12, 16, 6, False),
}


def subgroup_cases():
    return [(group, members) for group in POINT_GROUPS.values() for members in group.subgroups()]


SUBGROUPS = pytest.mark.parametrize(("group", "members"), subgroup_cases(), ids=str)


def test_the_facts_cover_every_group():
    assert set(FACTS) == set(POINT_GROUPS) == set(oracle.GEOMETRY)


@GROUPS
def test_axioms(group):
    laws.require_group(group.product, group.inverse, group.identity)


@GROUPS
def test_faithful_action_on_the_plane(group):
    assert len({m.tobytes() for m in group.elements}) == group.order
    assert (np.abs(np.round(np.linalg.det(group.elements))) == 1).all()
    for g, h in np.ndindex(group.order, group.order):
        assert (group.elements[group.product[g, h]] == group.elements[g] @ group.elements[h]).all()


@GROUPS
def test_facts(group):
    order, subgroups, classes, abelian = FACTS[group.name]
    assert group.order == order == len(group.elements) == len(group.everything)
    assert len(group.subgroups()) == subgroups
    assert len(laws.conjugacy_classes(group.product, group.inverse)) == classes
    assert bool((group.product == group.product.T).all()) == abelian


@GROUPS
def test_elements_are_the_turns_then_the_mirrored_turns(group):
    lattice = "hexagonal" if group.name in HEXAGONAL else "square"
    ours = oracle.cartesian(group.elements, lattice)
    np.testing.assert_allclose(ours, oracle.float_matrices(group.name), atol=1e-12)


@GROUPS
def test_cayley_table_is_that_of_the_permutations_of_a_polygon(group):
    assert (group.product == oracle.cayley_table(oracle.polygon_permutations(group.name))).all()


@GROUPS
def test_every_subgroup_is_found(group):
    assert set(group.subgroups()) == oracle.all_subgroups(group.product)
    assert list(group.subgroups()) == sorted(group.subgroups(), key=lambda s: (len(s), s))


@SUBGROUPS
def test_every_subgroup_is_one(group, members):
    numbers = list(members)
    assert group.identity in members
    assert set(group.product[np.ix_(numbers, numbers)].ravel()) == set(members)
    assert set(group.inverse[numbers]) == set(members)
    assert group.order % len(members) == 0
    assert group.subgroup(members) == group.subgroup(list(reversed(members))) == members


@SUBGROUPS
def test_cosets_partition(group, members):
    left, right = group.left_cosets(members), group.right_cosets(members)
    for cosets in (left, right):
        laws.require_partition(cosets, group.order)
        assert cosets.shape == (group.order // len(members), len(members))
        assert (cosets[:, 0] == cosets.min(axis=1)).all()
        assert (np.diff(cosets[:, 0]) > 0).all()
    for row in left:
        assert set(row) == {group.product[row[0], h] for h in members}
    for row in right:
        assert row.tolist() == [group.product[h, row[0]] for h in members]


@SUBGROUPS
def test_left_and_right_cosets_agree_for_normal_subgroups_only(group, members):
    conjugates = {
        tuple(sorted(int(group.product[group.product[g, h], group.inverse[g]]) for h in members))
        for g in group.everything
    }
    left = {frozenset(row.tolist()) for row in group.left_cosets(members)}
    right = {frozenset(row.tolist()) for row in group.right_cosets(members)}
    assert (left == right) == (conjugates == {members})


@pytest.mark.parametrize(
    ("small", "large", "members"),
    [(C2, C4, (0, 2)), (C4, D4, (0, 1, 2, 3)), (D1, D4, (0, 6)), (C6, D6, tuple(range(6))), (D4, D4, None)],
    ids=str,
)
def test_a_group_of_the_same_matrices_is_a_subgroup(small, large, members):
    assert large.subgroup(small) == (large.everything if members is None else members)


@pytest.mark.parametrize("group", [g for g in POINT_GROUPS.values() if g.order > 2], ids=str)
def test_a_broken_table_fails(group):
    broken = group.product.copy()
    broken[1, 1], broken[1, 2] = group.product[1, 2], group.product[1, 1]
    with pytest.raises(AssertionError, match="not associative"):
        laws.require_associativity(broken)
    with pytest.raises(AssertionError):
        laws.require_group(broken, group.inverse)


def test_other_broken_laws_fail():
    inverse = C4.inverse.copy()
    inverse[1] = 1
    with pytest.raises(AssertionError):
        laws.require_inverses(C4.product, inverse, 0)
    with pytest.raises(AssertionError):
        laws.require_identity(C4.product, 1)
    with pytest.raises(AssertionError, match="partition"):
        laws.require_partition(np.array([[0, 1], [1, 2]]), 4)
    with pytest.raises(AssertionError, match="homomorphism"):
        laws.require_action(C4.product[[0, 1, 3, 2]], C4.product)


@given(st.sampled_from(list(POINT_GROUPS.values())), st.data())
@settings(max_examples=60, deadline=None)
def test_words_multiply_as_matrices_do(group, data):
    word = data.draw(st.lists(st.integers(0, group.order - 1), min_size=1, max_size=12))
    number, undone = group.identity, group.identity
    for g in word:
        number = int(group.product[number, g])
        undone = int(group.product[group.inverse[g], undone])
    assert (group.elements[number] == reduce(np.matmul, group.elements[word])).all()
    assert group.inverse[number] == undone
    assert group.index(group.elements[number]) == number


@given(st.sampled_from(list(POINT_GROUPS.values())), st.data())
@settings(max_examples=60, deadline=None)
def test_subgroup_accepts_exactly_the_subgroups(group, data):
    members = tuple(sorted(data.draw(st.sets(st.integers(0, group.order - 1), min_size=1))))
    if members in group.subgroups():
        assert group.subgroup(members) == members
    else:
        with pytest.raises(ValueError, match="not closed"):
            group.subgroup(members)


@GROUPS
def test_copies_share_identity_and_pickles_are_equal(group):
    assert copy.deepcopy(group) is group
    assert copy.deepcopy([group, group])[0] is group
    loaded = pickle.loads(pickle.dumps(group))
    assert loaded == group
    assert hash(loaded) == hash(group)
    assert loaded.order == group.order
    assert loaded.product is group.product, "tables are shared by equal groups"


def test_tables_are_read_only():
    for table in (D4.elements, D4.product, D4.inverse):
        with pytest.raises(ValueError, match="read-only"):
            table[0] = 1
    with pytest.raises(AttributeError):
        D4.name = "D5"  # type: ignore[misc]


def test_equality_is_by_name_and_generators():
    assert PointGroup("C4", (((0, -1), (1, 0)),)) == C4
    assert PointGroup("C4", (((0, 1), (-1, 0)),)) != C4
    assert str(D6) == "D6"
    assert "order" not in repr(D6)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ((0, 8), "element numbers 0..7"),
        ((-1, 0), "element numbers 0..7"),
        ((), "element numbers 0..7"),
        ((0, 1), "not closed"),
        ((1,), "not closed"),
        (D3, "D3 is not a subgroup of D4"),
        (C6, "C6 is not a subgroup of D4"),
    ],
    ids=str,
)
def test_what_is_no_subgroup_is_refused(members, message):
    with pytest.raises(ValueError, match=message):
        D4.subgroup(members)


def test_unknown_elements_are_refused():
    with pytest.raises(ValueError, match=r"C4 has no element \[\[-1, 0\], \[0, 1\]\]"):
        C4.index([[-1, 0], [0, 1]])


def test_generators_of_no_finite_group_are_refused():
    with pytest.raises(ValueError, match="no finite order"):
        PointGroup("shear", (((1, 1), (0, 1)),))


def test_generators_that_do_not_normalise_are_refused():
    mirrors = PointGroup("wrong", (((1, 0), (0, -1)), ((0, 1), (1, 0))))  # they generate D4, not D2
    with pytest.raises(ValueError, match="do not close"):
        _ = mirrors.product
