"""What a width means under a group, and what a network costs."""

import pytest
import torch
from torch import nn

from eqgan.groups import P4, P4M, SQUARE_PLANE_GROUPS, Z2, plane_group, regular
from eqgan.networks import ConvGenerator, VanillaGenerator, budget, fields_for
from eqgan.nn import GroupConv2d, UpsampleConv2d
from eqgan.nn.fourier import convolution_paths
from tests.networks.cases import BODIES, discriminator


@pytest.mark.parametrize(
    ("width", "group", "rule", "fields"),
    [
        (64, "z2", "parameters", 64),
        (64, "p2", "parameters", 45),  # 64 / sqrt 2 = 45.25
        (64, "p4", "parameters", 32),
        (64, "p4m", "parameters", 23),  # 64 / sqrt 8 = 22.6
        (64, "p4", "activations", 16),
        (64, "p4m", "activations", 8),
        (64, "p4m", "none", 64),
        (1, "p4m", "activations", 1),  # never none at all
    ],
)
def test_fields(width, group, rule, fields):
    assert fields_for(width, plane_group(group), rule) == fields


@pytest.mark.usefixtures("without_shape_checks")
def test_fields_for_nothing():
    with pytest.raises(ValueError, match="width of at least 1, got 0"):
        fields_for(0, P4)
    with pytest.raises(ValueError, match=r"expected match in .*, got 'cost'"):
        fields_for(8, P4, "cost")


def convolutions_of_the_conv_body(n1, n2, n3, order):
    """Multiply-adds at 28, 14 and 7: sites x channels out x channels in x 9; then the head."""
    channels = [1, n1 * order, n2 * order, n3 * order]
    sides = (28, 14, 7)
    return sum(s * s * b * a * 9 for s, a, b in zip(sides, channels, channels[1:])) + n3


@pytest.mark.parametrize("spectral", [None, "bank", "operator"])
@pytest.mark.parametrize(("group", "fields"), [(Z2, (8, 16, 32)), (P4, (4, 8, 16))])
def test_multiply_adds_against_a_hand_count(group, fields, spectral):
    network = discriminator("conv", group, spectral=spectral).train()
    counted = budget(network, torch.zeros(1, 1, 28, 28, dtype=torch.float64))
    assert counted.multiply_adds == convolutions_of_the_conv_body(*fields, group.order)
    assert network.training, "counting changed the mode"


def test_the_count_does_not_depend_on_the_way(monkeypatch):
    x = torch.zeros(1, 8, 8, 8)
    counts = {}
    for way in ("bank", "fourier"):
        monkeypatch.setenv("EQGAN_CONV", way)
        kinds = regular(P4, 2), regular(P4, 2)
        network = nn.Sequential(UpsampleConv2d(*kinds, 3), GroupConv2d(*kinds, 4, 2, 1))
        counts[way] = budget(network, x).multiply_adds
        assert set(convolution_paths(network, x).values()) <= {way, "bank"}, "counting changed the way"
    assert counts["fourier"] == counts["bank"] == 2 * 8 * 8 * 8 * 8 * 16


def test_parameters_against_a_hand_count():
    n1, n2, n3 = 4, 8, 16
    # one 3x3 filter a pair of fields and, between regular ones, an element; a bias a field; the head
    by_hand = (9 * n1 + n1) + (9 * 4 * n1 * n2 + n2) + (9 * 4 * n2 * n3 + n3) + (n3 + 1)
    network = discriminator("conv", P4)
    assert budget(network, torch.zeros(1, 1, 28, 28, dtype=torch.float64)).parameters == by_hand


def test_a_plain_network_is_counted_too():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    assert vars(budget(network, torch.zeros(1, 3, 2, 2))) == {"parameters": 65, "multiply_adds": 60}


@pytest.mark.parametrize("body", BODIES)
def test_equal_parameters_across_groups(body):
    """Within 5 per cent of the plain network at a width of 32: fields are whole."""
    counts = {
        name: sum(p.numel() for p in discriminator(body, group, width=32, spectral=None).parameters())
        for name, group in SQUARE_PLANE_GROUPS.items()
    }
    for name, count in counts.items():
        assert abs(count / counts["z2"] - 1) < 0.05, counts[name]
    unmatched = discriminator(body, P4M, width=32, spectral=None, match="none")
    assert sum(p.numel() for p in unmatched.parameters()) > 6 * counts["z2"]


@pytest.mark.parametrize("body", BODIES)
def test_equal_activations(body):
    counts = []
    for group in (Z2, P4, P4M):
        network = discriminator(body, group, width=32, spectral=None, match="activations")
        counts.append(budget(network, torch.zeros(1, 1, 28, 28, dtype=torch.float64)).multiply_adds)
    assert max(counts) < 1.01 * min(counts)


def test_the_generators():
    assert budget(VanillaGenerator((1, 28, 28)), torch.zeros(1, 128)).parameters == 1_493_520
    conv = budget(ConvGenerator((1, 28, 28), latent_dim=128, width=16), torch.zeros(1, 128))
    dense = 128 * 64 * 49
    # 3x3 after doubling is done as 4x4 before it
    mid, full = 7 * 7 * 64 * 32 * 16, 14 * 14 * 32 * 16 * 16
    assert conv.multiply_adds == dense + mid + full + 28 * 28 * 16 * 9
