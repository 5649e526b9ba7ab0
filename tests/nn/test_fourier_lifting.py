"""Lifting by the engine is the bank's: every shape and type, gradients, second derivatives, and the law."""

import copy
import dataclasses
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from eqgan.groups import P2, P2MM, P4, P4M, PM, regular, scalar
from eqgan.nn import GroupPool, LiftingConv2d
from eqgan.nn.fourier import choice, convolution_paths, engine, lifting
from eqgan.nn.fourier.tables import FilterTables
from eqgan.nn.fourier.window import flat_generators
from eqgan.testing import assert_equivariant
from tests.nn.against_bank import (
    as_if_measured,
    bank_values,
    close,
    compare_compiled,
    compare_gradients,
    compare_penalties,
    compare_vmap_and_jvp,
    compare_whatever_the_strides,
    needs_engine,
)
from tests.oracles.conv import lifting_convolution

op = torch.ops.eqgan.group_conv2d
PLANES = [P2, P4, PM, P2MM, P4M]
pytestmark = pytest.mark.usefixtures("forced")


def make(plane=P4, planes_in=2, fields_out=3, size=3, padding=1, **options) -> LiftingConv2d:
    torch.manual_seed(0)
    layer = LiftingConv2d(
        scalar(plane, planes_in), regular(plane, fields_out), size, padding=padding, **options
    )
    nn.init.uniform_(layer.bias)
    return layer


