"""Compiled and exported layers: one graph, the same numbers, the same law."""

import copy
import shutil

import pytest
import torch
from torch import nn

from eqgan.groups import P2, P4, P4M, quotient, regular, scalar
from eqgan.nn import (
    AvgPool2d,
    ConditionalFieldBatchNorm2d,
    CosetPool,
    FieldBatchNorm2d,
    FieldSequential,
    GlobalPool2d,
    GroupConv2d,
    GroupPool,
    LiftingConv2d,
    MaxPool2d,
    Restrict,
    SubgroupPool,
    Upsample2d,
)
from eqgan.testing import assert_equivariant
from tests.nn.cases import LAYERS, REPRESENTATIVE, build, example, iterates, network

pytestmark = [
    pytest.mark.usefixtures("without_shape_checks"),
    # deprecated calls inside the compiler and the exporter are not ours
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

COMPILED = [
    "p4m-quotient-quotient-k4-s2-p2",
    "p4-regular-bank-s2",
    "p4-regular-operator-s1",
    "conditional-batch-norm-True",
    "p4m-network",
    "descent",
    "generator",
]


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def require_same_as_eager(module, backend, tolerance):
    """Outputs and gradients in train and in eval mode, then the law in eval mode."""
    eager, compiled = module, copy.deepcopy(module)
    graph = torch.compile(compiled, fullgraph=True, backend=backend)
    x = example(module)
    for mode in (True, False):
        eager.train(mode), compiled.train(mode)
        outputs = eager(x), graph(x)
        torch.testing.assert_close(*outputs, rtol=tolerance, atol=tolerance)
        for y in outputs:
            y.square().sum().backward()
        for ours, theirs in zip(eager.parameters(), compiled.parameters()):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=tolerance, atol=tolerance)
    for ours, theirs in zip(eager.buffers(), compiled.buffers()):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    assert_equivariant(graph, x, module.in_type, module.out_type)


@pytest.mark.parametrize("name", COMPILED)
def test_compiled(name):
    require_same_as_eager(build(LAYERS[name]), "aot_eager", 1e-10)


def one_of_each() -> list[str]:
    """A layer of each kind over each group; convolutions also by what they map between."""
    first: dict[tuple, str] = {}
    for name, factory in REPRESENTATIVE.items():
        module = factory()
        kinds = (module.in_type.representation.is_regular, module.out_type.representation.is_regular)
        first.setdefault((type(module), str(module.in_type.group), *kinds), name)
    return [name for name in first.values() if name not in COMPILED]


@pytest.mark.parametrize("name", one_of_each())
def test_every_kind_of_layer_is_one_graph_over_every_group(name):
    """As traced, without a compiler behind it: what that makes of a graph is tested on the cases above."""
    module = build(LAYERS[name]).eval()
    x = example(module)
    graph = torch.compile(module, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(graph(x), module(x), rtol=1e-12, atol=1e-12)
        assert_equivariant(graph, x, module.in_type, module.out_type)


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_compiled_with_the_default_backend():
    """One graph only: a C++ compiler takes seconds for each."""
    module = build(lambda: network(P4, "bank")).eval()
    x = example(module)
    graph = torch.compile(module, fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(graph(x), module(x), rtol=1e-10, atol=1e-10)
    assert_equivariant(graph, x, module.in_type, module.out_type)


def test_a_compiled_layer_sees_new_weights():
    module = build(LAYERS["p4-regular-regular-k3-s1-p1"]).eval()
    graph = torch.compile(module, fullgraph=True, backend="aot_eager")
    x = example(module)
    with torch.no_grad():
        before = graph(x)
        module.weight.mul_(2)
        assert not torch.equal(graph(x), before)
        torch.testing.assert_close(graph(x), module(x))


@pytest.mark.parametrize("name", ["p4-regular-bank-s2", "p4m-network", "descent"])
def test_exported_program(name):
    module = build(LAYERS[name]).eval()
    x = example(module)
    program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    more = torch.cat([x, x[:1] + 1])
    with torch.no_grad():
        torch.testing.assert_close(program.module()(more), module(more), rtol=1e-12, atol=1e-12)


def test_onnx(tmp_path):
    """Runs elsewhere with any batch size, and equal to 1e-5."""
    torch.manual_seed(0)
    chain = FieldSequential(
        *network(P4M, "bank")[:-1],
        CosetPool(regular(P4M, 3), (0, 4), "mean"),
        GroupPool(CosetPool(regular(P4M, 3), (0, 4)).out_type),
        Restrict(scalar(P4M, 3), P4),
        GroupConv2d(scalar(P4, 3), regular(P4, 2), 3),
        SubgroupPool(regular(P4, 2), P2),
        FieldBatchNorm2d(regular(P2, 2)),
        GlobalPool2d(),
        nn.Flatten(),
    )
    chain(torch.randn(4, 1, 8, 8))
    require_same_elsewhere(chain.eval(), tmp_path)


class Drawing(nn.Module):
    """What a generator has and a discriminator has not: up-sampling, and norms told by a condition."""

    def __init__(self):
        super().__init__()
        half, whole = quotient(P4M, P4, 2), regular(P4M, 2)
        self.lift = LiftingConv2d(scalar(P4M, 1), whole, 3, padding="same", spectral="operator", input_size=8)
        self.norm = ConditionalFieldBatchNorm2d(whole, 3, spectral=True)
        self.layers = nn.Sequential(
            *(Upsample2d(whole), GroupConv2d(whole, half, 3, padding="same", spectral="filter")),
            *(MaxPool2d(half, 3, 1, 1), Upsample2d(half, 2, "bilinear"), AvgPool2d(half, 2)),
            *(GroupConv2d(half, whole, 4), GroupPool(whole)),
        )

    def forward(self, x):
        return self.layers(self.norm(self.lift(x), x[:, 0, 0, :3]))


def test_onnx_of_a_generators_layers(tmp_path):
    torch.manual_seed(0)
    drawing = Drawing()
    drawing(torch.randn(4, 1, 8, 8))
    require_same_elsewhere(drawing.eval(), tmp_path)


def require_same_elsewhere(module, folder):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    program = torch.onnx.export(
        module,
        (torch.randn(2, 1, 8, 8),),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    program.save(folder / "module.onnx")
    session = onnxruntime.InferenceSession(folder / "module.onnx")
    (feed,) = session.get_inputs()
    for batch in (2, 5):
        x = torch.randn(batch, 1, 8, 8)
        (y,) = session.run(None, {feed.name: x.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(y), module(x), rtol=1e-5, atol=1e-5)


def test_the_compiled_cases_cover_iterating_and_fixed_layers():
    assert {iterates(LAYERS[name]()) for name in COMPILED} == {True, False}
