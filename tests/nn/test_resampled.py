"""Convolutions beside a resampling: what the two layers compute one after the other."""

import pytest
import torch
from torch import nn

from eqgan.groups import P2, P2MM, P4, P4M, PM, SQUARE_PLANE_GROUPS, Z2, quotient, regular, scalar
from eqgan.nn import AvgPool2d, ConvAvgPool2d, GroupConv2d, PlainUpsampleConv2d, Upsample2d, UpsampleConv2d
from eqgan.nn.fourier import convolution_paths
from eqgan.testing import assert_equivariant
from tests.nn.against_bank import close, compare_penalties, needs_engine

LAYERS = [UpsampleConv2d, ConvAvgPool2d]


def make(layer, kinds, size=3, **options):
    torch.manual_seed(0)
    made = layer(*kinds, size, **options)
    if made.bias is not None:
        nn.init.uniform_(made.bias)
    return made


def one_after_the_other(layer, size):
    """The two layers, in float64, with its parameters."""
    conv = GroupConv2d(layer.in_type, layer.out_type, size, padding="same", bias=layer.bias is not None)
    conv = conv.double()
    conv.load_state_dict(layer.state_dict())
    conv._fourier = None
    if isinstance(layer, UpsampleConv2d):
        return nn.Sequential(Upsample2d(layer.in_type), conv)
    return nn.Sequential(conv, AvgPool2d(layer.out_type, 2))


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("plane", SQUARE_PLANE_GROUPS.values(), ids=str)
def test_the_bank_is_the_two_layers(plane, layer, size):
    whole = plane.point_group.everything
    for kinds in (
        (regular(plane, 2), regular(plane, 3)),
        (scalar(plane, 2), regular(plane, 1)),
        (regular(plane, 1), quotient(plane, whole, 2)),
    ):
        made = make(layer, kinds, size, bias=size != 5)
        reference = one_after_the_other(made, size)
        x = torch.randn(2, kinds[0].channels, 6, 8, dtype=torch.float64)
        torch.testing.assert_close(made.double()(x), reference(x), rtol=0, atol=1e-12)


@needs_engine
@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("plane", [P2, P4, PM, P2MM, P4M], ids=str)
def test_the_fast_path_is_the_two_layers(plane, layer, size, monkeypatch):
    monkeypatch.setenv("EQGAN_CONV", "fourier")
    made = make(layer, (regular(plane, 2), regular(plane, 3)), size)
    reference = one_after_the_other(made, size)
    x = torch.randn(3, 2 * plane.order, 8, 6, requires_grad=True)
    assert convolution_paths(made, x) == {"": "fourier"}
    exact_x = x.detach().double().requires_grad_()
    y, exact = made(x), reference(exact_x)
    close(y.detach(), exact.detach())
    grad = torch.randn_like(y)
    wanted = exact_x, *[p for part in reference for p in part.parameters()]
    gradients = torch.autograd.grad(exact, wanted, grad.double())
    for ours, theirs in zip(
        torch.autograd.grad(y, (x, made.weight, made.bias), grad), gradients, strict=True
    ):
        close(ours, theirs, 3e-6)
    with torch.no_grad():
        for _ in range(2):  # made, then kept
            close(made.eval()(x), exact.detach())
        made.weight.data.mul_(-2)
        reference[isinstance(made, UpsampleConv2d)].weight.data.mul_(-2)
        close(made(x), reference(exact_x))
    assert_equivariant(made, x.detach()[..., :6, :], rtol=1e-6)


@needs_engine
@pytest.mark.parametrize("layer", LAYERS)
def test_double_backward_as_in_gradient_penalties(layer, monkeypatch):
    monkeypatch.setenv("EQGAN_CONV", "fourier")
    made = make(layer, (regular(P4, 2), regular(P4, 2)), spectral="bank")
    compare_penalties(made, torch.randn(2, 8, 6, 6))


@pytest.mark.parametrize("layer", LAYERS)
def test_the_window_is_kept_in_eval(layer):
    made = make(layer, (regular(P4, 1), regular(P4, 1))).eval()
    with torch.no_grad():
        kept = made.filter_bank()
        assert kept.shape == (4, 4, 4, 4)
        assert made.filter_bank() is kept
        made.weight.data.mul_(2)
        torch.testing.assert_close(made.filter_bank(), 2 * kept)


def test_a_wrong_fold_is_seen(monkeypatch):
    """Equivariance alone would not tell: the windows of the other layer have the symmetry too."""
    made = make(UpsampleConv2d, (regular(P4, 1), regular(P4, 1)))
    reference = one_after_the_other(made, 3)
    monkeypatch.setattr(UpsampleConv2d, "_both", ConvAvgPool2d._both)
    made, x = made.double(), torch.randn(1, 4, 6, 6, dtype=torch.float64)
    assert_equivariant(made, x)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(made(x), reference(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_of_plain_channels_it_is_torchs(size):
    torch.manual_seed(0)
    ours = PlainUpsampleConv2d(3, 4, size).double()
    torch.manual_seed(0)
    theirs = nn.Conv2d(3, 4, size, padding=size // 2).double()
    assert torch.equal(ours.weight, theirs.weight), "it starts as nn.Conv2d does"
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(nn.Upsample(scale_factor=2)(x)), rtol=0, atol=1e-12)


def test_what_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="needs an odd kernel"):
        UpsampleConv2d(regular(P4, 1), regular(P4, 1), 4)
    with pytest.raises(ValueError, match="odd window, got one of 2"):
        PlainUpsampleConv2d(1, 1, 2)
    pool = ConvAvgPool2d(regular(P4, 1), regular(P4, 1), 3)
    with pytest.raises(ValueError, match=r"ConvAvgPool2d: stride 2 .* breaks p4 symmetry"):
        pool(torch.zeros(1, 4, 7, 7))
    monkeypatch.setenv("EQGAN_CONV", "fourier")
    with pytest.raises(ValueError, match=r"ConvAvgPool2d: stride 2 .* breaks p4 symmetry"):
        ConvAvgPool2d(regular(P4, 1), regular(P4, 1), 3)(torch.zeros(1, 4, 7, 7))
    with pytest.raises(ValueError, match="expected 4 channels"):
        pool(torch.zeros(1, 3, 8, 8))
    assert pool.output_size(8) == 4
    assert UpsampleConv2d(scalar(Z2, 1), scalar(Z2, 1), 3).output_size(7) == 14
    assert ConvAvgPool2d(scalar(Z2, 1), scalar(Z2, 1), 3)(torch.zeros(1, 1, 7, 7)).shape[-1] == 3
