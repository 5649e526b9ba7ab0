"""Spectral norms against dense singular values, and the derivatives of the layers they normalise."""

import copy
import math

import pytest
import torch
from torch.func import functional_call
from torch.nn.functional import conv2d

from eqgan.groups import P2, P2MM, P4, P4M, SQUARE_PLANE_GROUPS, Z2, quotient, regular, scalar
from eqgan.nn import GroupConv2d, LiftingConv2d, SpectralLinear, linear
from eqgan.testing import assert_equivariant

KINDS = pytest.mark.parametrize("kind", ["filter", "bank", "operator"])
PAIRS = {
    "p4-lift": (scalar(P4, 2), regular(P4, 2)),
    "p4-regular": (regular(P4, 2), regular(P4, 3)),
    "p4m-regular": (regular(P4M, 1), regular(P4M, 1)),
    "p4m-quotient": (regular(P4M, 1), quotient(P4M, P4, 3)),
    "z2": (scalar(Z2, 3), scalar(Z2, 2)),
}
TYPES = pytest.mark.parametrize(("in_type", "out_type"), PAIRS.values(), ids=PAIRS)


def converged(in_type, out_type, kind, size=6, kernel=3, steps=400, **options):
    torch.manual_seed(0)
    layer = GroupConv2d(in_type, out_type, kernel, spectral=kind, input_size=size, bias=False, **options)
    layer.double()
    layer.iterate_norm(steps)
    return layer.eval()


def sigma(layer):
    """The number by which the layer divides."""
    return (layer.expand(layer.weight).norm() / layer.filter_bank().norm()).item()


def dense(layer, bank, size):
    """The convolution as a matrix: its columns are the images of the unit maps."""
    channels = layer.in_type.channels
    units = torch.eye(channels * size * size, dtype=bank.dtype).view(-1, channels, size, size)
    return conv2d(units, bank, None, layer.stride, layer.padding).flatten(1).T


def largest(matrix):
    return torch.linalg.svdvals(matrix)[0].item()


@TYPES
def test_filter_and_bank_norms_are_the_largest_singular_values(in_type, out_type):
    layer = converged(in_type, out_type, "filter")
    assert sigma(layer) == pytest.approx(largest(layer.weight.flatten(1)), rel=1e-8)
    layer = converged(in_type, out_type, "bank")
    assert sigma(layer) == pytest.approx(largest(layer.expand(layer.weight).flatten(1)), rel=1e-8)
    assert largest(layer.filter_bank().flatten(1)) == pytest.approx(1, rel=1e-8)


@TYPES
@pytest.mark.parametrize(("stride", "padding", "size"), [(1, 0, 6), (1, 1, 5), (2, 1, 7), (2, 0, 7)])
def test_operator_norm_is_that_of_the_dense_matrix(in_type, out_type, stride, padding, size):
    layer = converged(in_type, out_type, "operator", size, stride=stride, padding=padding, steps=1500)
    matrix = dense(layer, layer.expand(layer.weight), size)
    assert sigma(layer) == pytest.approx(largest(matrix), rel=1e-5)
    assert largest(dense(layer, layer.filter_bank(), size)) == pytest.approx(1, rel=1e-5)


def test_operator_norm_where_the_plain_convolution_drops_rows():
    layer = converged(scalar(Z2, 2), scalar(Z2, 2), "operator", 6, stride=2, padding=0, steps=1500)
    assert sigma(layer) == pytest.approx(largest(dense(layer, layer.expand(layer.weight), 6)), rel=1e-5)


@pytest.mark.parametrize("group", SQUARE_PLANE_GROUPS.values(), ids=str)
@pytest.mark.parametrize("lift", [True, False])
def test_the_bank_norm_lies_between_one_and_root_order_times_the_filter_norm(group, lift):
    """Why the kinds have names: normalising the stored filter leaves the bank up to sqrt|G| too large."""
    in_type = scalar(group, 2) if lift else regular(group, 2)
    ratios = []
    for seed in range(8):
        torch.manual_seed(seed)
        layer = GroupConv2d(in_type, regular(group, 2), 3).double()
        ratios.append(largest(layer.expand(layer.weight).flatten(1)) / largest(layer.weight.flatten(1)))
    assert min(ratios) >= 1 - 1e-12
    assert max(ratios) <= math.sqrt(group.order) + 1e-12
    if group.order > 1:
        assert max(ratios) > 1.01


@pytest.mark.parametrize(
    ("group", "filter_", "ratio"),
    [
        (P4, [[1.0, 0, 0], [0, 0, 0], [0, 0, 0]], 1),  # four turns of a corner: orthogonal
        (P4M, [[1.0, 0, 0], [0, 0, 0], [0, 0, 0]], math.sqrt(2)),  # each corner twice
        (P4M, [[0, 0, 0], [0, 1.0, 0], [0, 0, 0]], math.sqrt(8)),  # the centre eight times
    ],
)
def test_both_ends_of_that_range_are_met(group, filter_, ratio):
    layer = LiftingConv2d(scalar(group, 1), regular(group, 1), 3)
    bank = layer.expand(torch.tensor(filter_).view(1, 1, 9))
    assert largest(bank.flatten(1)) == pytest.approx(ratio)


def test_the_operator_norm_is_another_number_than_the_banks():
    layer = converged(regular(P4, 2), regular(P4, 2), "bank", padding=1)
    assert abs(largest(dense(layer, layer.filter_bank(), 6)) - 1) > 0.2


