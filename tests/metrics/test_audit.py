"""The report on a network: the right groups, the right layer, a verdict that says so."""

import json

import pytest
import torch
from torch import nn

from eqgan.groups import P2MM, P4, P4M, SQUARE_PLANE_GROUPS, Z2, regular, scalar
from eqgan.metrics.audit import audit, named_group
from eqgan.networks import ConvDiscriminator, MLPDiscriminator, StridedDiscriminator
from eqgan.nn import GroupConv2d, LiftingConv2d

SHAPE = (1, 12, 12)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def subgroups(group):
    matrices = {str(m.tolist()) for m in group.point_group.elements}
    inside = {n: {str(m.tolist()) for m in g.point_group.elements} for n, g in SQUARE_PLANE_GROUPS.items()}
    return {name for name, members in inside.items() if members <= matrices}


@pytest.mark.parametrize("group", [g for g in SQUARE_PLANE_GROUPS.values() if g != Z2], ids=str)
def test_the_group_of_a_discriminator_is_found(group):
    found = audit(ConvDiscriminator(SHAPE, group, width=6), SHAPE, degrees=(45.0, 90.0))
    assert set(found.exact_groups) == subgroups(group)
    assert (found.law, found.group) == ("invariant", group)
    assert found.breaks_in is None
    assert f"Exactly invariant under {group}:" in found.verdict()[0]
    assert found.rotations[0].error > 1e-2


def test_a_network_without_symmetry():
    found = audit(MLPDiscriminator(SHAPE, hidden=(8,)), SHAPE)
    assert found.exact_groups == ("z2",)
    assert found.group == P4M
    assert found.verdict()[0].startswith("Not invariant under p4m: ")
    assert found.verdict()[1] == (
        "The symmetry is lost in layers.0 (Linear): its input follows p4m, its output does not."
    )


class Cut(nn.Module):
    """A p4 network with an average pool that drops a row: 7 to 3."""

    def __init__(self):
        super().__init__()
        self.lift = LiftingConv2d(scalar(P4, 1), regular(P4, 2), 3, padding=1)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x):
        return self.pool(self.lift(x).relu()).mean((2, 3)).unflatten(1, (2, 4)).amax(2)


def test_the_layer_that_breaks_it_is_named():
    assert audit(Cut(), SHAPE, P4).holds(P4)
    found = audit(Cut(), (1, 7, 7), P4)
    assert not found.holds(P4)
    assert found.breaks_in.name == "pool"
    assert "lost in pool (AvgPool2d): its input follows p4, its output does not" in " ".join(found.verdict())


def test_maps_are_equivariant_and_measured_in_decibels():
    blur = nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular", bias=False)
    blur.weight = nn.Parameter(torch.tensor([[[[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]]]))
    found = audit(blur, (1, 24, 24), degrees=(0, 45, 90))
    assert found.law == "equivariant"
    assert found.holds(P4M)
    assert found.rotations[1].psnr > 35
    assert found.as_dict()["eq_r"] == pytest.approx(found.rotations[1].psnr)
    assert "EQ-R" in found.verdict()[-1]
    assert 40 < found.ceiling[1] < 80


def test_typed_networks_are_held_to_their_types():
    network = nn.Sequential(LiftingConv2d(scalar(P4, 1), regular(P4, 2), 3))
    network.out_type = regular(P4, 2)
    found = audit(network, SHAPE)
    assert found.exact_groups[-1] == "p4"
    assert len(found.elements) == 4
    assert found.rotations == ()
    untyped = nn.Sequential(network[0])
    assert audit(untyped, SHAPE, P4).exact_groups == ("z2",), "channels are taken as scalars"
    assert audit(untyped, SHAPE, P4, fields="regular").holds(P4)
    inner = GroupConv2d(regular(P4, 1), regular(P4, 2), 3)
    assert audit(inner, (4, 9, 9)).holds(P4)


def test_oblong_images():
    found = audit(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), (1, 8, 12), degrees=())
    assert found.group == P2MM
    assert found.holds(P2MM)
    with pytest.raises(ValueError, match="quarter turns"):
        audit(nn.Flatten(), (1, 8, 12), P4)


def test_the_network_itself_stays_as_it_is():
    network = StridedDiscriminator((1, 28, 28), P4, width=4).train()
    audit(network, (1, 28, 28), degrees=())
    assert network.training
    assert {p.dtype for p in network.parameters()} == {torch.float32}


class Single(nn.Module):
    """Computes in float32 whatever it is given."""

    def forward(self, x):
        return x @ torch.eye(12)


@pytest.mark.parametrize(
    ("network", "options", "told"),
    [
        (Single(), {}, "--dtype float32"),
        (nn.Conv2d(3, 1, 1), {}, "fails on .* images .*Give the shape"),
        (nn.Flatten(), {"law": "equivariant"}, "expected maps to be equivariant"),
        (nn.Conv2d(1, 6, 1), {"fields": "regular"}, "no regular fields of p4m"),
        (GroupConv2d(regular(P4, 1), regular(P4, 1), 1), {}, "the network takes 1 x p4 regular"),
        (nn.Flatten(), {"images": torch.rand(3, 1, 12, 12)}, "at least 4 images"),
    ],
)
def test_what_cannot_be_measured(network, options, told):
    with pytest.raises(ValueError, match=told):
        audit(network, SHAPE, **options)


def test_float32_has_its_own_tolerance():
    found = audit(Single(), SHAPE, dtype=torch.float32, law="equivariant", degrees=())
    assert found.tolerance == 1e-4
    assert found.holds(P4M)


def test_real_images_may_be_given():
    images = torch.rand(6, 1, 12, 12) * 2 - 1
    found = audit(ConvDiscriminator(SHAPE, P4, width=4), SHAPE, images=images, degrees=(45,))
    assert found.holds(P4)


def test_it_is_the_same_for_the_same_seed_and_fits_json():
    network = ConvDiscriminator(SHAPE, P4, width=4)
    first, second, other = (audit(network, SHAPE, degrees=(30,), seed=s).as_dict() for s in (0, 0, 1))
    assert first == second
    assert first != other
    assert json.loads(json.dumps(first))["exact_groups"] == ["z2", "p2", "p4"]


def test_groups_by_name():
    assert named_group("P4") == P4
    with pytest.raises(ValueError, match="hexagonal lattice"):
        named_group("p6")
