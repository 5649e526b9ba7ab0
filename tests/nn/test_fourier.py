"""The fast group convolution is the bank's: forward, gradients, second derivatives, wherever it is taken."""

import copy
import ctypes
import logging
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from eqgan.groups import P2, P2MM, P4, P4M, PM, regular, scalar
from eqgan.groups.fourier import group_fourier, table_fourier
from eqgan.nn import GroupConv2d
from eqgan.nn.fourier import FourierPath, build, choice, convolution_paths, engine
from eqgan.nn.fourier.emit import straight_line
from eqgan.nn.fourier.tables import PLAIN
from eqgan.testing import assert_equivariant
from tests.groups.test_fourier import TABLES
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

op = torch.ops.eqgan.group_conv2d
PLANES = [P2, P4, PM, P2MM, P4M]
pytestmark = pytest.mark.usefixtures("forced")


def make(plane=P4, fields_in=2, fields_out=3, size=3, padding=1, **options) -> GroupConv2d:
    torch.manual_seed(0)
    kinds = regular(plane, fields_in), regular(plane, fields_out)
    layer = GroupConv2d(*kinds, size, padding=padding, **options)
    if layer.bias is not None:
        nn.init.uniform_(layer.bias)
    return layer


@st.composite
def cases(draw, sizes=None, keep_side=False, most_fields=9):
    size = draw(st.integers(1, 5) if sizes is None else st.sampled_from(sizes))
    padding = size // 2 if keep_side else draw(st.integers(0, size + 1))
    sides = st.integers(max(1, size - 2 * padding), 19)
    fields = st.integers(1, most_fields)
    return {
        "plane": draw(st.sampled_from(PLANES)),
        "fields": (draw(fields), draw(fields)),
        "size": size,
        "padding": padding,
        "shape": (draw(st.integers(0, 4)), draw(sides), draw(sides)),
        "isa": draw(st.integers(0, 3)),
    }


def compare_on(case, dtype):
    """The engine of one instruction set with the bank in float64."""
    plane, (fields_in, fields_out), (batch, height, width) = case["plane"], case["fields"], case["shape"]
    layer = make(plane, fields_in, fields_out, case["size"], case["padding"])
    best = engine.engine(plane.point_group)
    chosen = engine.Engine(plane.point_group, best.library, min(case["isa"], best.isa))
    x = torch.randn(batch, fields_in * plane.order, height, width).to(dtype)
    window, tolerance = (case["size"], case["padding"]), 2e-6 if dtype is torch.float32 else 2**-6
    weight, bias = layer.weight.detach(), layer.bias.detach()
    y = chosen.forward(x, weight, bias, *window)
    grad = torch.randn_like(y)
    exact, gradients = bank_values(layer, x, grad)
    close(y, exact.detach(), tolerance)
    compare_gradients(chosen, (grad, x, weight, *window), gradients, tolerance)


@needs_engine
@settings(deadline=None, max_examples=30, derandomize=True)
@given(case=cases())
def test_any_shape_on_every_instruction_set(case):
    compare_on(case, torch.float32)


@needs_engine
@settings(deadline=None, max_examples=30, derandomize=True)
@given(case=cases(sizes=[1, 3, 5, 7, 17], keep_side=True, most_fields=26))
def test_maps_that_keep_their_side(case):
    """Neighbours are read where they lie, what is beyond the map is masked; any number of columns is left."""
    compare_on(case, torch.float32)


@needs_engine
@pytest.mark.parametrize("plane", [P4, P4M], ids=str)
def test_more_fields_than_fit_the_cache_and_the_error_of_a_dense_convolution(plane):
    layer = make(plane, 24, 10, size=5, padding=2)
    x = torch.randn(1, 24 * plane.order, 12, 14)
    with torch.no_grad():
        y = layer(x)
        layer._fourier = None
        dense, exact = layer(x), layer.double()(x.double())
    assert (y - exact).std() <= 2 * (dense - exact).std()
    close(y, exact)


def test_a_wrong_table_fails():
    layer = make()
    x = torch.randn(2, 8, 6, 6)
    layer.weight.data = layer.weight.data.flip(2)
    ours = layer(x)
    layer.weight.data = layer.weight.data.flip(2)
    exact, _ = bank_values(layer, x, torch.ones_like(ours))
    with pytest.raises(AssertionError):
        close(ours.detach(), exact.detach())


@needs_engine
@pytest.mark.parametrize("plane", PLANES, ids=str)
def test_equivariant(plane):
    layer = make(plane, size=4, padding=2).eval()
    assert layer._fourier.takes(torch.randn(1, 2 * plane.order, 6, 6), layer.weight)
    assert_equivariant(layer, torch.randn(2, 2 * plane.order, 7, 7), rtol=1e-6)


