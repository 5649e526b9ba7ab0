"""Strided group convolutions by blocks of sites: the bank's numbers, both ways, and the layer's law."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.utils.flop_counter import FlopCounterMode

from eqgan.groups import P2, P2MM, P4, P4M, PM, regular
from eqgan.nn import GroupConv2d, UpsampleConv2d
from eqgan.nn.fourier import by_bank, choice, convolution_paths, engine, strided
from eqgan.nn.fourier.tables import BlockTables, Form, sites_of_block
from eqgan.nn.fourier.window import flat_generators
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
op = torch.ops.eqgan.group_conv2d
pytestmark = pytest.mark.usefixtures("forced")


def make(plane=P4, fields_in=2, fields_out=3, size=4, stride=2, padding=1, **options):
    torch.manual_seed(0)
    in_type, out_type = regular(plane, fields_in), regular(plane, fields_out)
    layer = GroupConv2d(in_type, out_type, size, stride, padding, **options)
    nn.init.uniform_(layer.bias)
    return layer


@st.composite
def cases(draw):
    stride = draw(st.sampled_from([2, 2, 2, 3, 4]))
    blocks = draw(st.integers(1, 3))
    padding = draw(st.integers(0, stride))
    sides = st.integers(blocks, 10).map(lambda n: n * stride - 2 * padding).filter(lambda n: n > 0)
    return {
        "plane": draw(st.sampled_from(PLANES)),
        "fields": (draw(st.integers(1, 5)), draw(st.integers(1, 6))),
        "window": (stride * blocks, stride, padding),
        "shape": (draw(st.integers(0, 3)), draw(sides), draw(sides)),
        "dtype": draw(st.sampled_from([torch.float32, torch.float32, torch.bfloat16])),
    }


@settings(deadline=None, max_examples=60, derandomize=True)
@given(case=cases())
def test_any_shape(case):
    plane, (batch, height, width) = case["plane"], case["shape"]
    layer = make(plane, *case["fields"], *case["window"])
    x = torch.randn(batch, layer.in_type.channels, height, width).to(case["dtype"])
    variable = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=case["dtype"] == torch.bfloat16):
        assert layer._fourier.takes(x, layer.weight) == (engine.engine(plane.point_group) is not None)
        y = layer(variable)
    grad = torch.randn_like(y)
    exact, gradients = bank_values(layer, x, grad)
    tolerance = 3e-6 if case["dtype"] == torch.float32 else 2**-6
    close(y.detach(), exact.detach(), tolerance)
    wanted = variable, layer.weight, layer.bias
    for ours, theirs in zip(torch.autograd.grad(y, wanted, grad), gradients, strict=True):
        close(ours, theirs, tolerance)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=case["dtype"] == torch.bfloat16):
        kept = layer.eval()
        close(kept(x), exact.detach(), tolerance)
        close(kept(x), exact.detach(), tolerance)  # by the packed filter that was kept


@needs_engine
@pytest.mark.parametrize("plane", PLANES, ids=str)
@pytest.mark.parametrize(("size", "stride", "padding"), [(4, 2, 1), (2, 2, 0), (6, 3, 0)], ids=str)
def test_the_law(plane, size, stride, padding):
    layer = make(plane, size=size, stride=stride, padding=padding).eval()
    side = 12
    x = torch.randn(2, layer.in_type.channels, side, side)
    assert layer._fourier.takes(x, layer.weight)
    assert_equivariant(layer, x, rtol=1e-6)


@needs_engine
def test_a_wrong_table_breaks_the_law(monkeypatch):
    """Blocks whose sites do not turn with the fiber are no regular fields."""
    wrong = BlockTables(P4.point_group, 2)
    wrong.source[:, 1:] = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]).repeat_interleave(4, 0).numpy()
    monkeypatch.setattr(engine, "layout", layout_by("block_tables", lambda *_: wrong))
    with pytest.raises(AssertionError):
        assert_equivariant(make().eval(), torch.randn(2, 8, 8, 8), rtol=1e-6)


def test_whatever_the_strides_in_memory():
    compare_whatever_the_strides(make(), torch.randn(3, 8, 8, 6))


@pytest.mark.parametrize("spectral", [None, "filter", "bank", "operator"])
def test_double_backward_as_in_gradient_penalties(spectral):
    layer = make(P4, 2, 2, spectral=spectral, input_size=6)
    compare_penalties(layer, torch.randn(2, layer.in_type.channels, 6, 6))


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # inside opcheck
@pytest.mark.parametrize("kind", ["strided", "transposed", "cut"])
def test_what_torch_asks_of_an_operator(kind):
    maps, window, sides = {
        "strided": ((8, 6, 8), (4, 1, 2, False, False), (3, 4)),
        "transposed": ((8, 3, 4), (4, 1, 2, True, False), (6, 8)),
        "cut": ((32, 3, 4), (4, 0, 2, False, True), (2, 3)),
    }[kind]
    how = flat_generators(P4.point_group), *window
    x, weight, bias = torch.randn(2, *maps), torch.randn(3, 2, 4 * 16), torch.randn(3)
    for tensor in (x, weight, bias):
        tensor.requires_grad_()
    torch.library.opcheck(op.default, (x, weight, bias, *how))
    grad = torch.randn(2, 12, *sides, requires_grad=True)
    backward = torch.ops.eqgan.group_conv2d_backward.default
    torch.library.opcheck(backward, (grad, x, weight, *how, [], True, True, True))


@pytest.mark.parametrize("stride", [2, 3, 9])
@pytest.mark.parametrize("padding", [0, 1, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("transposed", [False, True])
def test_the_operator_at_every_width(stride, padding, dtype, transposed):
    """Also of blocks that are too large for the engine (9): the bank serves them."""
    generators, weight = flat_generators(P4.point_group), torch.randn(3, 2, 4 * stride**2)
    for columns in (1, 2, 7, 8, 9, 17):
        sides = [(n + 2 * (padding // stride)) * stride - 2 * padding for n in (2, columns)]
        if min(sides) < 1:
            continue
        if transposed:
            sides = [(side + 2 * padding) // stride for side in sides]
        x = torch.randn(2, 8, *sides).to(dtype)
        window = stride, padding, stride, transposed
        ours = op(x, weight, None, generators, *window)
        exact = by_bank.forward(x.double(), weight.double(), None, generators, *window)
        close(ours, exact, 2e-6 if dtype == torch.float32 else 2**-6)
        grad, need = torch.randn_like(ours), (True, True, False)
        found = torch.ops.eqgan.group_conv2d_backward(grad, x, weight, generators, *window, False, [], *need)
        doubles = grad.double(), x.double(), weight.double()
        exact_ones = by_bank.backward(*doubles, generators, *window, False, [], *need)
        for one, other in zip(found[:2], exact_ones[:2], strict=True):
            close(one, other, 2e-6 if dtype == torch.float32 else 2**-6)


@pytest.mark.parametrize("size", [1, 3, 4, 5])
def test_the_work_of_a_transposed_layer_is_that_of_the_dense_one(size):
    x, weight = torch.randn(2, 8, 6, 5), torch.randn(3, 2, 4 * size**2)
    how = flat_generators(P4.point_group), size, size // 2, 2, True
    bank = by_bank.filter_bank(weight, P4.point_group, size).transpose(0, 1)
    with FlopCounterMode(display=False) as dense:
        y = F.conv_transpose2d(x, bank, None, 2, size // 2)
    with FlopCounterMode(display=False) as ours:
        torch.testing.assert_close(op(x, weight, None, *how), y, rtol=1e-4, atol=1e-4)
    assert ours.get_total_flops() == dense.get_total_flops()


def test_maps_that_come_cut():
    how = flat_generators(P4M.point_group), 6, 0, 3
    x, weight, bias = torch.randn(2, 16, 9, 12), torch.randn(5, 2, 8 * 36), torch.randn(5)
    whole = op(x, weight, bias, *how)
    torch.testing.assert_close(op(F.pixel_unshuffle(x, 3), weight, bias, *how, False, True), whole)
    nothing = torch.randn(0, 40, 2, 3).double(), torch.randn(0, 144, 3, 4).double(), weight.double()
    of_x, *_ = torch.ops.eqgan.group_conv2d_backward(*nothing, *how, False, True, [], True, True, True)
    assert of_x.shape == (0, 144, 3, 4), "by the bank, of no images"
    assert torch.equal(
        by_bank.forward(x, weight, bias, *how),
        by_bank.forward(F.pixel_unshuffle(x, 3), weight, bias, *how, False, True),
    )


@needs_engine
@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    plane=st.sampled_from(PLANES),
    fields=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    side=st.integers(2, 3),
    cells=st.integers(1, 3),
    transposed=st.booleans(),
    isa=st.integers(0, 3),
)
def test_filters_of_blocks_are_packed_as_if_they_were_plain(plane, fields, side, cells, transposed, isa):
    """By every instruction set, one weight of the layer standing at many places, or few fields at a time."""
    group, size = plane.point_group, cells * side
    best = engine.engine(group)
    made = engine.Engine(group, best.library, min(isa, best.isa))
    weight = torch.randn(*fields, plane.order * size**2)
    for blocks in (Form(side), Form(side, of_output=True)):
        plain = strided.filter_of_blocks(weight, group, size, blocks)
        found = made.pack(weight, size, blocks, transposed)
        assert torch.equal(found, made.pack(plain, cells, transposed=transposed))
        sides = plain.shape[:2] if transposed else plain.shape[:2][::-1]
        parts = torch.randn(2, made.library.gradient_size(made.isa, *sides, cells**2))
        of_plain = made._unpack(parts, plain, cells, Form(), transposed)
        back = strided.filter_of_layer(of_plain, group, size, blocks)
        assert torch.equal(made._unpack(parts, weight, size, blocks, transposed), back)


class WithoutBlocks:
    """The engine as one that knows of no blocks, as the GPU's."""

    def __init__(self, group):
        self.group, self.engine = group, engine.engine(group)

    def forward(self, x, weight, bias, size, padding):
        return self.engine.forward(x, weight, bias, size, padding)

    def backward(self, out_gradient, x, weight, size, padding, need):
        return self.engine.backward(out_gradient, x, weight, size, padding, need)


