"""Compiled and exported layers: one graph, the same numbers, the same law."""

import copy
import shutil

import pytest
import torch
from torch import nn

from eqgan.groups import P2, P4, P4M, regular, scalar
from eqgan.nn import (
    CosetPool,
    FieldBatchNorm2d,
    FieldSequential,
    GlobalPool2d,
    GroupConv2d,
    GroupPool,
    Restrict,
    SubgroupPool,
)
from eqgan.testing import assert_equivariant
from tests.nn.cases import LAYERS, build, example, iterates, network

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
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
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
    chain.eval()
    program = torch.onnx.export(
        chain,
        (torch.randn(2, 1, 8, 8),),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    program.save(tmp_path / "chain.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "chain.onnx")
    (feed,) = session.get_inputs()
    for batch in (2, 5):
        x = torch.randn(batch, 1, 8, 8)
        (y,) = session.run(None, {feed.name: x.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(y), chain(x), rtol=1e-5, atol=1e-5)


def test_the_compiled_cases_cover_iterating_and_fixed_layers():
    assert {iterates(LAYERS[name]()) for name in COMPILED} == {True, False}
