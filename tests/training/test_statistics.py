"""Batch-norm statistics recomputed before a network is judged."""

import copy

import pytest
import torch
from torch import nn

from eqgan.groups import P4
from eqgan.networks import P4CNNClassifier, freeze
from eqgan.training.ema import ema_generator
from eqgan.training.statistics import recompute_statistics, sample_batches

X = torch.rand(12, 1, 22, 22, generator=torch.Generator().manual_seed(0))


def network(dropout=0.0):
    torch.manual_seed(0)
    return P4CNNClassifier((1, 22, 22), 3, P4, width=4, dropout=dropout)


def norms(module):
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


def test_the_first_norm_has_the_plain_average_over_the_batches():
    net = network()
    norms(net)[0].running_mean.fill_(100.0)
    recompute_statistics(net, X.split(4))
    with torch.no_grad():
        responses = net.body.maps[0](X).unflatten(1, (2, 4))
    torch.testing.assert_close(norms(net)[0].running_mean, responses.mean((0, 2, 3, 4)))
    assert all(m.momentum == 0.1 for m in norms(net))


@pytest.mark.parametrize("training", [False, True])
def test_nothing_else_changes(training):
    net = network(dropout=0.5).train(training)
    before = copy.deepcopy(net.state_dict())
    recompute_statistics(net, X.split(4))
    changed = {n.rpartition(".")[2] for n, v in net.state_dict().items() if not torch.equal(v, before[n])}
    assert changed == {"running_mean", "running_var", "num_batches_tracked"}
    assert all(m.training == training for m in net.modules())
    again = copy.deepcopy(net)
    recompute_statistics(again, X.split(4))
    assert all(torch.equal(v, again.state_dict()[n]) for n, v in net.state_dict().items()), "dropout was on"


def test_of_an_averaged_network_whose_parameters_have_no_gradient():
    average = ema_generator(network(), 0.9)
    before = norms(average)[0].running_mean.clone()
    recompute_statistics(average, X.split(4))
    assert not torch.equal(norms(average)[0].running_mean, before)


def test_frozen_norms_keep_theirs_in_the_network_and_in_its_average():
    net = network()
    recompute_statistics(net, X.split(4))
    freeze(net, "last-stage")
    for judged in (net, ema_generator(net, 0.9)):
        before = [m.running_mean.clone() for m in norms(judged)]
        recompute_statistics(judged, (0.5 * X).split(4))
        moved = [not torch.equal(m.running_mean, b) for m, b in zip(norms(judged), before)]
        assert moved == [False] * 5 + [True]


def test_against_the_definition():
    """Mean and unbiased variance of each field in each batch, then their mean over the batches."""
    net, batches = network(), X.split(4)
    maps = [net.body.maps[0](x).detach().unflatten(1, (2, 4)).transpose(0, 1).flatten(1) for x in batches]
    recompute_statistics(net, batches)
    first = norms(net)[0]
    torch.testing.assert_close(first.running_mean, torch.stack([m.mean(1) for m in maps]).mean(0))
    torch.testing.assert_close(first.running_var, torch.stack([m.var(1) for m in maps]).mean(0))


def test_a_network_without_batch_norm_sees_no_batch():
    recompute_statistics(nn.Linear(2, 2), iter(lambda: pytest.fail("a batch was drawn"), None))


def test_the_first_batches():
    loader = [(torch.full((1,), i), torch.zeros(1)) for i in range(5)]
    assert [int(x) for x in sample_batches(loader, 3)] == [0, 1, 2]
    assert [int(x) for x in sample_batches(loader, 9)] == [0, 1, 2, 3, 4]