@st.composite
def cases(draw):
    """Outputs of 16 sites and more, and with a stride sites that no window reaches."""
    size, stride = draw(st.integers(1, 5)), draw(st.sampled_from([1, 1, 2, 2, 3]))
    padding = draw(st.integers(0, size + 1))

    def side(least, most):
        outputs = st.integers(least, most).filter(lambda n: (n - 1) * stride + size > 2 * padding)
        made = draw(outputs)
        return made, (made - 1) * stride + size - 2 * padding + draw(st.integers(0, stride - 1))

    out_height, height = side(1, 19)
    _, width = side(-(-16 // out_height), 40)
    return SimpleNamespace(
        plane=draw(st.sampled_from(PLANES)),
        planes_in=draw(st.integers(1, 6)),
        fields_out=draw(st.integers(1, 9)),
        window=(size, padding),
        stride=stride,
        shape=(draw(st.integers(0, 4)), height, width),
        isa=draw(st.integers(0, 3)),
        dtype=draw(st.sampled_from([torch.float32, torch.bfloat16])),
    )


@needs_engine
@settings(deadline=None, max_examples=60, derandomize=True)
@given(case=cases())
def test_any_shape_on_every_instruction_set(case):
    layer = make(case.plane, case.planes_in, case.fields_out, *case.window)
    with torch.no_grad():  # where bfloat16 is multiplied the filter is rounded to it
        layer.weight.copy_(layer.weight.to(case.dtype))
    best = engine.engine(case.plane.point_group)
    native = engine.Engine(case.plane.point_group, best.library, min(case.isa, best.isa))
    chosen, window = lifting.Lifting(native), (*case.window, case.stride)
    batch, height, width = case.shape
    x = torch.randn(batch, case.planes_in, height, width).to(case.dtype)
    weight, bias = layer.weight.detach(), layer.bias.detach()
    y = chosen.forward(x, weight, bias, *window)
    assert y.dtype == case.dtype
    grad = torch.randn_like(y)
    layer.stride, layer.output_size = case.stride, lambda side: None  # whatever the symmetry says of it
    exact, gradients = bank_values(layer, x, grad)
    tolerance = 5e-6 if case.dtype == torch.float32 else 2**-8  # sums in float32, rounded once
    close(y, exact.detach(), tolerance)
    compare_gradients(chosen, (grad, x, weight, *window), gradients, tolerance)


@needs_engine
def test_large_maps_are_cut_into_blocks():
    layer = make(P4, 3, 5, size=5, padding=4)
    x = torch.randn(2, 3, 150, 61, requires_grad=True)
    y = layer(x)
    grad = torch.randn_like(y)
    exact, gradients = bank_values(layer, x, grad)
    close(y.detach(), exact.detach())
    for ours, theirs in zip(torch.autograd.grad(y, (x, layer.weight, layer.bias), grad), gradients):
        close(ours, theirs)


@needs_engine
@pytest.mark.parametrize("plane", PLANES, ids=str)
@pytest.mark.parametrize(
    ("size", "padding", "stride", "side"), [(4, 2, 1, 7), (4, 1, 2, 8), (3, 1, 2, 9)], ids=str
)
def test_the_law(plane, size, padding, stride, side):
    layer = make(plane, size=size, padding=padding, stride=stride).eval()
    x = torch.randn(2, 2, side, side)
    assert layer._fourier.takes(x, layer.weight)
    assert_equivariant(layer, x, rtol=1e-6)


@needs_engine
def test_a_wrong_table_breaks_the_law(monkeypatch):
    """Of windows that only half of the elements turn."""
    layer, tables = make().eval(), FilterTables(P4.point_group, 3)
    tables.lifting_entry[2:] = tables.lifting_entry[:2]
    monkeypatch.setattr(lifting, "filter_tables", lambda group, size: tables)
    with pytest.raises(AssertionError):
        assert_equivariant(layer, torch.randn(2, 2, 7, 7), rtol=1e-6)


@pytest.mark.parametrize("plane", [P4, P4M], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
def test_the_operator_is_the_definition(plane, dtype, stride):
    """The sum of the docstring, site by site: by the bank and by the engine."""
    torch.manual_seed(0)
    x, weight = torch.randn(2, 3, 6, 11, dtype=dtype), torch.randn(2, 3, 9, dtype=dtype)
    windows = weight.unflatten(2, (3, 3)).double().numpy()
    expected = torch.as_tensor(lifting_convolution(plane.name, x.double().numpy(), windows, stride, 1))
    ours = op(x, weight, None, flat_generators(plane.point_group), 3, 1, stride)
    close(ours.unflatten(1, (2, -1)), expected, 1e-12 if dtype == torch.float64 else 2e-6)


def test_whatever_the_strides():
    compare_whatever_the_strides(make(), torch.randn(3, 2, 7, 5))


@pytest.mark.parametrize("stride", [1, 2])
def test_all_derivatives_in_float64(stride):
    generators = flat_generators(P4.point_group)
    shapes = (2, 2, 4, 5), (3, 2, 9), (3,)
    arguments = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]

    def function(*tensors):
        return op(*tensors, generators, 3, 1, stride)

    assert torch.autograd.gradcheck(function, arguments, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, arguments, fast_mode=True)


@needs_engine
@pytest.mark.parametrize("spectral", [None, "filter", "bank", "operator"])
@pytest.mark.parametrize(("size", "stride", "side"), [(3, 1, 6), (4, 2, 10)], ids=str)
def test_double_backward_as_in_gradient_penalties(spectral, size, stride, side):
    layer = make(P4M, 2, 2, size, stride=stride, spectral=spectral, input_size=side)
    x = torch.randn(2, 2, side, side)
    assert layer._fourier.takes(x, layer.weight)
    compare_penalties(layer, x)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # inside opcheck
@pytest.mark.parametrize("stride", [1, 2])
def test_what_torch_asks_of_an_operator(stride):
    generators = flat_generators(P4.point_group)
    x, weight, bias = torch.randn(2, 2, 9, 12), torch.randn(3, 2, 9), torch.randn(3)
    for tensor in (x, weight, bias):
        tensor.requires_grad_()
    torch.library.opcheck(op.default, (x, weight, bias, generators, 3, 1, stride))
    grad = torch.randn(2, 12, 9 // stride + stride - 1, 12 // stride, requires_grad=True)
    backward = torch.ops.eqgan.group_conv2d_backward.default
    torch.library.opcheck(
        backward, (grad, x, weight, generators, 3, 1, stride, False, False, [], True, True, True)
    )


@needs_engine
@pytest.mark.parametrize("plane", [P4, P4M], ids=str)
def test_under_autocast(plane):
    layer = make(plane, 1, 3)
    x = torch.randn(3, 1, 9, 7).bfloat16().float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    grad = torch.randn_like(y)
    exact, gradients = bank_values(layer, x, grad)
    close(y.detach(), exact.detach(), 2**-7)
    for ours, theirs in zip(torch.autograd.grad(y, (x, layer.weight, layer.bias), grad), gradients):
        close(ours, theirs, 2**-7)


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_compiled_in_one_graph_and_exported():
    compare_compiled(make(spectral="bank"), torch.randn(2, 2, 6, 6))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_vmap_and_forward_differentiation():
    compare_vmap_and_jvp(make(), torch.randn(2, 3, 2, 5, 5))


@pytest.mark.parametrize("spectral", [None, "bank"])
def test_in_eval_it_follows_the_weights(spectral):
    layer, x = make(spectral=spectral).eval(), torch.randn(2, 2, 6, 6)
    with torch.no_grad():
        before = layer(x)
        assert torch.equal(layer(x), before)
        layer.weight.data.mul_(-1.5).add_(0.1)
        reference = copy.deepcopy(layer)
        reference._fourier = None
        torch.testing.assert_close(layer(x), reference(x), rtol=1e-4, atol=1e-5)


@needs_engine
def test_as_many_threads_as_torch_has():
    layer, x = make(P4, 1, 4), torch.randn(9, 1, 13, 11, requires_grad=True)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            y = layer(x)
            results.append((y.detach(), *torch.autograd.grad(y.square().sum(), (x, layer.weight))))
    finally:
        torch.set_num_threads(before)
    for y, of_x, of_weight in results[1:]:
        assert torch.equal(y, results[0][0]), "the same sums whoever makes them"
        assert torch.equal(of_x, results[0][1])
        torch.testing.assert_close(of_weight, results[0][2], rtol=1e-4, atol=1e-3)


@needs_engine
def test_maps_that_fill_no_vector_are_the_banks():
    layer = make(padding=0)
    assert convolution_paths(layer, torch.randn(1, 2, 6, 6)) == {"": "fourier"}
    assert convolution_paths(layer, torch.randn(1, 2, 5, 5)) == {"": "bank"}, "nine sites fill no vector"
    small = torch.randn(2, 2, 5, 5)
    exact, _ = bank_values(layer, small, torch.ones(2, 12, 3, 3))
    close(op(small, layer.weight, layer.bias, layer._fourier.generators, 3, 0).detach(), exact.detach())


@needs_engine
def test_maps_whose_strides_say_channels_last_stay_so():
    """Of one channel every format holds; convolutions follow the strides, and so do the maps after them."""
    layer = make(P4, 1, 3)
    path = dataclasses.replace(layer._fourier, forced=False)
    last = torch.randn(2, 6, 6, 1).permute(0, 3, 1, 2)
    assert path.takes(last.contiguous().clone(memory_format=torch.contiguous_format), layer.weight)
    assert not path.takes(last, layer.weight)


def test_wrong_shapes_are_named():
    generators = flat_generators(P4.point_group)
    with pytest.raises(ValueError, match=r"or, to lift, x \(batch, in, height, width\)"):
        op(torch.randn(2, 3, 5, 5), torch.randn(3, 2, 9), None, generators, 3, 1)
    with pytest.raises(ValueError, match="36 weights a pair, or 9 to lift, got 10"):
        op(torch.randn(2, 8, 5, 5), torch.randn(3, 2, 10), None, generators, 3, 1)


@needs_engine
@pytest.mark.parametrize(("stride", "fit"), [(1, "lifting"), (2, "strided_lifting")])
def test_chosen_apart_where_images_want_a_gradient(monkeypatch, stride, fit):
    """As in a generator's step; a dense convolution's gradient of one plane is slow."""
    monkeypatch.setenv("EQGAN_CONV", "auto")
    slow, fast = [0.0] * 4 + [9.0, 9.0, 9.0], [0.0] * 6 + [1e-3]
    bank = [0.0, 0.0, 0.1, 0.0, 0.0]
    times = {kind: {"fourier": slow, "bank": bank} for kind in choice.LIFTING_KINDS}
    times["images"] = {"fourier": fast, "bank": bank}
    as_if_measured(monkeypatch, fit, times, margin=0.8)
    layer, x = make(stride=stride), torch.randn(2, 2, 9, 9)
    wanted = x.clone().requires_grad_()
    assert layer._fourier.takes(wanted, layer.weight)
    assert not layer._fourier.takes(x, layer.weight)
    with torch.no_grad():
        assert not layer._fourier.takes(wanted, layer.weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert not layer._fourier.takes(wanted, layer.weight)
    assert make(stride=3 - stride)._fourier is None, "not measured"
    first = LiftingConv2d(scalar(P4, 1), regular(P4, 2), 3, padding=1)
    again = nn.Sequential(first, GroupPool(regular(P4, 2)), layer)
    taken = {"0": "bank", "2": "fourier"}
    assert convolution_paths(again, x[:, :1]) == taken, "lifted again: its input wants a gradient"
    times["training"] = times.pop("images")
    layer = make(stride=stride)
    assert layer._fourier.takes(wanted, layer.weight), "as in training where nobody measured it"


def test_what_images_move_of_each_output_site():
    """With a stride, as many planes' sites are read as it skips."""
    once, halved = (choice.Work.of(choice.Layer(P4.point_group, 4, 3, 2, True, s)) for s in (1, 2))
    assert once.values == (3, 8)
    assert halved.values == (12, 8)
    assert once.features == halved.features == (48, 8)
