"""The laws that users get: they accept right maps, reject wrong ones, and refuse to judge empty ones."""

import pytest
import torch
from torch import nn

from eqgan.groups import P2, P4, P4M, PM, SQUARE_PLANE_GROUPS, regular, scalar
from eqgan.nn import GroupConv2d, GroupPool, LiftingConv2d, Restrict
from eqgan.testing import assert_equivariant, assert_invariant

X = torch.randn(2, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
GROUPS = pytest.mark.parametrize("group", SQUARE_PLANE_GROUPS.values(), ids=str)


@GROUPS
def test_right_maps_are_accepted(group):
    image = scalar(group, 1)
    assert_equivariant(lambda x: x.square() + x.mean(), X, image, image)
    assert_equivariant(LiftingConv2d(image, regular(group, 2), 3).double(), X)
    assert_invariant(lambda x: x.square().mean((1, 2, 3)), X, group)
    assert_invariant(lambda x: x.amax((2, 3)), X, group)


@pytest.mark.parametrize("group", [g for g in SQUARE_PLANE_GROUPS.values() if g.order > 1], ids=str)
def test_wrong_maps_are_rejected(group):
    image = scalar(group, 1)
    plain = nn.Conv2d(1, 2, 3).double()
    with pytest.raises(AssertionError, match=rf"not equivariant under element [1-7] of {group} \(matrix"):
        assert_equivariant(plain, X, image, scalar(group, 2))
    with pytest.raises(AssertionError, match=rf"not invariant under element [1-7] of {group}.*allowed 1e-10"):
        assert_invariant(lambda x: x[:, 0, 0, 1], X, group)


def test_the_element_that_fails_is_named():
    with pytest.raises(AssertionError, match=r"element 4 of p4m \(matrix \[\[1, 0\], \[0, -1\]\]\)"):
        assert_invariant(p4_but_not_mirror, X, P4M)
    assert_invariant(p4_but_not_mirror, X, P4)


def p4_but_not_mirror(x):
    layer = LiftingConv2d(scalar(P4, 1), regular(P4, 1), 3).double()
    weight = torch.arange(9.0, dtype=torch.float64).sin().view(1, 1, 9)
    layer.load_state_dict({"weight": weight, "bias": torch.zeros(1)})
    return layer(x).relu().mean((1, 2, 3))


def test_wrong_shapes_are_rejected():
    with pytest.raises(AssertionError, match=r"not invariant under element 1 of p4: shape \(2, 5\)"):
        assert_invariant(lambda x: x[:, 0, :, 0], X[:, :, :, :5], P4)


def test_errors_are_relative_to_the_largest_output():
    def nearly(x):
        return 1e6 * (x.mean((1, 2, 3)) + 1e-7 * x[:, 0, 0, 0])

    with pytest.raises(AssertionError, match="largest relative error"):
        assert_invariant(nearly, X, P4)
    assert_invariant(nearly, X, P4, rtol=1e-4)


@pytest.mark.parametrize(
    ("constant", "message"),
    [
        (lambda x: torch.zeros_like(x), "the output is constant"),
        (lambda x: torch.full_like(x, 3.0), "the output is constant"),
        (lambda x: 0 * x[:1] + torch.ones(1, 1, 1, 1), "the output is constant"),
        (lambda x: torch.arange(2.0).view(2, 1, 1, 1).expand(2, 1, 6, 6), "does not depend on the input"),
        (lambda x: x * 0 + torch.arange(2.0).view(2, 1, 1, 1), "does not depend on the input"),
    ],
)
def test_maps_of_which_every_law_holds_are_refused(constant, message):
    with pytest.raises(AssertionError, match=message):
        assert_equivariant(constant, X, scalar(P4, 1), scalar(P4, 1))
    with pytest.raises(AssertionError, match=message):
        assert_invariant(constant, X, P4)


def test_a_single_constant_score_is_refused():
    with pytest.raises(AssertionError, match="does not depend on the input"):
        assert_invariant(lambda x: torch.ones(1), X[:1], P4)
    assert_invariant(lambda x: x.mean((1, 2, 3)), X[:1], P4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_outputs_that_are_not_finite_are_refused(bad):
    def broken(x):
        y = x.clone()
        y[0, 0, 0, 0] = bad
        return y

    with pytest.raises(AssertionError, match="not finite"):
        assert_equivariant(broken, X, scalar(P4, 1), scalar(P4, 1))
    with pytest.raises(AssertionError, match="not finite"):
        assert_invariant(broken, X, P4)


def test_nan_for_moved_inputs_only_is_rejected():
    """NaN compares false with everything: an error that is not a number must not pass."""
    calls = iter(range(100))

    def later(x):
        return x.mean((1, 2, 3)) if next(calls) < 2 else x.mean((1, 2, 3)) * float("nan")

    with pytest.raises(AssertionError, match="relative error nan"):
        assert_invariant(later, X, P4)


def test_a_layer_that_restricts_keeps_the_law_of_the_smaller_group():
    layer = Restrict(regular(P4M, 1), P4)
    x = torch.randn(1, 8, 4, 4, dtype=torch.float64)
    assert_equivariant(layer, x)
    mirrored = GroupConv2d(regular(P4, 2), regular(P4, 1), 3).double()
    assert_equivariant(nn.Sequential(layer, mirrored), x, regular(P4M, 1), regular(P4, 1))
    with pytest.raises(AssertionError, match="not equivariant"):
        assert_equivariant(Restrict(regular(P4M, 1), P2), x, regular(P4M, 1), regular(P4M, 1))


def test_the_types_may_be_given_or_read_from_the_module():
    pool = GroupPool(regular(P4, 2))
    x = torch.randn(1, 8, 4, 4, dtype=torch.float64)
    assert_equivariant(pool, x)
    assert_equivariant(lambda x: pool(x), x, pool.in_type, pool.out_type)
    with pytest.raises(ValueError, match="give them as arguments"):
        assert_equivariant(lambda x: pool(x), x)


def test_nothing_is_left_behind():
    """No gradients, and the random stream goes on as if nothing had been asked."""
    layer = LiftingConv2d(scalar(PM, 1), regular(PM, 1), 3).double()
    state = torch.get_rng_state()
    assert_equivariant(layer, X)
    assert torch.equal(torch.get_rng_state(), state)
    assert layer.weight.grad is None


def test_rectangular_maps():
    x = torch.randn(1, 1, 5, 8, dtype=torch.float64)
    assert_equivariant(LiftingConv2d(scalar(P4M, 1), regular(P4M, 1), 3).double(), x)
    assert_invariant(lambda x: x.square().sum((1, 2, 3)), x, P2)
