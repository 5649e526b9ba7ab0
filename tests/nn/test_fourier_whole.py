"""A window as large as its map by the engine: the bank's numbers, both ways, and the layer's law."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from eqgan.groups import P2, P2MM, P4, P4M, PM, regular
from eqgan.nn import GroupConv2d
from eqgan.nn.fourier import choice, convolution_paths, engine
from eqgan.nn.fourier.tables import BlockTables
from eqgan.testing import assert_equivariant
from tests.nn.against_bank import (
    as_if_measured,
    bank_values,
    close,
    compare_compiled,
    compare_penalties,
    compare_vmap_and_jvp,
    compare_whatever_the_strides,
    layout_by,
    needs_engine,
)

PLANES = [P2, P4, PM, P2MM, P4M]
pytestmark = pytest.mark.usefixtures("forced")


def make(plane=P4, fields_in=2, fields_out=3, size=3, **options):
    torch.manual_seed(0)
    layer = GroupConv2d(regular(plane, fields_in), regular(plane, fields_out), size, **options)
    nn.init.uniform_(layer.bias)
    return layer


@st.composite
def cases(draw):
    return {
        "plane": draw(st.sampled_from(PLANES)),
        "fields": (draw(st.integers(1, 5)), draw(st.integers(1, 6))),
        "size": draw(st.integers(2, 9)),
        "batch": draw(st.sampled_from([0, 1, 2, 5, 17, 40])),
        "dtype": draw(st.sampled_from([torch.float32, torch.float32, torch.bfloat16])),
    }


@settings(deadline=None, max_examples=60, derandomize=True)
@given(case=cases())
def test_any_shape(case):
    layer = make(case["plane"], *case["fields"], case["size"])
    x = torch.randn(case["batch"], layer.in_type.channels, *[case["size"]] * 2).to(case["dtype"])
    variable, lower = x.clone().requires_grad_(), case["dtype"] == torch.bfloat16
    assert layer._fourier.covers(x)
    with torch.autocast("cpu", torch.bfloat16, enabled=lower):
        has_engine = engine.engine(case["plane"].point_group) is not None
        assert layer._fourier.takes(x, layer.weight) == (has_engine and case["batch"] > 0)
        y = layer(variable)
    grad = torch.randn_like(y)
    exact, gradients = bank_values(layer, x, grad)
    tolerance = 2**-6 if lower else 3e-6
    assert y.dtype == case["dtype"]
    close(y.detach(), exact.detach(), tolerance)
    wanted = variable, layer.weight, layer.bias
    for ours, theirs in zip(torch.autograd.grad(y, wanted, grad), gradients, strict=True):
        close(ours, theirs, tolerance)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=lower):
        close(layer.eval()(x), exact.detach(), tolerance)


@needs_engine
@pytest.mark.parametrize("plane", PLANES, ids=str)
@pytest.mark.parametrize("size", [2, 7])
def test_the_law(plane, size):
    layer = make(plane, size=size).eval()
    x = torch.randn(3, layer.in_type.channels, size, size)
    assert layer._fourier.takes(x, layer.weight)
    assert_equivariant(layer, x, rtol=1e-6)


@needs_engine
def test_a_wrong_order_breaks_the_law(monkeypatch):
    wrong = BlockTables(P4.point_group, 3)
    wrong.source = wrong.source[::-1].copy()
    monkeypatch.setattr(engine, "layout", layout_by("block_tables", lambda *_: wrong))
    with pytest.raises(AssertionError):
        assert_equivariant(make(size=3).eval(), torch.randn(3, 8, 3, 3), rtol=1e-6)


def test_whatever_the_strides_in_memory():
    compare_whatever_the_strides(make(size=4), torch.randn(3, 8, 4, 4))


@needs_engine
@pytest.mark.parametrize("spectral", [None, "filter", "bank", "operator"])
def test_double_backward_as_in_gradient_penalties(spectral):
    layer = make(P4M, 2, 2, spectral=spectral, input_size=3)
    x = torch.randn(5, 16, 3, 3)
    assert layer._fourier.takes(x, layer.weight)
    compare_penalties(layer, x)


@needs_engine
def test_larger_maps_are_not_covered_and_follow_the_weights_too():
    """One layer sees maps of its own size and larger ones, in eval, while its weights change."""
    layer = make().eval()
    small, large = torch.randn(4, 8, 3, 3), torch.randn(4, 8, 6, 6)
    assert not layer._fourier.covers(large)
    assert not layer._fourier.covers(torch.randn(4, 8, 3, 6))
    with torch.no_grad():
        for _ in range(2):
            for x in (small, large, small):
                reference = copy.deepcopy(layer)
                reference._fourier = None
                torch.testing.assert_close(layer(x), reference(x), rtol=1e-4, atol=1e-5)
            layer.weight.mul_(-1.5).add_(0.1)
    assert make(padding=1)._fourier.whole is None
    assert make(size=4, stride=2)._fourier.whole is None


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_compiled_in_one_graph_and_exported():
    compare_compiled(make(spectral="bank"), torch.randn(2, 8, 3, 3))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_vmap_and_forward_differentiation():
    compare_vmap_and_jvp(make(), torch.randn(2, 3, 8, 3, 3))


@needs_engine
def test_chosen_by_the_items_of_a_batch(monkeypatch):
    monkeypatch.setenv("EQGAN_CONV", "auto")
    fast, slow = [1000.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0, 2.0], [0.0, 0.0, 1.0, 0.0, 0.0]
    times = {kind: {"fourier": fast, "bank": slow} for kind in choice.KINDS}
    measured = as_if_measured(monkeypatch, "whole", times)
    layer = make()
    work = choice.Work.of(choice.Layer(P4.point_group, 3, 2, 3, whole=True))
    assert work.dense == 2 * 3 * 9 * 16
    assert work.moved == 2 * 9 * 4
    expected = int(1000 / (work.dense - 0.5 * work.multiplications - 2 * work.moved)) + 1
    assert layer._fourier.whole.least_items == dict.fromkeys(choice.KINDS, expected)
    enough = torch.zeros(expected, 8, 3, 3)
    assert convolution_paths(layer, enough) == {"": "fourier"}
    assert convolution_paths(layer, enough[:-1]) == {"": "bank"}
    assert convolution_paths(layer, torch.zeros(expected, 8, 5, 5)) == {"": "bank"}, "not measured"
    assert convolution_paths(layer, enough.to(memory_format=torch.channels_last)) == {"": "bank"}
    measured["regular"] = measured.pop("whole")
    assert make()._fourier.whole is None
