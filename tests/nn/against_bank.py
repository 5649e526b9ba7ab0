"""What every layer on the fast path is held to: the numbers of its filter bank, in float64."""

import copy
import itertools
from unittest.mock import patch

import pytest
import torch

from eqgan.groups import P4
from eqgan.nn.fourier import choice, engine, tables

needs_engine = pytest.mark.skipif(engine.engine(P4.point_group) is None, reason="no C++ compiler")


def close(ours, exact, tolerance=2e-6):
    """To a few roundings of float32, of the largest value."""
    assert ours.shape == exact.shape
    if exact.numel():
        assert (ours.double() - exact).abs().max() <= tolerance * exact.abs().max().clamp_min(1e-3)


def as_if_measured(monkeypatch, part, times, margin=1.0):
    """Has the choice by size know these times of C4 and nothing else; returns what it knows, by part."""
    known = {part: {"groups": ["C4"], "times": times, "margins": dict.fromkeys(times, margin)}}
    monkeypatch.setattr(choice, "measured", lambda: {"fits": {choice.instruction_set(): {"one": known}}})
    return known


def layout_by(name, other):
    """What an engine is told if one of its tables is made otherwise."""

    def layout(*arguments):
        with patch.object(tables, name, other):
            return tables.layout.__wrapped__(*arguments)

    return layout


def bank_of(layer):
    """The same layer by its bank in float64."""
    exact = copy.deepcopy(layer).double()
    exact._fourier = None
    return exact


def bank_values(layer, x, grad):
    """Output and gradients of the bank in float64."""
    exact = bank_of(layer)
    x = x.detach().double().requires_grad_()
    y = exact(x)
    return y, torch.autograd.grad(y, (x, exact.weight, exact.bias), grad.double())


def compare_gradients(chosen, arguments, gradients, tolerance=2e-6):
    """All that may be needed together; what is not needed is empty."""
    for need in itertools.product((True, False), repeat=3):
        for ours, theirs, needed in zip(chosen.backward(*arguments, need), gradients, need, strict=True):
            close(ours, theirs if needed else theirs.new_empty(0), tolerance)


def views(x):
    """The same numbers, and parts of them, in several layouts."""
    yield x
    yield x.to(memory_format=torch.channels_last)
    yield x.transpose(2, 3).contiguous().transpose(2, 3)
    yield torch.cat([x, x], 1)[:, : x.shape[1]]
    yield x[:0]
    yield x[:1]


def compare_whatever_the_strides(layer, maps):
    """Of maps, and of the gradient that comes back."""
    for x in views(maps):
        y = layer(x)
        grad = torch.randn_like(y).to(memory_format=torch.channels_last)
        exact, gradients = bank_values(layer, x, grad)
        close(y.detach(), exact.detach())
        variable = x.detach().requires_grad_()
        wanted = variable, layer.weight, layer.bias
        for ours, theirs in zip(torch.autograd.grad(layer(variable), wanted, grad), gradients, strict=True):
            close(ours, theirs)


def compare_penalties(layer, x):
    """Gradients of a gradient penalty."""

    def penalty(layer, x):
        x = x.requires_grad_()
        (gradient,) = torch.autograd.grad(layer(x).tanh().sum(), x, create_graph=True)
        gradient.square().sum().backward()
        return layer.weight.grad.clone(), layer.bias.grad.clone(), x.grad

    exact = bank_of(layer)
    for ours, theirs in zip(penalty(layer, x), penalty(exact, x.detach().double()), strict=True):
        close(ours, theirs, 2e-5)


def compare_compiled(layer, x):
    """Compiled in one graph, with gradients and without, and exported without our operators."""
    torch.compiler.reset()
    layer.eval()
    graph = torch.compile(copy.deepcopy(layer), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(graph(x), layer(x))
    graph(x).sum().backward()
    with torch.no_grad():
        torch.testing.assert_close(graph(x), layer(x))
    program = torch.export.export(layer, (x,))
    assert "eqgan" not in str(program.graph), "exported programs run where there is no eqgan"
    torch.compiler.reset()


def compare_vmap_and_jvp(layer, x):
    """Of two batches: each by itself, and the derivative at the first along the second."""
    torch.testing.assert_close(torch.func.vmap(layer)(x), torch.stack([layer(part) for part in x]))
    _, tangent = torch.func.jvp(layer, (x[0],), (x[1],))
    linear = copy.deepcopy(layer).double()
    close(tangent.detach(), (linear(x[1].double()) - linear(torch.zeros_like(x[1]).double())).detach())


def subgroups(plane):
    """The elements of each subgroup that is neither the identity alone nor the group."""
    group = plane.point_group
    found = {(group.identity,)}
    while True:
        more = {closure(group, (*known, g)) for known in found for g in range(group.order)} - found
        if not more:
            return sorted(members for members in found if 1 < len(members) < group.order)
        found |= more


def closure(group, generators):
    """The elements of the subgroup that these generate."""
    members = set(generators)
    while (products := {int(group.product[a, b]) for a in members for b in members}) - members:
        members |= products
    return tuple(sorted(members))
