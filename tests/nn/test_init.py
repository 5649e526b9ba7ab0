"""Initialisation: the bank, not the stored filter, has the stated gain."""

import pytest
import torch
from torch.nn.functional import conv2d

from eqgan.groups import P4, P4M, SQUARE_PLANE_GROUPS, quotient, regular, scalar
from eqgan.nn import GroupConv2d

GROUPS = pytest.mark.parametrize("group", SQUARE_PLANE_GROUPS.values(), ids=str)


def require_gain(bank, gain, orbits, pairs):
    """An output value for independent inputs of variance one has variance sum(row^2).

    Its mean over rows estimates gain^2. A mean of n squares of normals has relative error sqrt(2 / n), and
    the entries of an orbit move together: n is the number of stored weights, alike up to a factor of 8.
    """
    measured = bank.flatten(1).square().sum(1).mean().sqrt().item()
    error = 0.5 * (2 * 8 / (orbits * pairs)) ** 0.5
    assert measured == pytest.approx(gain, rel=4 * error)
    assert 4 * error < 0.3, "too few weights to see a factor of sqrt(2)"


@GROUPS
@pytest.mark.parametrize("gain", [1.0, 2**0.5])
@pytest.mark.parametrize("kernel", [1, 3, 4])
def test_gain_of_the_bank(group, gain, kernel):
    torch.manual_seed(0)
    fields = 48 if kernel == 1 else 24
    for in_type in (scalar(group, fields), regular(group, fields)):
        for out_type in (scalar(group, fields), regular(group, fields)):
            layer = GroupConv2d(in_type, out_type, kernel, gain=gain)
            require_gain(layer.expand(layer.weight), gain, layer.orbits, fields**2)


@pytest.mark.parametrize(("inside", "out"), [((0, 4), P4), (P4, (0, 4)), ((0, 2), (0, 4))], ids=str)
def test_gain_between_quotients(inside, out):
    torch.manual_seed(0)
    layer = GroupConv2d(quotient(P4M, inside, 24), quotient(P4M, out, 24), 3)
    require_gain(layer.expand(layer.weight), 1, layer.orbits, 24**2)


@GROUPS
def test_standard_deviation_of_real_outputs(group):
    torch.manual_seed(0)
    layer = GroupConv2d(regular(group, 16), regular(group, 32), 3)
    y = layer(torch.randn(64, 16 * group.order, 3, 3))
    assert y.std().item() == pytest.approx(1, rel=0.05)
    assert y.mean().item() == pytest.approx(0, abs=0.05)


def test_a_gain_of_the_filter_would_be_noticed():
    torch.manual_seed(0)
    layer = GroupConv2d(regular(P4M, 24), scalar(P4M, 24), 3)
    weight = torch.randn_like(layer.weight) / (24 * layer.orbits) ** 0.5 * 0.5
    with pytest.raises(AssertionError):
        require_gain(layer.expand(weight), 1, layer.orbits, 24**2)


def test_reset_draws_anew_from_torchs_generator():
    torch.manual_seed(0)
    layer = GroupConv2d(regular(P4, 2), regular(P4, 2), 3)
    first = layer.weight.detach().clone()
    torch.nn.init.ones_(layer.bias)
    layer.reset_parameters()
    assert not torch.equal(layer.weight, first)
    assert (layer.bias == 0).all()
    torch.manual_seed(0)
    assert torch.equal(GroupConv2d(regular(P4, 2), regular(P4, 2), 3).weight, first)


def test_equal_gain_whatever_the_kind_of_input():
    """A mean over the outputs of one row: what conv2d sees of the bank is what the test above measured."""
    torch.manual_seed(0)
    layer = GroupConv2d(regular(P4, 8), regular(P4, 8), 3, bias=False)
    x = torch.randn(20000, 32, 3, 3)
    with torch.no_grad():
        measured = conv2d(x, layer.filter_bank()).flatten(1).var(0)
    torch.testing.assert_close(measured, layer.filter_bank().flatten(1).square().sum(1), rtol=0.06, atol=0)
