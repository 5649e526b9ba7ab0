"""The fast group convolution gives the bank's numbers, or an error, in every way that torch calls a layer."""

import threading
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jacrev, jvp, vjp, vmap

from eqgan.groups import P4, P4M, regular, scalar
from eqgan.groups.fourier import group_fourier
from eqgan.nn import ConvAvgPool2d, GroupConv2d, LiftingConv2d, UpsampleConv2d
from eqgan.nn.fourier import build, by_bank, native, tables
from eqgan.nn.fourier.emit import group_header
from eqgan.nn.fourier.window import flat_generators
from tests.nn.against_bank import bank_of, needs_engine

pytestmark = [needs_engine, pytest.mark.usefixtures("forced")]
GENERATORS = flat_generators(P4.point_group)
NEED = True, True, True
R2, R3 = regular(P4, 2), regular(P4, 3)
LAYERS = {
    "regular": lambda: GroupConv2d(R2, R3, 3, padding=1),
    "spectral": lambda: GroupConv2d(R2, R3, 3, padding=1, spectral="filter"),
    "strided": lambda: GroupConv2d(R2, R3, 4, stride=2, padding=1),
    "lifting": lambda: LiftingConv2d(scalar(P4, 2), R3, 3, padding=1),
    "doubling": lambda: UpsampleConv2d(R2, R3, 3),
    "halving": lambda: ConvAvgPool2d(R2, R3, 3),
}


def pair(name: str) -> tuple[nn.Module, nn.Module, torch.Tensor]:
    """A layer, the same by its bank in float64, and an input."""
    torch.manual_seed(0)
    layer = LAYERS[name]()
    assert layer._fourier is not None
    nn.init.uniform_(layer.bias)
    return layer, bank_of(layer), torch.randn(2, layer.in_type.channels, 8, 8)


def agree(ours: torch.Tensor, exact: torch.Tensor) -> None:
    assert ours.shape == exact.shape
    assert exact.abs().max() > 0.01  # zeros would agree with much
    assert (ours.double() - exact).abs().max() <= 1e-5 * exact.abs().max()


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("training", [True, False])
def test_what_lies_before_a_frozen_layer_learns(name, training):
    layer, bank, x = pair(name)
    gradients = []
    for network in (layer, bank):
        network.train(training).requires_grad_(False)
        ours = x.to(network.weight.dtype, copy=True).requires_grad_()
        network(ours).square().sum().backward()
        gradients.append(ours.grad)
    agree(*gradients)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated", "ignore:There is a performance drop")
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("training", [True, False])
def test_the_transforms_of_torch_func(name, training):
    if name == "spectral" and training:
        pytest.skip("the power iteration changes its vectors in place, which torch.func does not take")
    layer, bank, x = pair(name)
    layer.train(training), bank.train(training)
    found = []
    for network in (layer, bank):
        own, along = x.to(network.weight.dtype), torch.ones_like(x, dtype=network.weight.dtype)
        parameters = {k: p.detach() for k, p in network.named_parameters()}

        def loss(parameters, one, network=network):
            return functional_call(network, parameters, (one[None],)).square().sum()

        found.append(
            (
                grad(lambda a, f=network: f(a).square().sum())(own),
                vjp(network, own)[1](torch.ones_like(network(own)))[0],
                jvp(network, (own,), (along,))[1],
                jacrev(lambda a, f=network: f(a).sum((2, 3)))(own),
                vmap(network)(own[None]),
                vmap(grad(loss), (None, 0))(parameters, own)["weight"],
            )
        )
    for ours, exact in zip(*found):
        agree(ours, exact)


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("transform", ["grad", "jvp"])
def test_compiled_transforms(transform, backend):
    torch._dynamo.reset()
    layer, bank, x = pair("regular")
    found = []
    for network, own in ((layer, x), (bank, x.double())):
        if transform == "grad":
            found.append(torch.compile(grad(lambda a, f=network: f(a).square().sum()), backend=backend)(own))
        else:
            along = torch.ones_like(own)
            found.append(
                torch.compile(lambda a, f=network, v=along: jvp(f, (a,), (v,))[1], backend=backend)(own)
            )
    agree(*found)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_whatever_torchs_default_type(name, dtype):
    layer, bank, x = pair(name)
    torch.set_default_dtype(dtype)
    try:
        y = layer(x)
        y.square().sum().backward()
    finally:
        torch.set_default_dtype(torch.float32)
    bank(x.double()).square().sum().backward()
    for (_, ours), (_, exact) in zip(layer.named_parameters(), bank.named_parameters(), strict=True):
        agree(ours.grad, exact.grad)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("training", [True, False])
