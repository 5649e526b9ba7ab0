"""Plane groups by name and field types."""

import copy
import pickle

import pytest

from eqgan.groups import (
    C4,
    D1,
    P2,
    P4,
    P4M,
    P6M,
    PLANE_GROUPS,
    PM,
    SQUARE_PLANE_GROUPS,
    Z2,
    FieldType,
    PlaneGroup,
    plane_group,
    quotient,
    regular,
    scalar,
)
from eqgan.groups import representation as reps

ORDERS = {"z2": 1, "p2": 2, "pm": 2, "p4": 4, "p2mm": 4, "p4m": 8, "p3": 3, "p3m1": 6, "p6": 6, "p6m": 12}


def test_orders_and_lattices():
    assert {name: group.order for name, group in PLANE_GROUPS.items()} == ORDERS
    assert set(SQUARE_PLANE_GROUPS) == {"z2", "p2", "p4", "pm", "p2mm", "p4m"}
    assert all(group.name == name for name, group in PLANE_GROUPS.items())


@pytest.mark.parametrize("name", PLANE_GROUPS)
def test_names_find_their_group_whatever_the_case(name):
    assert plane_group(name) is plane_group(name.upper()) is PLANE_GROUPS[name]
    assert str(plane_group(name)) == name


def test_which_group_contains_which():
    """Every pair of the square lattice, from the lists of their symmetries; across lattices nothing."""
    inside = {
        "z2": {"z2"},
        "p2": {"z2", "p2"},
        "pm": {"z2", "pm"},
        "p4": {"z2", "p2", "p4"},
        "p2mm": {"z2", "p2", "pm", "p2mm"},
        "p4m": {"z2", "p2", "pm", "p4", "p2mm", "p4m"},
    }
    for name, group in SQUARE_PLANE_GROUPS.items():
        assert {n for n, other in SQUARE_PLANE_GROUPS.items() if group.contains(other)} == inside[name]
    assert P6M.contains(PLANE_GROUPS["p3"])
    assert not P6M.contains(P2)
    assert not P6M.contains(Z2), "its translations are of another lattice"


@pytest.mark.parametrize(("alias", "name"), [("p1", "z2"), ("pmm", "p2mm"), ("P4MM", "p4m"), ("p6mm", "p6m")])
def test_other_names(alias, name):
    assert plane_group(alias) is PLANE_GROUPS[name]


@pytest.mark.parametrize(
    ("typed", "nearest"), [("p4n", "p4"), ("p4mn", "p4m"), ("z3", "z2"), ("p2m", "p2mm"), ("p66m", "p6m")]
)
def test_unknown_names_name_the_nearest(typed, nearest):
    with pytest.raises(
        ValueError, match=f"unknown plane group '{typed}'; did you mean '{nearest}.*Known: z2, p2"
    ):
        plane_group(typed)


@pytest.mark.parametrize("typed", ["", "?", "so(2)"])
def test_far_off_names_get_the_list_too(typed):
    with pytest.raises(ValueError, match=r"did you mean.*Known: z2, p2, p4, pm"):
        plane_group(typed)


@pytest.mark.parametrize("group", PLANE_GROUPS.values(), ids=str)
def test_copies_share_identity_and_pickles_are_equal(group):
    assert copy.deepcopy(group) is group
    loaded = pickle.loads(pickle.dumps(group))
    assert loaded == group
    assert hash(loaded) == hash(group)


def test_field_types_count_channels():
    assert (regular(P4M, 3).dim, regular(P4M, 3).channels) == (8, 24)
    assert (scalar(P4M, 3).dim, scalar(P4M, 3).channels) == (1, 3)
    assert (quotient(P4M, P4, 3).dim, quotient(P4M, P4, 3).channels) == (2, 6)
    assert quotient(P4M, (0, 2), 5).channels == 20
    assert regular(P6M, 2).channels == 24
    assert regular(P4, 3).with_multiplicity(7) == regular(P4, 7)


def test_field_types_are_values():
    kind = quotient(P4M, P4, 3)
    for other in (copy.deepcopy(kind), pickle.loads(pickle.dumps(kind)), quotient(P4M, (0, 1, 2, 3), 3)):
        assert other == kind
        assert hash(other) == hash(kind)
    assert copy.deepcopy(kind).group is P4M
    assert kind != quotient(P4M, P4, 4)
    assert regular(P2, 1) != regular(PM, 1)
    assert regular(Z2, 4) == scalar(Z2, 4), "of the trivial group they are the same"


def test_field_types_read_well():
    assert str(regular(P4, 16)) == "16 x p4 regular"
    assert str(scalar(P4M, 1)) == "1 x p4m trivial"
    assert str(quotient(P4M, P4, 2)) == "2 x p4m quotient by {0, 1, 2, 3}"


def test_field_types_of_another_group_are_refused():
    with pytest.raises(ValueError, match=r"of D4 \(the point group of p4m\), got one of C4"):
        FieldType(P4M, reps.regular(C4), 1)


@pytest.mark.parametrize("multiplicity", [0, -2])
def test_at_least_one_field(multiplicity):
    with pytest.raises(ValueError, match=f"at least one field, got multiplicity {multiplicity}"):
        regular(P4, multiplicity)


def test_quotients_by_what_is_no_subgroup_are_refused():
    with pytest.raises(ValueError, match="D4 is not a subgroup of C4"):
        quotient(P4, P4M, 1)
    with pytest.raises(ValueError, match="not closed"):
        quotient(P4, (0, 1), 1)


def test_a_users_own_plane_group():
    horizontal = PlaneGroup("pm-horizontal", type(D1)("D1h", (((1, 0), (0, -1)),)))
    assert horizontal.order == 2
    assert quotient(P4M, horizontal, 1).dim == 4
