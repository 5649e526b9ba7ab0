"""Fiber pools between layers: their texts, where they may stand, and what they leave."""

import jsonargparse
import pytest

from eqgan.cli import parsing  # registers the types  # noqa: F401
from eqgan.groups import P2, P4, P4M, plane_group, quotient, regular, scalar
from eqgan.networks import Classifier, FiberPool, fiber_pool
from eqgan.networks.fiber import pools_after

TEXTS = ["group", "group:mean", "coset:p2", "coset:p2:mean", "coset:p4@1,3", "group@2", "subgroup:p2:mean@4"]


@pytest.mark.parametrize("text", TEXTS)
def test_text_round_trip(text):
    assert str(fiber_pool(text)) == text


def test_max_is_what_is_meant_when_nothing_is_said():
    assert fiber_pool("coset:p2:max") == fiber_pool("coset:p2") == FiberPool("coset", P2)
    assert fiber_pool("group") == FiberPool()


@pytest.mark.parametrize("text", ["", "group:p2", "coset", "coset:", "coset:p2@x", "pool:p2", "coset:p2:sum"])
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match=r"expected|unknown plane group"):
        fiber_pool(text)


@pytest.mark.parametrize("text", ["subgroup:p2", "subgroup:p2@1,2"])
def test_a_subgroup_pool_names_its_one_layer(text):
    with pytest.raises(ValueError, match=r"the one layer it stands after, such as 'subgroup:p2@2'"):
        fiber_pool(text)


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "stride"}, r"kind 'coset' or 'subgroup', got 'stride'"),
        ({"mode": "sum"}, r"mode 'max' or 'mean', got 'sum'"),
        ({"after": (0, 1)}, r"numbers of layers from 1, got \(0, 1\)"),
        ({"after": ()}, r"numbers of layers from 1, got \(\)"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        FiberPool(**options)


def test_what_stands_after_a_layer():
    fields = regular(P4M, 3)
    assert pools_after(1, fields, None) == ()
    assert pools_after(1, fields, fiber_pool("coset:p4@2")) == ()
    assert pools_after(2, fields, fiber_pool("coset:p4@2"))[0].out_type == quotient(P4M, P4, 3)
    assert pools_after(7, fields, FiberPool())[0].out_type == scalar(P4M, 3)
    assert pools_after(1, fields, fiber_pool("subgroup:p2:mean@1"))[0].out_type == regular(P2, 3)


def test_a_layer_the_network_does_not_have():
    fiber_pool("coset:p2@6").check(6, "Net")
    with pytest.raises(ValueError, match=r"Net can pool the fiber after its layers 1 to 6, got 'coset:p2@7'"):
        fiber_pool("coset:p2@7").check(6, "Net")


def test_in_a_config():
    """One word in YAML, an object in the network."""
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Classifier, "network", skip={"image_shape", "num_classes"})
    words = ["--network", "eqgan.networks.P4CNNClassifier", "--network.group", "p4", "--network.fiber"]
    settings = parser.parse_args([*words, "subgroup:p2@2"])
    assert settings.network.init_args.fiber == fiber_pool("subgroup:p2@2")
    assert "fiber: subgroup:p2@2" in parser.dump(settings)
    with pytest.raises(jsonargparse.ArgumentError, match="did you mean 'p2mm'"):
        parser.parse_args([*words, "coset:p2mn"])
    assert settings.network.init_args.group == plane_group("p4")
