"""Outputs, gradients and gradients of gradients of the operator, for any layer: its bank's, by torch."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eqgan.groups import P2, P2MM, P4, P4M, PM
from eqgan.nn.fourier import by_bank
from eqgan.nn.fourier.window import flat_generators
from tests.nn.against_bank import close, needs_engine, subgroups

KINDS = "regular", "quotient", "lifting", "strided", "transposed", "cut"


@st.composite
def layers(draw):
    """A window and maps that it fits, of every kind of layer."""
    plane, kind = draw(st.sampled_from([P2, P4, PM, P2MM, P4M])), draw(st.sampled_from(KINDS))
    fields = draw(st.integers(1, 5)), draw(st.integers(1, 7))
    more = st.integers(0, 9)
    members = draw(st.sampled_from(subgroups(plane))) if kind == "quotient" and plane.order > 2 else ()
    if kind in ("regular", "quotient", "lifting"):
        size = draw(st.integers(1, 5))
        stride = 1 if kind != "lifting" else draw(st.integers(1, 3))
        padding = draw(st.integers(0, size))
        sides = [max(1, size - 2 * padding) + 4 * stride + draw(more) for _ in range(2)]
    else:
        stride = draw(st.integers(2, 3))
        cells = draw(st.integers(1, 3))
        size, padding = stride * cells, 0 if kind == "cut" else draw(st.integers(0, stride))
        blocks = [cells + 2 + draw(more) for _ in range(2)]
        sides = blocks if kind != "strided" else [stride * (b + 2 * padding) - 2 * padding for b in blocks]
    planes = 1 if kind == "lifting" else plane.order // max(1, len(members))
    fiber, entries = planes * (stride**2 if kind == "cut" else 1), size**2 * planes
    return SimpleNamespace(
        plane=plane,
        window=(size, padding, stride, kind == "transposed", kind == "cut", members),
        maps=(draw(st.integers(1, 3)), fields[0] * fiber, *sides),
        weights=(fields[1], fields[0], entries),
        channels_last=draw(st.booleans()),
        seed=draw(st.integers(0, 99)),
    )


def derivatives(function, tensors, seed):
    """What it gives, first derivatives, and those of a function of these, all that there are."""
    tensors = [tensor.requires_grad_() for tensor in tensors]
    y = function(*tensors)
    torch.manual_seed(seed)
    along = torch.randn(y.shape).to(y.dtype).requires_grad_()
    first = torch.autograd.grad(y, tensors, along, create_graph=True)
    scalar = sum(gradient.div(gradient.detach().abs().max() + 1).sin().sum() for gradient in first)
    second = torch.autograd.grad(scalar, (*tensors[:2], along), materialize_grads=True)
    return y.detach(), *(gradient.detach() for gradient in first), *second


def compare(layer, spoil=0.0):
    how = flat_generators(layer.plane.point_group), *layer.window
    torch.manual_seed(layer.seed)
    weight = torch.randn(layer.weights) / layer.weights[2] ** 0.5
    x, bias = torch.randn(layer.maps), torch.randn(layer.weights[0])
    kept = torch.channels_last if layer.channels_last else torch.contiguous_format
    exact = derivatives(
        lambda *each: by_bank.forward(*each, *how), [t.double() for t in (x, weight, bias)], layer.seed
    )
    ours = derivatives(
        lambda *each: torch.ops.eqgan.group_conv2d(*each, *how),
        [x.to(memory_format=kept), weight + spoil, bias],
        layer.seed,
    )
    for one, other in zip(ours, exact, strict=True):
        close(one, other, 2e-5)


@needs_engine
@settings(deadline=None, max_examples=60, derandomize=True)
@given(layer=layers())
def test_of_any_layer(layer):
    compare(layer)


def test_another_filter_would_be_seen():
    layer = SimpleNamespace(
        plane=P4,
        window=(3, 1, 1, False, False),
        maps=(2, 8, 7, 6),
        weights=(3, 2, 36),
        channels_last=False,
        seed=0,
    )
    compare(layer)
    with pytest.raises(AssertionError):
        compare(layer, spoil=0.01)