def test_biases_of_any_strides(name, training):
    layer, bank, x = pair(name)
    wide = torch.randn(len(layer.bias), 5)
    layer.load_state_dict({**layer.state_dict(), "bias": wide[:, 1]}, assign=True)
    bank.load_state_dict({**bank.state_dict(), "bias": wide[:, 1].double()})
    assert not layer.bias.is_contiguous()
    with torch.no_grad():
        agree(layer.train(training)(x), bank.train(training)(x.double()))


def test_a_packed_filter_has_no_gradients_and_says_so():
    layer, _, x = pair("regular")
    packed = layer._fourier.pack(layer.weight)
    y = torch.ops.eqgan.group_conv2d_packed(x.requires_grad_(), packed, None, 3, GENERATORS, 3, 1)
    with pytest.raises(RuntimeError, match="has no gradients, use group_conv2d"):
        y.sum().backward()


@pytest.mark.parametrize(
    "call",
    [
        lambda op, x, w: op.group_conv2d(x, w, torch.zeros(2), GENERATORS, 3, 1),
        lambda op, x, w: op.group_conv2d(x[:, :0], w[:, :0], None, GENERATORS, 3, 1),
        lambda op, x, w: op.group_conv2d(x[:, :0], w[:, :0, :9], None, GENERATORS, 3, 1),
        lambda op, x, w: op.group_conv2d(x, w[:0], None, GENERATORS, 3, 1),
        lambda op, x, w: op.group_conv2d(x, w[:, :, :9].repeat(1, 4, 1), None, GENERATORS, 3, 1, 0),
        lambda op, x, w: op.group_conv2d_backward(
            torch.zeros(1, 12, 8, 8),
            x,
            w[:, :, :9].repeat(1, 4, 1),
            GENERATORS,
            3,
            1,
            2,
            False,
            False,
            [],
            *NEED,
        ),
        lambda op, x, w: op.group_conv2d_backward(
            x[:, :0], x, w[:0], GENERATORS, 3, 1, 1, False, False, [], *NEED
        ),
        lambda op, x, w: op.group_conv2d_backward(
            x[:, :8], x, w, GENERATORS, 3, 1, 1, False, False, [], *NEED
        ),
        lambda op, x, w: op.group_conv2d(x, w, None, GENERATORS, 3, -1, 2, True),
        lambda op, x, w: op.group_conv2d(x, w, None, GENERATORS, 3, 1, 1, True),
        lambda op, x, w: op.group_conv2d_packed(x, torch.zeros(4), None, 3, GENERATORS, 4, 0, 2, True, True),
        lambda op, x, w: op.group_conv2d_packed(x, torch.zeros(4), None, 3, GENERATORS, 4, 1, 2, False, True),
        lambda op, x, w: op.group_conv2d_packed(x, torch.zeros(4), None, 3, GENERATORS, 4, 0, 0),
        lambda op, x, w: op.group_conv2d(x[:, :, :1, :1], w, None, GENERATORS, 3, 2, 2, True),
        lambda op, x, w: op.group_conv2d(x, w, None, GENERATORS, 3, 0, 3, False, True),
        lambda op, x, w: op.group_conv2d(x.repeat(1, 9, 1, 1), w, None, GENERATORS, 3, 1, 3, False, True),
        lambda op, x, w: op.group_conv2d(x.repeat(1, 4, 1, 1), w, None, GENERATORS, 3, 0, 2, False, True),
        lambda op, x, w: op.group_conv2d(x[:, :2], w[:, :, :9], None, GENERATORS, 3, 1, 2, True),
        lambda op, x, w: op.group_conv2d_packed(x, torch.zeros(4), None, 3, GENERATORS, 3, 1),
        lambda op, x, w: op.group_conv2d_packed(x[:, :7], torch.zeros(4), None, 3, GENERATORS, 3, 1),
        lambda op, x, w: op.group_conv2d_packed(x, torch.zeros(4), None, 3, GENERATORS, 4, 1, 2),
        lambda op, x, w: op.group_conv2d_packed(x[:, :0], torch.zeros(0), None, 3, GENERATORS, 3, 1),
        lambda op, x, w: op.group_conv2d_packed(x, torch.zeros(0), None, 0, GENERATORS, 3, 1),
        lambda op, x, w: op.group_conv2d(x[:, :2], w[:, :, :0], None, GENERATORS, 0, 0),
        lambda op, x, w: op.group_conv2d(x, w[:, :, :4], None, GENERATORS, -1, 0),
        lambda op, x, w: op.group_conv2d(x[:, :2], w[:, :, :9], None, GENERATORS[:3], 3, 1),
        lambda op, x, w: vmap(lambda one: op.group_conv2d(one, w, None, GENERATORS, 3, 1))(x[None][:0]),
        lambda op, x, w: op.group_conv2d(x, w[:, :, :18], None, GENERATORS, 3, 1, 1, False, False, [0, 1]),
        lambda op, x, w: op.group_conv2d(x, w[:, :, :9], None, GENERATORS, 3, 1, 1, False, False, [0, 2]),
        lambda op, x, w: op.group_conv2d(x, w[:, :, :18], None, GENERATORS, 3, 1, 1, False, False, [0, 2]),
        lambda op, x, w: op.group_conv2d(x[:, :6], w, None, GENERATORS, 3, 1, 1, False, False, [0]),
        lambda op, x, w: op.group_conv2d(
            x[:, :3], w[:, :, :9], None, GENERATORS, 3, 1, 1, False, False, [0, 2, 2, 0]
        ),
        lambda op, x, w: op.group_conv2d(
            x[:, :6], w[:, :, :18], None, GENERATORS, 4, 0, 2, True, False, [0, 2]
        ),
        lambda op, x, w: op.group_conv2d_packed(
            x[:, :6], torch.zeros(4), None, 3, GENERATORS, 3, 1, 1, False, False, [0, 2]
        ),
        lambda op, x, w: op.group_conv2d_packed(x[:, :2], w[:, :, :9], None, 4, GENERATORS, 3, 1),
        lambda op, x, w: op.group_conv2d_packed(x[:, :2, :3, :3], w[:, :, :9], None, 3, GENERATORS, 3, 1),
        lambda op, x, w: op.group_conv2d_packed(x, w, None, 3, GENERATORS, 3, 1),
        lambda op, x, w: op.group_conv2d_packed(x[:, :, 1:], torch.zeros(4), None, 3, GENERATORS, 4, 1, 2),
    ],
)
def test_what_does_not_fit_is_refused_before_memory_is_touched(call):
    with pytest.raises(ValueError, match=r"expected|smaller|not closed"):
        call(torch.ops.eqgan, torch.randn(1, 8, 8, 8), torch.randn(3, 2, 36))


