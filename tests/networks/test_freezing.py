"""What is frozen stays, bit for bit, whatever the optimiser; the rest learns, at the rate of its stage."""

import copy

import pytest
import torch
from torch import nn

from eqgan.groups import P4, Z2
from eqgan.networks import freeze, inflate, parameter_groups
from eqgan.nn import GroupConv2d
from eqgan.testing import assert_invariant
from tests.networks.cases import CLASSIFIERS, classifier, images, train_classifier

EVERY = pytest.mark.parametrize("name", CLASSIFIERS)
OPTIMISERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.02, momentum=0.9, weight_decay=0.1, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1),
}


def steps(network, optimiser, count=3):
    for step in range(count):
        x = images(network, 6, seed=step)
        optimiser.zero_grad()
        nn.functional.cross_entropy(network.train()(x), torch.arange(6) % 3).backward()
        optimiser.step()
    return network


def filters(network):
    """Each convolution's whole filter, however it is held."""
    return {n: m.weight.detach().clone() for n, m in network.named_modules() if isinstance(m, GroupConv2d)}


def rest(network):
    """All of the state but the filters: norms with their statistics, biases, the dense head."""
    return {
        n: v.clone() for n, v in network.state_dict().items() if "parametrizations" not in n and v.ndim < 3
    }


def stage_of(network, name):
    module = network.get_submodule(name.rpartition(".")[0] if "." in name else name)
    return next(s for s, part in network.stages().items() if any(m is module for m in part.modules()))


@EVERY
@pytest.mark.parametrize("but", ["head", "last-stage", "everything"])
@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_only_what_is_left_free_moves(name, but, optimiser):
    network = classifier(name, P4)
    freeze(network, but)
    stages = list(network.stages())
    free = {"head": stages[-1:], "last-stage": stages[-2:], "everything": stages}[but]
    before = {n: v.clone() for n, v in network.state_dict().items()}
    steps(network, OPTIMISERS[optimiser](network.parameters()))
    for key, value in network.state_dict().items():
        if stage_of(network, key) not in free:
            assert torch.equal(before[key], value), f"{key} moved"
    moved = {stage_of(network, k) for k, v in network.state_dict().items() if not torch.equal(before[k], v)}
    assert moved == set(free)
    assert_invariant(network.eval(), images(network, 2), P4)


@pytest.mark.parametrize("name", ["resnet18", "resnet44", "p4cnn"])
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_identity_taps_stay_and_the_others_move(name, optimiser):
    network = train_classifier(classifier(name, P4))
    whole = filters(network)
    freeze(network, "off-identity")
    kept = rest(network)
    for key, value in filters(network).items():
        assert torch.equal(value, whole[key]), "freezing alone changes nothing"
    steps(network, OPTIMISERS[optimiser](network.parameters()))
    head = {id(m) for m in network.stages()["head"].modules()}
    for key, module in network.named_modules():
        if not isinstance(module, GroupConv2d) or id(module) in head:
            continue
        cells = module.kernel_size**2
        identity, others = module.weight.split([cells, module.weight.shape[2] - cells], 2)
        assert torch.equal(identity, whole[key][..., :cells]), key
        if module.in_type.dim > 1:
            assert not torch.equal(others, whole[key][..., cells:]), key
    for key, value in rest(network).items():
        if stage_of(network, key) != "head":
            assert torch.equal(value, kept[key]), key
    assert_invariant(network.eval(), images(network, 2), P4)


def test_batch_norm_of_the_frozen_part_stays_in_eval():
    network = classifier("resnet18", P4)
    freeze(network, "last-stage")
    norms = {n: m for n, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)}
    for mode in (network, network.body, network.body.residual[0]):
        mode.train()
    assert {n for n, m in norms.items() if m.training} == {
        n for n in norms if n.startswith("body.residual.3")
    }
    assert {n for n, m in norms.items() if m.weight.requires_grad} == {
        n for n, m in norms.items() if m.training
    }
    assert not any(m.training for m in network.eval().modules())
    freeze(network, "everything")
    assert all(m.training for m in network.train().modules())


