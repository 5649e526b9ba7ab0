"""Permutation representations: functions on cosets."""

import copy
import pickle

import numpy as np
import pytest

from eqgan.groups import C4, D1, D2, D3, D4, POINT_GROUPS, Representation
from eqgan.groups.representation import quotient, regular, trivial
from tests.groups import laws

CASES = [Representation(g, h) for g in POINT_GROUPS.values() for h in g.subgroups()]
REPRESENTATIONS = pytest.mark.parametrize("rep", CASES, ids=lambda r: f"{r.group}-{r.stabiliser}")


@REPRESENTATIONS
def test_the_action_on_cosets_is_one(rep):
    laws.require_action(rep.action, rep.group.product, rep.group.identity)


@REPRESENTATIONS
def test_it_moves_cosets_as_sets(rep):
    cosets = [frozenset(row.tolist()) for row in rep.group.left_cosets(rep.stabiliser)]
    assert len(cosets) == rep.dim
    for g in rep.group.everything:
        for c, coset in enumerate(cosets):
            assert cosets[rep.action[g, c]] == {int(rep.group.product[g, h]) for h in coset}
            assert all(rep.coset_of[h] == c for h in coset)


@REPRESENTATIONS
def test_transitive_with_the_stated_stabiliser(rep):
    assert set(rep.action[:, 0]) == set(range(rep.dim))
    assert tuple(np.flatnonzero(rep.action[:, 0] == 0)) == rep.stabiliser


@REPRESENTATIONS
def test_faithful_exactly_when_no_normal_subgroup_hides_in_the_stabiliser(rep):
    group = rep.group
    core = set(rep.stabiliser)
    for g in group.everything:
        core &= {int(group.product[group.product[g, h], group.inverse[g]]) for h in rep.stabiliser}
    kernel = {g for g in group.everything if (rep.action[g] == np.arange(rep.dim)).all()}
    assert kernel == core


@pytest.mark.parametrize("group", POINT_GROUPS.values(), ids=str)
def test_regular_and_trivial(group):
    assert (regular(group).action == group.product).all()
    assert regular(group).dim == group.order
    assert regular(group).is_regular
    assert trivial(group).dim == 1
    assert trivial(group).is_trivial
    assert (trivial(group).action == 0).all()
    assert regular(group).is_trivial == (group.order == 1)


def test_names():
    assert str(regular(D4)) == "regular"
    assert str(trivial(D4)) == "trivial"
    assert str(quotient(D4, D2)) == "quotient by {0, 2, 4, 6}"


def test_copies_and_pickles_are_equal():
    rep = quotient(D4, D1)
    for other in (copy.deepcopy(rep), pickle.loads(pickle.dumps(rep))):
        assert other == rep
        assert hash(other) == hash(rep)
        assert other.action is rep.action
    assert copy.deepcopy(rep).group is D4


def test_a_broken_action_fails():
    broken = quotient(D4, D1).action.copy()
    broken[1] = broken[2]
    with pytest.raises(AssertionError, match="homomorphism"):
        laws.require_action(broken, D4.product)


def test_what_is_no_subgroup_is_refused():
    with pytest.raises(ValueError, match="D3 is not a subgroup of C4"):
        quotient(C4, D3)
    with pytest.raises(ValueError, match="not closed"):
        Representation(C4, (0, 1))
    with pytest.raises(ValueError, match=r"element numbers 0\.\.3"):
        Representation(C4, (0, 4))
