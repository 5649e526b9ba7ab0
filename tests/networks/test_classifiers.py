"""One law, many classifiers and groups: the logits are exactly invariant, whatever was done."""

import copy
import io

import pytest
import torch
from torch import nn

from eqgan.groups import P2, P4, P4M, SQUARE_PLANE_GROUPS, plane_group
from eqgan.networks import Classifier, fiber_pool
from eqgan.nn import FieldBatchNorm2d, GroupConv2d
from eqgan.testing import assert_invariant
from tests.networks.cases import CLASSIFIERS, classifier, images, train_classifier

EVERY = pytest.mark.parametrize("name", CLASSIFIERS)
EVERY_GROUP = pytest.mark.parametrize(
    "group", [g for g in SQUARE_PLANE_GROUPS.values() if g.order > 1], ids=str
)


@EVERY
@EVERY_GROUP
def test_the_logits_are_invariant_whatever_was_done(name, group):
    network = classifier(name, group)
    before = copy.deepcopy(network.state_dict())
    x = images(train_classifier(network), 2)
    still = [n for n, p in network.named_parameters() if torch.equal(p, before[n]) and p.ndim > 1]
    assert not still, "a filter did not move"
    assert_invariant(network.eval(), x, group)
    assert_invariant(copy.deepcopy(network), x, group)

    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    fresh = classifier(name, group, seed=1).eval()
    fresh.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        assert torch.equal(fresh(x), network(x))


@EVERY
def test_the_other_side_and_three_channels(name):
    network = train_classifier(classifier(name, P4M, CLASSIFIERS[name][1][1], channels=3))
    assert_invariant(network, images(network, 2), P4M)


@EVERY
def test_float32_and_channels_last(name):
    network = train_classifier(classifier(name, P4)).float().eval()
    x = images(network, 2).float()
    assert_invariant(network, x, P4, rtol=1e-4)
    assert_invariant(network.to(memory_format=torch.channels_last), x, P4, rtol=1e-4)


@EVERY
@pytest.mark.parametrize(("group", "larger"), [("z2", "p2"), ("p4", "p4m")])
def test_it_is_not_invariant_under_more_than_it_promises(name, group, larger):
    network = classifier(name, plane_group(group))
    network = train_classifier(network).eval()
    with pytest.raises(AssertionError, match=f"not invariant under element .* of {larger}"):
        assert_invariant(network, images(network, 2), plane_group(larger))


@EVERY
def test_a_broken_table_is_caught(name):
    network = train_classifier(classifier(name, P4)).eval()
    next(m for m in network.modules() if isinstance(m, GroupConv2d)).index.view(-1)[:9] = 0
    with pytest.raises(AssertionError, match="not invariant"):
        assert_invariant(network, images(network, 2), P4)


@EVERY
def test_stages_hold_every_parameter_once_from_image_to_logits(name):
    network = classifier(name, P4)
    stages = network.stages()
    assert list(stages)[-1] == "head"
    assert len(stages) > 2
    held = [id(p) for part in stages.values() for p in part.parameters()]
    assert len(held) == len(set(held))
    assert set(held) == {id(p) for p in network.parameters()}
    assert all(list(part.parameters()) for part in stages.values())
    order = [n for n, _ in network.named_parameters()]
    first = {id(p): i for i, (_, p) in enumerate(network.named_parameters())}
    starts = [min(first[id(p)] for p in part.parameters()) for part in stages.values()]
    assert starts == sorted(starts), order


@EVERY
@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width of at least 1"),
        ({"match": "weights"}, r"match in .*'weights'"),
        ({"pool": "sum"}, "mode 'max' or 'mean'"),
        ({"fiber": fiber_pool("coset:p2@12")}, r"after its layers 1 to \d, got 'coset:p2@12'"),
        ({"fiber": fiber_pool("coset:p4m@1")}, "D4 is not a subgroup of C4"),
    ],
)
def test_bad_arguments(name, options, message):
    with pytest.raises(ValueError, match=message):
        classifier(name, P4, **options)


@EVERY
def test_images_and_classes_that_it_does_not_take(name):
    factory, (side, _), special = CLASSIFIERS[name]
    with pytest.raises(ValueError, match=r"expected square images, got 28x32.*--size"):
        factory((1, 28, 32), 3, P4, **special)
    with pytest.raises(ValueError, match=r"which p6 does not map to themselves"):
        factory((1, side, side), 3, plane_group("p6"), **special)
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        factory((1, side, side), 1, P4, **special)


def test_classifier_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        Classifier((1, 28, 28), 10, P4)


# --- pooling part of the fiber ----------------------------------------------------------------------------

POOLED = ["p4cnn", "allcnn", "resnet18", "resnet44", "wide"]


@pytest.mark.parametrize("name", POOLED)
@pytest.mark.parametrize("text", ["coset:p2", "coset:p2@1", "coset:pm:mean", "coset:p4m@2"])
def test_coset_pools_keep_the_whole_group(name, text):
    network = train_classifier(classifier(name, P4M, fiber=fiber_pool(text))).eval()
    assert network.group == P4M
    assert_invariant(network, images(network, 2), P4M)


@pytest.mark.parametrize("name", POOLED)
@pytest.mark.parametrize("mode", ["max", "mean"])
def test_a_subgroup_pool_leaves_the_subgroup_and_says_so(name, mode):
    network = train_classifier(classifier(name, P4, fiber=fiber_pool(f"subgroup:p2:{mode}@2"))).eval()
    assert network.group == P2
    x = images(network, 2)
    assert_invariant(network, x, P2)
    with pytest.raises(AssertionError, match="not invariant under element 1 of p4"):
        assert_invariant(network, x, P4)


def test_pooling_over_nothing_changes_nothing():
    """The trivial subgroup: same weights, same logits."""
    plain = classifier("p4cnn", P4).eval()
    pooled = classifier("p4cnn", P4, fiber=fiber_pool("coset:z2")).eval()
    for ours, theirs in zip(pooled.parameters(), plain.parameters()):
        ours.data.copy_(theirs.data)
    assert torch.equal(plain(images(plain)), pooled(images(plain)))


def test_statistics_are_shared_over_the_fiber():
    for name in CLASSIFIERS:
        norms = [m for m in classifier(name, P4).modules() if isinstance(m, nn.BatchNorm2d)]
        assert norms
        assert all(isinstance(m, FieldBatchNorm2d) for m in norms)
