"""From fields on cosets by the engine: the bank's numbers for every subgroup, gradients, and the law."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from eqgan.groups import P2, P2MM, P4, P4M, PM, quotient, regular
from eqgan.groups.fourier import group_fourier
from eqgan.nn import CosetPool, GroupConv2d
from eqgan.nn.fourier import by_bank, choice, convolution_paths, engine, tables
from eqgan.nn.fourier.tables import FilterTables, Form
from eqgan.nn.fourier.window import flat_generators
from eqgan.testing import assert_equivariant
from tests.nn.against_bank import (
    as_if_measured,
    bank_of,
    bank_values,
    close,
    compare_compiled,
    compare_gradients,
    compare_penalties,
    compare_vmap_and_jvp,
    compare_whatever_the_strides,
    layout_by,
    needs_engine,
    subgroups,
)
from tests.oracles.fourier import fourier_convolution

op = torch.ops.eqgan.group_conv2d
PAIRS = [(plane, members) for plane in (P4, P2MM, P4M) for members in subgroups(plane)]
pytestmark = pytest.mark.usefixtures("forced")


def make(plane=P4, members=(0, 2), fields_in=2, fields_out=3, size=3, padding=1, **options) -> GroupConv2d:
    torch.manual_seed(0)
    in_type = quotient(plane, members, fields_in)
    layer = GroupConv2d(in_type, regular(plane, fields_out), size, padding=padding, **options)
    nn.init.uniform_(layer.bias)
    return layer


def test_these_are_all_subgroups():
    found = [len([members for plane, members in PAIRS if plane is each]) for each in (P4, P2MM, P4M)]
    assert found == [1, 3, 8]


@st.composite
def cases(draw):
    size = draw(st.integers(1, 5))
    padding = draw(st.integers(0, size + 1))
    least = max(1, size - 2 * padding)
    plane, members = draw(st.sampled_from(PAIRS))
    return SimpleNamespace(
        plane=plane,
        members=members,
        fields=(draw(st.integers(1, 9)), draw(st.integers(1, 11))),
        window=(size, padding),
        shape=(draw(st.integers(0, 3)), draw(st.integers(least, 19)), draw(st.integers(least, 34))),
        isa=draw(st.integers(0, 3)),
        dtype=draw(st.sampled_from([torch.float32, torch.bfloat16])),
    )


@needs_engine
@settings(deadline=None, max_examples=80, derandomize=True)
@given(case=cases())
def test_any_shape_on_every_instruction_set(case):
    layer = make(case.plane, case.members, *case.fields, *case.window)
    best = engine.engine(case.plane.point_group)
    chosen = engine.Engine(case.plane.point_group, best.library, min(case.isa, best.isa))
    batch, height, width = case.shape
    x = torch.randn(batch, layer.in_type.channels, height, width).to(case.dtype)
    weight, bias, form = layer.weight.detach(), layer.bias.detach(), Form(stabiliser=case.members)
    y = chosen.forward(x, weight, bias, *case.window, form)
    assert y.dtype == case.dtype
    grad = torch.randn_like(y)
    exact, gradients = bank_values(layer, x, grad)
    tolerance = 5e-6 if case.dtype == torch.float32 else 2**-6  # features and blocks rounded too
    close(y, exact.detach(), tolerance)
    with_form = SimpleNamespace(backward=lambda *given: chosen.backward(*given, form))
    compare_gradients(with_form, (grad, x, weight, *case.window), gradients, tolerance)


@needs_engine
@pytest.mark.parametrize(("plane", "members"), PAIRS, ids=str)
def test_the_law(plane, members):
    layer = make(plane, members).eval()
    x = torch.randn(2, layer.in_type.channels, 7, 7)
    assert layer._fourier.takes(x, layer.weight)
    assert_equivariant(layer, x, rtol=1e-6)


@needs_engine
def test_the_planes_of_other_cosets_break_the_law(monkeypatch):
    layer, found = make(P4M, (0, 2)).eval(), FilterTables(P4M.point_group, 3, (0, 2))
    found.plane = FilterTables(P4M.point_group, 3, (0, 4)).plane
    known = {(): FilterTables(P4M.point_group, 3), (0, 2): found}
    wrong = layout_by("filter_tables", lambda group, size, members=(): known[members])
    monkeypatch.setattr(engine, "layout", wrong)
    with pytest.raises(AssertionError):
        assert_equivariant(layer, torch.randn(2, 8, 7, 7), rtol=1e-6)


@needs_engine
@pytest.mark.parametrize(("plane", "members"), [(P4, (0, 2)), (P4M, (0, 2)), (P4M, (0, 5))], ids=str)
def test_it_is_the_regular_convolution_of_fields_that_are_constant_on_cosets(plane, members):
    """The algorithm in NumPy, of |H| times as many planes, each weight |H| times with its share."""
    group = plane.point_group
    torch.manual_seed(1)
    dim, size = group.order // len(members), 3
    x, w = torch.randn(2, 3, dim, 6, 9), torch.randn(4, 3, dim, size * size)
    coset_of = tables.Representation(group, members).coset_of
    wide = x.double().numpy()[:, :, coset_of], w.double().numpy()[:, :, coset_of] / len(members)
    expected = torch.as_tensor(fourier_convolution(group, *wide, size, 1))
    window = flat_generators(group), size, 1, 1, False, False, list(members)
    close(op(x.flatten(1, 2), w.flatten(2), None, *window).unflatten(1, (4, -1)), expected)


def test_one_cell_of_each_orbit():
    """Half turns leave the centre of 3 x 3 alone; of 4 x 4 they leave none."""
    for size, patches, no_weight in ((3, 5, 2), (4, 8, 0)):
        found = FilterTables(P4.point_group, size, (0, 2))
        assert found.entry.shape == (4, patches)
        assert (found.entry < 0).sum() == no_weight
        weights = found.entry[found.entry >= 0]
        assert sorted(weights) == list(range(2 * size * size)), "each weight once"


@pytest.mark.parametrize(
    ("plane", "members", "left"), [(P4, (0, 2), 2), (P4M, (0, 2), 4), (P4M, (0, 1, 2, 3), 2)], ids=str
)
def test_fewer_irreps_have_a_part_in_functions_on_cosets(plane, members, left):
    transform = group_fourier(plane.point_group)
    assert transform.multiplications_for(members) == left
    coset_of = tables.Representation(plane.point_group, members).coset_of
    indicators = coset_of == np.arange(coset_of.max() + 1)[:, None]
    seen, first = [], 0
    for irrep in transform.irreps:
        size = irrep.dim * irrep.copies
        seen.append(bool(np.abs(transform.analysis[first : first + size] @ indicators.T).max() > 1e-9))
        first += size
    assert transform.irreps_of(members) == sum(1 << n for n, has_part in enumerate(seen) if has_part)
    assert transform.irreps_of(()) == (1 << len(transform.irreps)) - 1


def test_whatever_the_strides():
    compare_whatever_the_strides(make(), torch.randn(3, 4, 7, 5))


def test_all_derivatives_in_float64():
    shapes = (2, 4, 4, 5), (3, 2, 18), (3,)
    arguments = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]

    def function(*tensors):
        return op(*tensors, flat_generators(P4.point_group), 3, 1, 1, False, False, [0, 2])

    assert torch.autograd.gradcheck(function, arguments, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, arguments, fast_mode=True)


@needs_engine
@pytest.mark.parametrize("spectral", [None, "filter", "bank", "operator"])
def test_double_backward_as_in_gradient_penalties(spectral):
    layer, x = make(P4M, (0, 2), 2, 2, spectral=spectral, input_size=6), torch.randn(2, 8, 6, 6)
    assert layer._fourier.takes(x, layer.weight)
    compare_penalties(layer, x)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # inside opcheck
def test_what_torch_asks_of_an_operator():
    how = flat_generators(P4.point_group), 3, 1, 1, False, False, [0, 2]
    x, weight, bias = torch.randn(2, 4, 5, 6), torch.randn(3, 2, 18), torch.randn(3)
    grad = torch.randn(2, 12, 5, 6)
    for tensor in (x, weight, bias, grad):
        tensor.requires_grad_()
    torch.library.opcheck(op.default, (x, weight, bias, *how))
    backward = torch.ops.eqgan.group_conv2d_backward.default
    torch.library.opcheck(backward, (grad, x, weight, *how, True, True, True))


@pytest.mark.parametrize("stride", [1, 2])
def test_the_operator_with_a_stride_is_the_bank(stride):
    layer = make(padding=1)
    layer.stride, layer.output_size = stride, lambda side: None
    x = torch.randn(2, 4, 7, 7)
    how = flat_generators(P4.point_group), 3, 1, stride, False, False, [0, 2]
    exact, _ = bank_values(layer, x, torch.ones(2, 12, 7 // stride + stride - 1, 7 // stride + stride - 1))
    close(op(x, layer.weight, layer.bias, *how).detach(), exact.detach())
    assert torch.equal(
        by_bank.forward(x, layer.weight, layer.bias, *how), layer._dense(x, *layer._bank_and_bias())
    )


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_compiled_in_one_graph_and_exported():
    compare_compiled(make(spectral="bank"), torch.randn(2, 4, 6, 6))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_vmap_and_forward_differentiation():
    compare_vmap_and_jvp(make(), torch.randn(2, 3, 4, 5, 5))


@needs_engine
def test_packed_in_eval_and_told_after_a_pool():
    pool = CosetPool(regular(P4, 2), P2)
    network = nn.Sequential(pool, make()).eval()
    x = torch.randn(2, 8, 6, 6)
    assert convolution_paths(network, x) == {"1": "fourier"}
    with torch.no_grad():
        kept = network(x)
        assert network[1]._packed, "the filter is packed once"
        assert torch.equal(network(x), kept)
        network[1].weight.mul_(2)
        close(network(x), bank_of(network[1])(pool(x).double()))


@needs_engine
def test_chosen_by_size_where_it_was_measured(monkeypatch):
    monkeypatch.setenv("EQGAN_CONV", "auto")
    bank = [0.0, 0.0, 0.1, 0.0, 0.0]
    times = {kind: {"fourier": [100.0] + [0.0] * 7, "bank": bank} for kind in choice.KINDS}
    as_if_measured(monkeypatch, "quotient", times)
    path = make()._fourier
    dense = 2 * 3 * 9 * 2 * 4
    assert path.least_sites["training"] == int(100 / (0.1 * dense)) + 1
    assert not make(PM, (0, 1))._fourier, "lifts, which was not measured"
    assert make(P4M, (0, 2))._fourier is None, "C4 alone was measured"
    assert make(stride=2, padding=0, size=2)._fourier is None, "with a stride the bank serves"
    on_gpu = dataclasses.replace(path, forced=True)
    meta = torch.empty(2, 4, 6, 6, device="meta")
    assert not on_gpu.takes(meta, torch.empty(3, 2, 18, device="meta"))