@KINDS
def test_training_iterates_once_a_pass_and_eval_never(kind):
    torch.manual_seed(0)
    layer = GroupConv2d(regular(P4, 1), regular(P4, 2), 3, spectral=kind, input_size=6)
    x = torch.randn(2, 4, 6, 6)
    state = {name: b.clone() for name, b in layer.norm.named_buffers()}
    with torch.no_grad():
        for _ in range(3):
            layer.eval()(x)
    layer(x)
    assert all(torch.equal(b, state[name]) for name, b in layer.norm.named_buffers())
    twin = copy.deepcopy(layer.norm)
    with torch.no_grad():
        twin.iterate(layer._normed(), 1)
    layer.train()(x)
    assert not all(torch.equal(b, state[name]) for name, b in layer.norm.named_buffers())
    for name, b in layer.norm.named_buffers():
        torch.testing.assert_close(b, dict(twin.named_buffers())[name])


@KINDS
def test_vectors_are_state_and_a_loaded_layer_goes_on_with_them(kind):
    layers = []
    for seed in range(2):
        torch.manual_seed(seed)
        layers.append(GroupConv2d(regular(P4, 1), regular(P4, 2), 3, spectral=kind, input_size=6))
    first, second = layers
    x = torch.randn(2, 4, 6, 6)
    second.load_state_dict(first.state_dict())
    for _ in range(3):
        assert torch.equal(first(x), second(x))
    assert any(name.startswith("norm.") for name in first.state_dict())


@KINDS
def test_two_passes_before_one_backward(kind):
    """Reals and fakes: the second pass's power iteration must not touch what the first one saved."""
    torch.manual_seed(0)
    layer = GroupConv2d(regular(P4, 1), regular(P4, 2), 3, spectral=kind, input_size=6)
    x = torch.randn(2, 4, 6, 6)
    (layer(x).square().mean() - layer(x + 1).square().mean()).backward()
    assert torch.isfinite(layer.weight.grad).all()


@KINDS
def test_equivariant_however_far_the_iteration_has_come(kind):
    for steps in (0, 1, 50):
        layer = converged(regular(P4M, 1), regular(P4M, 1), kind, steps=steps)
        assert_equivariant(layer, torch.randn(1, 8, 6, 6, dtype=torch.float64))


def test_the_norm_is_close_from_the_start():
    """15 steps at construction: the first training step does not divide by a number far too small."""
    torch.manual_seed(0)
    for kind in ("filter", "bank"):
        layer = GroupConv2d(regular(P4, 4), regular(P4, 4), 3, spectral=kind).eval()
        assert sigma(layer) == pytest.approx(largest(layer._normed()), rel=0.05)
    dense_layer = SpectralLinear(20, 30).eval()
    assert dense_layer.norm(dense_layer.weight).item() == pytest.approx(largest(dense_layer.weight), rel=0.05)


def test_spectral_linear():
    torch.manual_seed(0)
    layer = SpectralLinear(5, 7).double()
    x = torch.randn(400, 5, dtype=torch.float64)
    for _ in range(200):
        layer(x)
    layer.eval()
    torch.testing.assert_close(
        layer(x), x @ (layer.weight / torch.linalg.matrix_norm(layer.weight, 2)).T + layer.bias
    )
    before = layer.norm.u.clone()
    layer(x)
    assert torch.equal(layer.norm.u, before)
    assert {"norm.u", "norm.v"} < set(layer.state_dict())
    assert type(linear(5, 7, spectral=True)) is SpectralLinear
    assert type(linear(5, 7, spectral=False)) is torch.nn.Linear
    assert linear(5, 7, spectral=True, bias=False).bias is None


@pytest.mark.parametrize("kind", [None, "filter", "bank", "operator"])
def test_first_and_second_derivatives(kind):
    """R1 differentiates the gradient of the discriminator once more."""
    torch.manual_seed(0)
    layer = GroupConv2d(
        regular(P4, 1), quotient(P4, P2, 1), 2, stride=2, padding=1, spectral=kind, input_size=4
    )
    layer.double().eval()
    x = torch.randn(1, 4, 4, 4, dtype=torch.float64, requires_grad=True)
    weight = layer.weight.detach().clone().requires_grad_()
    bias = torch.randn(1, dtype=torch.float64, requires_grad=True)

    def call(x, weight, bias):
        return functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(call, (x, weight, bias))
    assert torch.autograd.gradgradcheck(call, (x, weight, bias))


@pytest.mark.parametrize("kind", [None, "filter", "bank", "operator"])
def test_r1_penalty_reaches_the_weights(kind):
    torch.manual_seed(0)
    layer = LiftingConv2d(scalar(P2MM, 1), regular(P2MM, 2), 3, spectral=kind, input_size=5)
    x = torch.randn(3, 1, 5, 5, requires_grad=True)
    (slope,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    slope.square().sum().backward()
    assert layer.weight.grad.abs().sum() > 0


def test_wrong_kinds_are_refused():
    with pytest.raises(ValueError, match=r"spectral='operator' .* give input_size"):
        GroupConv2d(regular(P4, 1), regular(P4, 1), 3, spectral="operator")
    with pytest.raises(ValueError, match="a window of 3 does not fit a 2x2 map"):
        GroupConv2d(regular(P4, 1), regular(P4, 1), 3, spectral="operator", input_size=2)


def test_an_unknown_kind_is_refused(without_shape_checks):
    with pytest.raises(ValueError, match=r"expected spectral in \('filter', 'bank', 'operator'\).*got 'raw'"):
        GroupConv2d(regular(P4, 1), regular(P4, 1), 3, spectral="raw")