@pytest.mark.usefixtures("without_shape_checks")
def test_maps_without_a_batch_are_the_banks():
    layer, bank, x = pair("regular")
    agree(layer(x[0]), bank(x[0].double()))


@pytest.mark.parametrize(
    ("named", "made"), [("filter_tables", "FilterTables"), ("block_tables", "BlockTables")]
)
def test_one_table_for_all_who_ask_at_once(named, made, monkeypatch):
    """Its address is told to the engine: it must not be the only copy of a thread that is done with it."""
    original, asked = getattr(tables, made), threading.Barrier(4)

    class Slow(original):
        def __init__(self, *arguments):
            threading.Event().wait(0.05)
            super().__init__(*arguments)

    getattr(tables, named).cache_clear()
    monkeypatch.setattr(tables, made, Slow)
    arguments = (P4M.point_group, 4) if named == "filter_tables" else (P4M.point_group, 2)
    found = []

    def ask():
        asked.wait()
        found.append(getattr(tables, named)(*arguments))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(table) for table in found}) == 1
    getattr(tables, named).cache_clear()


@pytest.mark.parametrize("damage", ["cut", "emptied", "undigested"])
def test_a_damaged_library_is_compiled_again(damage, monkeypatch, tmp_path):
    compiled = []

    def compile_(command, header, extra, target):
        compiled.append(target)
        target.write_bytes(b"a library" * 100)

    monkeypatch.setenv("EQGAN_CACHE", str(tmp_path))
    monkeypatch.setattr(build, "_compile", compile_)
    header = group_header(group_fourier(P4.point_group))
    library = build._library(header, ())
    whole = library.read_bytes()
    assert build._library(header, ()) == library
    assert len(compiled) == 1
    if damage == "undigested":
        library.with_suffix(".sha256").unlink()
    else:
        library.write_bytes(whole[: 50 if damage == "cut" else 0])
    assert build._library(header, ()).read_bytes() == whole
    assert len(compiled) == 2


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated")  # the first jvp of a process
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_derivatives_taken_forwards_are_refused_by_the_operator_and_never_zero(dtype):
    x, weight = torch.randn(1, 8, 8, 8, dtype=dtype), torch.randn(3, 2, 36, dtype=dtype)
    with pytest.raises(RuntimeError, match="no forward-mode derivatives"):
        jvp(lambda w: torch.ops.eqgan.group_conv2d(x, w, None, GENERATORS, 3, 1), (weight,), (weight,))


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # inside opcheck
def test_what_torch_asks_of_the_packed_operator():
    layer, _, x = pair("regular")
    packed = layer._fourier.pack(layer.weight)
    packed_op = torch.ops.eqgan.group_conv2d_packed.default
    torch.library.opcheck(packed_op, (x, packed, layer.bias.detach(), 3, GENERATORS, 3, 1))