@needs_engine
@pytest.mark.parametrize("kind", ["strided", "transposed", "cut"])
def test_an_engine_without_blocks_is_given_plain_fields(kind):
    made = WithoutBlocks(P4M.point_group)
    sides, padding, form = {
        "strided": ((8, 6), 1, Form(2)),
        "transposed": ((5, 3), 1, Form(2, of_output=True)),
        "cut": ((4, 3), 0, Form(2, cut=True)),
    }[kind]
    x = torch.randn(2, 16 * (4 if form.cut else 1), *sides)
    weight, bias = torch.randn(3, 2, 8 * 16), torch.randn(3)
    plain = strided.OnPlainFields(made, form)
    ours = plain.forward(x, weight, bias, 4, padding)
    theirs = made.engine.forward(x, weight, bias, 4, padding, form)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    grad = torch.randn_like(ours)
    for need in ((True, True, True), (True, False, False), (False, True, False)):
        found = plain.backward(grad, x, weight, 4, padding, need)
        expected = made.engine.backward(grad, x, weight, 4, padding, need, form)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


def test_blocks_hold_what_their_definition_says():
    """Field c at element g of a block is plane g of the map at the block's site g c, about its centre."""
    group, x = P4.point_group, torch.arange(4 * 36).view(1, 4, 6, 6)
    blocks = strided.to_blocks(x, group, Form(2), 0)
    two = strided.to_blocks(torch.cat([x, -x], 1), group, Form(2), 0)
    assert torch.equal(two.view(4, 2, 4, 3, 3)[:, 1], -blocks.view(4, 4, 3, 3)), "site by site"
    for c, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        for g, ((a, b), (p, q)) in enumerate(group.elements.tolist()):
            right, up = 2 * column - 1, 1 - 2 * row
            moved = (a * right + b * up, p * right + q * up)
            site = (1 - moved[1]) // 2, (1 + moved[0]) // 2
            assert torch.equal(blocks[0, 4 * c + g], x[0, g, site[0] :: 2, site[1] :: 2])
    assert torch.equal(strided.from_blocks(two, group, Form(2), 0), torch.cat([x, -x], 1))
    padded = strided.to_blocks(two, group, Form(3), 3)
    assert torch.equal(strided.from_blocks(padded, group, Form(3), 3), two)
    assert padded.sum() == two.sum()