def test_a_copy_stays_frozen():
    """As the copy does that holds the average of the weights."""
    network = classifier("resnet18", P4)
    x = images(network, 2)
    freeze(network, "off-identity")
    with torch.no_grad():
        expected = network.eval()(x)  # fills the caches
        twin = copy.deepcopy(network)
        assert torch.equal(twin(x), expected)
    trainable = [n for n, p in network.named_parameters() if p.requires_grad]
    assert [n for n, p in twin.named_parameters() if p.requires_grad] == trainable
    before = rest(twin)
    steps(twin, torch.optim.SGD(twin.parameters(), 0.1))
    assert all(torch.equal(before[k], v) for k, v in rest(twin).items() if not k.startswith("head"))
    with torch.no_grad():
        assert torch.equal(network(x), expected), "training the copy moved the original"


def test_a_state_dict_of_a_frozen_network():
    network = classifier("resnet18", P4)
    freeze(network, "off-identity")
    steps(network, OPTIMISERS["sgd"](network.parameters()))
    fresh = classifier("resnet18", P4, seed=3)
    freeze(fresh, "off-identity")
    fresh.load_state_dict(network.state_dict())
    x = images(network, 2)
    with torch.no_grad():
        assert torch.equal(fresh.eval()(x), network.eval()(x))


def test_freezing_anew_frees_first_and_keeps_what_was_learnt():
    network = classifier("resnet18", P4)
    names = [n for n, _ in network.named_parameters()]
    freeze(network, "off-identity")
    steps(network, OPTIMISERS["sgd"](network.parameters()))
    x = images(network, 2)
    learnt = filters(network)
    with torch.no_grad():
        expected = network.eval()(x)
        freeze(network, "everything")
        assert sorted(n for n, _ in network.named_parameters()) == sorted(names)
        assert all(torch.equal(v, learnt[k]) for k, v in filters(network).items())
        assert torch.equal(network.eval()(x), expected)
    assert all(p.requires_grad and p.is_leaf for p in network.parameters())
    train_classifier(network)
    assert not any(torch.equal(v, learnt[k]) for k, v in filters(network).items())


def test_the_knowledge_of_an_inflated_network_is_kept():
    """All off-identity taps at zero again, and what is left is the average of the plain network's maps."""
    plain = classifier("resnet18", Z2, width=3).eval()
    x = images(plain, 2)
    network = inflate(plain, P4)
    with torch.no_grad():
        expected = network(x)
    freeze(network, "off-identity")
    steps(network, OPTIMISERS["adamw"](network.parameters()))
    with torch.no_grad():
        assert (network.eval()(x) - expected).abs().max() > 1e-3
        for name, parameter in network.named_parameters():
            if name.endswith("original"):
                parameter.zero_()
        network.head.load_state_dict(plain.head.state_dict())
        torch.testing.assert_close(network(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("without_shape_checks")
def test_what_cannot_be_frozen():
    with pytest.raises(ValueError, match=r"expected one of \('head', .* to stay trainable, got 'stem'"):
        freeze(classifier("wide", P4), "stem")
    with pytest.raises(ValueError, match="off-identity taps are those of convolutions between"):
        freeze(classifier("wide", Z2), "off-identity")


# --- learning rates ---------------------------------------------------------------------------------------


@EVERY
def test_each_stage_has_its_rate(name):
    network = classifier(name, P4)
    groups = parameter_groups(network, lr=1.0, decay=0.5, rates={"head": 3.0})
    stages = network.stages()
    assert [g["name"] for g in groups] == list(stages)
    assert [g["lr"] for g in groups] == [*[0.5**k for k in range(len(stages) - 1, 0, -1)], 3.0]
    for group in groups:
        assert [id(p) for p in group["params"]] == [id(p) for p in stages[group["name"]].parameters()]
    optimiser = torch.optim.SGD(groups, 0.1, momentum=0.9)
    steps(network, optimiser, 1)


def test_frozen_stages_have_no_group():
    network = classifier("resnet18", P4)
    freeze(network, "last-stage")
    assert [g["name"] for g in parameter_groups(network, 0.1)] == ["stage4", "head"]
    freeze(network, "off-identity")
    groups = parameter_groups(network, 0.1)
    assert [g["name"] for g in groups] == ["stage1", "stage2", "stage3", "stage4", "head"]  # the stem lifts
    assert all(p.requires_grad for g in groups for p in g["params"])


def test_an_unknown_stage():
    with pytest.raises(ValueError, match="no stage 'stage9' in this network; it has stem, stage1"):
        parameter_groups(classifier("resnet18", P4), 0.1, rates={"stage9": 1.0})