def test_whatever_the_strides():
    compare_whatever_the_strides(make(), torch.randn(3, 8, 7, 5))


def test_all_derivatives_in_float64():
    """By the operator's own formulas, on the path that serves every dtype."""
    generators = make()._fourier.generators
    shapes = (2, 8, 4, 5), (3, 2, 36), (3,)
    arguments = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]

    def function(*tensors):
        return op(*tensors, generators, 3, 1)

    assert torch.autograd.gradcheck(function, arguments, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, arguments, fast_mode=True)


@pytest.mark.parametrize("spectral", [None, "filter", "bank", "operator"])
def test_double_backward_as_in_gradient_penalties(spectral):
    layer = make(P4M, 2, 2, spectral=spectral, input_size=6)
    compare_penalties(layer, torch.randn(2, 16, 6, 6))


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # inside opcheck
def test_what_torch_asks_of_an_operator():
    generators = make()._fourier.generators
    x, weight, bias = torch.randn(2, 8, 5, 6), torch.randn(3, 2, 36), torch.randn(3)
    for tensor in (x, weight, bias):
        tensor.requires_grad_()
    torch.library.opcheck(op.default, (x, weight, bias, generators, 3, 1))
    grad = torch.randn(2, 12, 5, 6, requires_grad=True)
    backward = torch.ops.eqgan.group_conv2d_backward.default
    torch.library.opcheck(
        backward, (grad, x, weight, generators, 3, 1, 1, False, False, [], True, True, True)
    )


@pytest.mark.parametrize("plane", [P4, P4M], ids=str)
def test_under_autocast(plane):
    """Maps in bfloat16, sums in float32."""
    layer = make(plane, 5, 3)
    x = torch.randn(3, 5 * plane.order, 9, 7).bfloat16().float()
    variable = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        assert layer._fourier.takes(x, layer.weight) == (engine.engine(plane.point_group) is not None)
        y = layer(variable)
        with torch.no_grad():
            assert torch.equal(copy.deepcopy(layer).eval()(x), y)
    assert y.dtype == torch.bfloat16
    grad = torch.randn_like(y)
    exact, gradients = bank_values(layer, x, grad)
    close(y.detach(), exact.detach(), 2**-7)
    for ours, theirs in zip(torch.autograd.grad(y, (variable, layer.weight), grad), gradients):
        close(ours, theirs, 2**-7)


@needs_engine
@settings(deadline=None, max_examples=30, derandomize=True)
@given(case=cases())
def test_any_shape_in_bfloat16(case):
    """Also by the instructions that multiply pairs: rounded features, rounded filters, sums in float32."""
    compare_on(case, torch.bfloat16)


@needs_engine
@pytest.mark.parametrize("isa", [0, 1, 2, 3])
def test_bfloat16_is_rounded_as_torch_rounds(isa):
    best = engine.engine(P4.point_group)
    chosen = engine.Engine(P4.point_group, best.library, min(isa, best.isa))
    weight = torch.zeros(1, 1, 4)
    weight[0, 0, 0] = 1
    x = torch.randn(2, 4, 5, 5)
    x[0, 0, 0], x[1] = float("nan"), x[1].bfloat16().float() * (1 + 2**-8)
    y = torch.empty_like(x, dtype=torch.bfloat16)
    chosen._run(x, y, 1, (0, 0), PLAIN, {"filter": chosen.pack(weight, 1), "out": y})
    exact = chosen.forward(x, weight, None, 1, 0)
    assert torch.equal(y.nan_to_num(7), exact.bfloat16().nan_to_num(7))
    assert exact.isnan().any()
    torch.testing.assert_close(chosen.forward(y, weight, None, 1, 0), y, rtol=0.02, atol=0.05, equal_nan=True)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_vmap_and_forward_differentiation():
    compare_vmap_and_jvp(make(), torch.randn(2, 3, 8, 5, 5))


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_compiled_in_one_graph():
    compare_compiled(make(spectral="bank"), torch.randn(2, 8, 6, 6))


@needs_engine
@pytest.mark.parametrize("transposed", [False, True])
def test_filters_are_packed_in_parts(transposed):
    """By as many threads as torch has, to the same numbers; 19 others fill no tile."""
    made, size = engine.engine(P4M.point_group), 5
    weight = torch.randn(19, 11, 8 * size * size)
    assert weight.numel() > 2 * engine._WEIGHTS
    before, packed = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            packed.append(made.pack(weight, size, transposed=transposed))
    finally:
        torch.set_num_threads(before)
    for other in packed[1:]:
        assert torch.equal(other, packed[0])


