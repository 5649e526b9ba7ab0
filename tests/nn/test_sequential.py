"""Chains of layers check their types when they are built."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from eqgan.groups import P2, P4, P4M, regular, scalar
from eqgan.nn import AvgPool2d, FieldSequential, GroupConv2d, GroupPool, LiftingConv2d, Restrict


def layers():
    return [
        LiftingConv2d(scalar(P4, 1), regular(P4, 2), 3),
        nn.ReLU(),
        AvgPool2d(regular(P4, 2), 2),
        GroupConv2d(regular(P4, 2), regular(P4, 3), 2),
        GroupPool(regular(P4, 3)),
    ]


def test_types_are_those_of_the_ends():
    chain = FieldSequential(*layers())
    assert (chain.in_type, chain.out_type) == (scalar(P4, 1), scalar(P4, 3))
    parts = nn.Sequential(*chain)
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(chain(x), parts(x))
    assert set(chain.state_dict()) == set(parts.state_dict())


def test_slices_and_named_layers_are_checked_too():
    chain = FieldSequential(*layers())
    assert (chain[:2].in_type, chain[:2].out_type) == (scalar(P4, 1), regular(P4, 2))
    assert chain[1:3].in_type == regular(P4, 2)
    named = FieldSequential(OrderedDict(lift=chain[0], pool=GroupPool(regular(P4, 2))))
    assert named.out_type == scalar(P4, 2)
    assert named.pool is named[1]
    with pytest.raises(ValueError, match="layer 1"):
        FieldSequential(OrderedDict(lift=chain[0], pool=GroupPool(regular(P4, 3))))


def test_chains_nest():
    inner = FieldSequential(*layers()[:3])
    outer = FieldSequential(inner, *layers()[3:])
    assert (outer.in_type, outer.out_type) == (scalar(P4, 1), scalar(P4, 3))


@pytest.mark.parametrize("wrong", [regular(P4, 3), regular(P4M, 1), regular(P2, 4), scalar(P4, 8)], ids=str)
def test_mismatched_types_are_refused_with_both_names(wrong):
    first = layers()[0]
    message = f"layer 2 .AvgPool2d. expects {wrong}, but the layers before it give 2 x p4 regular"
    with pytest.raises(ValueError, match=message):
        FieldSequential(first, nn.ReLU(), AvgPool2d(wrong, 2))


def test_a_restriction_lets_the_group_change():
    chain = FieldSequential(Restrict(regular(P4, 1), P2), GroupConv2d(regular(P2, 2), regular(P2, 1), 3))
    assert chain.out_type == regular(P2, 1)


def test_layers_without_types_leave_none():
    chain = FieldSequential(nn.ReLU(), nn.Identity())
    assert chain.in_type is None
    assert chain.out_type is None
    x = torch.randn(2, 3)
    assert torch.equal(chain(x), x.relu())