def test_what_has_no_blocks():
    assert sites_of_block(4, 2) == 4
    assert sites_of_block(3, 2) is None
    assert sites_of_block(9, 9) is None
    assert make(size=9, stride=9, padding=0)._fourier is None
    assert make(size=3, stride=2, padding=1)._fourier is None
    how = flat_generators(P4.point_group), 4, 0, 2
    x, weight = torch.randn(1, 8, 5, 6), torch.randn(3, 2, 64)
    assert torch.equal(op(x, weight, None, *how), by_bank.forward(x, weight, None, *how)), "by the bank"
    with pytest.raises(ValueError, match="makes blocks, got 2"):
        choice.Work.of(choice.Layer(P4.point_group, 3, 1, 1, stride=2))


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_compiled_in_one_graph_and_exported():
    compare_compiled(make(spectral="bank"), torch.randn(2, 8, 6, 6))


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("kind", [GroupConv2d, UpsampleConv2d])
def test_one_graph_for_every_batch(kind):
    torch.compiler.reset()
    counter = CompileCounter()
    window = {"stride": 2, "padding": 1} if kind is GroupConv2d else {}
    layer = kind(regular(P4, 2), regular(P4, 2), 4 if kind is GroupConv2d else 3, **window)
    graph = torch.compile(layer, backend=counter, dynamic=True)
    for batch in (2, 3, 5):
        x = torch.randn(batch, 8, 6, 6)
        torch.testing.assert_close(graph(x), layer(x))
    assert counter.frame_count == 1
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_vmap_and_forward_differentiation():
    compare_vmap_and_jvp(make(), torch.randn(2, 3, 8, 6, 6))