def test_many_planes_are_the_banks():
    """Whose sums of the filter's gradient would take more memory than the dense convolution does."""
    layer = LiftingConv2d(scalar(P4M, 64), regular(P4M, 64), 3, padding=1)
    x = torch.randn(1, 64, 8, 8)
    assert layer._fourier is not None
    assert not layer._fourier.takes(x, layer.weight)
    few = LiftingConv2d(scalar(P4M, 2), regular(P4M, 64), 3, padding=1)
    assert few._fourier.takes(x[:, :2], few.weight)
    arguments = x, layer.weight.detach(), None, *layer._fourier._window
    assert torch.equal(torch.ops.eqgan.group_conv2d(*arguments), by_bank.forward(*arguments))


def test_a_compiler_that_is_no_words_of_a_shell(monkeypatch):
    monkeypatch.setenv("CXX", 'c++ "')
    with pytest.raises(FileNotFoundError, match=r"in CXX, got c\+\+ \""):
        build.compiler()


def test_a_compiler_of_blanks_is_none_chosen(monkeypatch):
    plain = build.compiler()
    monkeypatch.setenv("CXX", " ")
    assert build.compiler() == plain


def test_a_mapped_file_of_any_name(monkeypatch, tmp_path):
    strange = tmp_path / "maps"
    strange.write_bytes(b"7f00-7f01 r--p 0 00:00 0 /media/\xff.bin\n")
    monkeypatch.setattr(native, "Path", lambda name: strange if name == "/proc/self/maps" else Path(name))
    native._openmp_of_torch.cache_clear()
    try:
        assert native._openmp_of_torch() is None
    finally:
        native._openmp_of_torch.cache_clear()


def test_a_compiler_with_flags(monkeypatch):
    plain = build.compiler()
    monkeypatch.setenv("CXX", f"{plain[0]} -O2 -DX='a b'")
    assert build.compiler() == [*plain, "-O2", "-DX=a b"]