def test_the_packed_filter_follows_the_weights():
    layer, x = make(spectral="filter").eval(), torch.randn(2, 8, 6, 6)
    with torch.no_grad():
        before = layer(x)
        kept = layer._packed[False]
        assert torch.equal(layer(x), before)
        if kept is not None:
            assert layer._packed[False][1] is kept[1]
        layer.weight.data.mul_(-1.5).add_(0.1)
        reference = copy.deepcopy(layer)
        reference._fourier = None
        torch.testing.assert_close(layer(x), reference(x), rtol=1e-4, atol=1e-5)
    assert not layer.train()._packed


@needs_engine
def test_as_many_threads_as_torch_has():
    layer, x = make(P4, 3, 4), torch.randn(9, 12, 13, 11)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            y = layer(x)
            results.append((y.detach(), torch.autograd.grad(y.square().sum(), layer.weight)[0]))
    finally:
        torch.set_num_threads(before)
    for y, gradient in results[1:]:
        assert torch.equal(y, results[0][0]), "the same sums whoever makes them"
        torch.testing.assert_close(gradient, results[0][1], rtol=1e-4, atol=1e-3)


@needs_engine
def test_many_callers_at_once():
    layer = make(P4, 3, 4).eval()
    inputs = [torch.randn(2 + i, 12, 9, 7 + i) for i in range(6)]
    expected = [layer(x).detach() for x in inputs]
    wrong = []

    def call(number):
        results = [layer(inputs[number]) for _ in range(5)]
        wrong.extend(y for y in results if not torch.equal(y, expected[number]))

    threads = [threading.Thread(target=call, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@needs_engine
def test_own_threads_where_torch_has_no_openmp():
    best = engine.engine(P4.point_group)
    other = engine.Engine(P4.point_group, best.library)
    other.team = ctypes.c_void_p(None)
    x, weight = torch.randn(6, 8, 9, 9), torch.randn(3, 2, 36)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(other.forward(x, weight, None, 3, 1), best.forward(x, weight, None, 3, 1))
    finally:
        torch.set_num_threads(before)


def test_without_a_compiler_the_bank_serves(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("EQGAN_CACHE", str(tmp_path))
    engine.engine.cache_clear()
    try:
        layer, x = make(), torch.randn(2, 8, 6, 6)
        with caplog.at_level(logging.INFO):
            y = layer(x)
        assert sum("filter banks serve instead" in r.message for r in caplog.records) == 1
        assert set(convolution_paths(layer, x).values()) == {"bank"}
        assert torch.equal(op(x, layer.weight, layer.bias, layer._fourier.generators, 3, 1), y)
        layer._fourier = None
        assert torch.equal(layer(x), y)
    finally:
        engine.engine.cache_clear()


def test_a_compiler_that_fails_is_reported(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("CXX", "false")
    monkeypatch.setenv("EQGAN_CACHE", str(tmp_path))
    with caplog.at_level(logging.INFO):
        assert build.load("const int ORDER = 1;") is None
    assert "filter banks serve instead" in caplog.text
    assert not list(tmp_path.rglob("*.so"))


def test_which_layers_can_take_it(monkeypatch):
    assert make()._fourier is not None
    assert make(stride=2, padding=0)._fourier is None
    assert GroupConv2d(regular(P4, 1), scalar(P4, 2), 3)._fourier is None
    monkeypatch.setenv("EQGAN_CONV", "bank")
    assert make()._fourier is None
    monkeypatch.setenv("EQGAN_CONV", "quick")
    with pytest.raises(ValueError, match="one of auto, bank, fourier"):
        make()


def test_chosen_by_size(monkeypatch):
    """The crossing of two straight lines; nothing is said of what was not measured."""
    monkeypatch.setenv("EQGAN_CONV", "auto")
    fast, slow = [1000.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0]
    times = {kind: {"fourier": fast, "bank": slow} for kind in choice.KINDS}
    measured = as_if_measured(monkeypatch, "regular", times)
    work = choice.Work.of(choice.Layer(P4.point_group, 3, 2, 3))
    expected = int(1000 / (work.dense - 0.5 * work.multiplications)) + 1
    for kind in choice.KINDS:
        assert choice.least_sites(kind, choice.Layer(P4.point_group, 3, 2, 3)) == expected
        assert choice.least_sites(kind, choice.Layer(P4M.point_group, 3, 2, 3)) == choice.NEVER
        assert choice.least_sites(kind, choice.Layer(P4.point_group, 1, 2, 3)) == choice.NEVER
        assert choice.least_sites(kind, choice.Layer(P4.point_group, 3, 2, 3, True)) == choice.NEVER
    lifting = {kind: {"fourier": fast, "bank": [0.0, 0.0, 2.0, 0.0, 0.0]} for kind in times}
    measured["lifting"] = measured["regular"] | {"times": lifting}
    dense = 2 * 3 * 9 * 4  # as many multiplications either way
    expected_of_lifting = int(1000 / (2 * dense - 0.5 * dense)) + 1
    assert choice.least_sites("eval", choice.Layer(P4.point_group, 3, 2, 3, True)) == expected_of_lifting
    assert choice.least_sites("eval", choice.Layer(P4.point_group, 3, 4, 3, True)) == choice.NEVER, (
        "36 rows of patches"
    )
    measured["regular"]["fewest_sites"] = 10 * expected
    assert choice.least_sites("eval", choice.Layer(P4.point_group, 3, 2, 3)) == 10 * expected
    del measured["regular"]["fewest_sites"]
    times["eval_bf16"] = {"fourier": [0.0, 0.0, 9.0, 0.0, 0.0, 0.0, 0.0], "bank": slow}
    chosen = FourierPath.of(regular(P4, 2), regular(P4, 3), 3, 1, 1)
    assert chosen.least_sites == {**dict.fromkeys(choice.KINDS, expected), "eval_bf16": choice.NEVER}
    x = torch.zeros(expected, 8, 5, 5)  # enough sites
    wanted = {(False, True): True, (False, False): True, (True, True): True, (True, False): False}
    for (lower, grad), taken in wanted.items():
        with torch.autocast("cpu", torch.bfloat16, enabled=lower), torch.set_grad_enabled(grad):
            found = chosen.takes(x, torch.empty(0))
        assert found == (taken and engine.engine(P4.point_group) is not None), (lower, grad)
    slower = {"regular": measured["regular"] | {"fewest_sites": 99 * expected}}
    both = {"fits": {choice.instruction_set(): {"one": measured, "another": slower}}}
    monkeypatch.setattr(choice, "measured", lambda: both)
    assert choice.least_sites("eval", choice.Layer(P4.point_group, 3, 2, 3)) == 99 * expected  # on both
    assert choice.least_sites("eval", choice.Layer(P4.point_group, 3, 2, 3, True)) == choice.NEVER
    monkeypatch.setattr(choice, "measured", lambda: {"fits": {}})
    assert choice.least_sites("training", choice.Layer(P4.point_group, 3, 2, 3)) == choice.NEVER
    assert FourierPath.of(regular(P4, 2), regular(P4, 2), 3, 1, 1) is None


def test_the_committed_choice_reads():
    for processors in choice.measured()["fits"].values():
        fits = [fit for kinds in processors.values() for fit in kinds.values()]
        assert fits
        assert all(fit["margins"][kind] < 1 for fit in fits for kind in choice.KINDS)


def test_a_checkpoint_knows_nothing_of_it(monkeypatch):
    fast = make()
    monkeypatch.setenv("EQGAN_CONV", "bank")
    assert fast.state_dict().keys() == make().state_dict().keys()


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 7, 5, 5), (3, 2, 36)), "expected x"),
        (((2, 8, 5, 5), (3, 2, 32)), "weights a pair"),
        (((2, 8, 5, 0), (3, 2, 36)), "does not fit"),
    ],
)
def test_wrong_shapes_are_named(shapes, message):
    generators = make()._fourier.generators
    with pytest.raises(ValueError, match=message):
        op(*map(torch.randn, shapes), None, generators, 3, 1)


@pytest.mark.parametrize("name", ["C4", "D3", "D4", "C8", "Q8"])
def test_the_generated_code_is_the_matrix(name):
    transform = table_fourier(TABLES[name])
    random = np.random.default_rng(0)
    for matrix in (transform.analysis, transform.filter_matrix.T, random.integers(-1, 2, (5, 7)) * 0.5):
        x = random.standard_normal(matrix.shape[1])
        names = {"x": x, "y": np.zeros(len(matrix))}
        for line in straight_line(matrix):
            exec(line.replace("const V ", "").replace("f * ", " * ").rstrip(";"), names)
        np.testing.assert_allclose(names["y"], matrix @ x, atol=1e-8)


def test_additions_are_shared():
    """Six for C4, twenty for D4: what a fast Fourier transform takes."""
    for plane, additions in ((P4, 6), (P4M, 20)):
        text = " ".join(straight_line(group_fourier(plane.point_group).analysis))
        assert text.count(" + ") + text.count(" - ") == additions