@needs_engine
def test_chosen_by_size_where_it_was_measured(monkeypatch):
    monkeypatch.setenv("EQGAN_CONV", "auto")
    fast, slow = [1000.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0, 2.0], [0.0, 0.0, 1.0, 0.0, 0.0]
    times = {kind: {"fourier": fast, "bank": slow} for kind in choice.KINDS}
    measured = as_if_measured(monkeypatch, "strided", times)
    layer = make()
    work = choice.Work.of(choice.Layer(P4.point_group, 4, 2, 3, stride=2))
    assert work.moved == 4 * 2 * 4, "planes of blocks"
    expected = int(1000 / (work.dense - 0.5 * work.multiplications - 2 * work.moved)) + 1
    assert layer._fourier.least_sites == dict.fromkeys(choice.KINDS, expected)
    enough = torch.zeros(-(-expected // 9), 8, 6, 6)
    assert convolution_paths(layer, enough) == {"": "fourier"}
    assert convolution_paths(layer, enough[:-1]) == {"": "bank"}

    def make_transposed():
        return UpsampleConv2d(regular(P4, 3), regular(P4, 2), 3)

    assert make_transposed()._fourier is None, "not measured"
    measured["transposed"] = measured.pop("strided")
    assert make()._fourier is None
    transposed = choice.Layer(P4.point_group, 4, 3, 2, stride=2, transposed=True)
    work = choice.Work.of(transposed)
    assert work.moved == 4 * 2 * 4
    expected = int(1000 / (work.dense - 0.5 * work.multiplications - 2 * work.moved)) + 1
    assert make_transposed()._fourier.least_sites == dict.fromkeys(choice.KINDS, expected)
