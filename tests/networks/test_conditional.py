"""Conditional networks: as symmetric given the label, unchanged without one, and clear when one lacks."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eqgan.groups import P4, P4M, SQUARE_PLANE_GROUPS, Z2
from eqgan.networks import (
    ConvDiscriminator,
    ConvGenerator,
    Discriminator,
    GroupGenerator,
    MLPDiscriminator,
    OrbitGenerator,
    VanillaGenerator,
)
from eqgan.networks.conditional import ProjectionHead
from eqgan.nn import FieldSequential
from eqgan.testing import assert_invariant
from tests.networks.cases import BODIES, discriminator, images

GENERATORS = {
    "vanilla": lambda **o: VanillaGenerator((1, 16, 16), 4, hidden=(8,), **o),
    "conv": lambda **o: ConvGenerator((1, 16, 16), 4, width=2, **o),
    "group": lambda **o: GroupGenerator((1, 16, 16), P4, 4, width=4, **o),
    "orbit": lambda **o: OrbitGenerator(ConvGenerator((1, 16, 16), 4, width=2, **o), P4M),
}
DISCRIMINATORS = {
    **{name: lambda name=name, **o: discriminator(name, P4, 28, width=4, **o) for name in BODIES},
    "mlp": lambda **o: MLPDiscriminator((1, 28, 28), hidden=(16, 8), **o).double(),
}
EVERY_GENERATOR = pytest.mark.parametrize("generator", GENERATORS)
EVERY_DISCRIMINATOR = pytest.mark.parametrize("name", DISCRIMINATORS)
EVERY_CONDITIONING = pytest.mark.parametrize("conditioning", ["projection", "auxiliary"])
LABELS = torch.tensor([2, 0, 1])


def build(table, name, seed=0, **options):
    torch.manual_seed(seed)
    return table[name](**options).eval()


# --- generators ------------------------------------------------------------------------------------------


@EVERY_GENERATOR
def test_the_label_chooses_the_image(generator):
    network = build(GENERATORS, generator, num_classes=3, embedding=5)
    assert network.num_classes == 3
    z = network.draw_latents(1).expand(3, -1)
    drawn = network(z, LABELS)
    assert not any(torch.allclose(drawn[i], drawn[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert torch.allclose(network(z, LABELS.flip(0)), drawn.flip(0), atol=1e-6)


def test_the_class_is_a_dense_layer_of_its_one_hot_vector():
    network = build(GENERATORS, "vanilla", num_classes=3, embedding=5)
    z = network.draw_latents(3)
    one_hot = F.one_hot(LABELS, 3).float()
    given = torch.cat([z, one_hot @ network.class_embedding.weight], 1)
    torch.testing.assert_close(network(z, LABELS), network.layers(given).view(3, 1, 16, 16))


@EVERY_GENERATOR
def test_an_unconditional_generator_is_what_it_was(generator):
    """The same names and the same numbers from the same seed, whatever the options for classes are."""
    plain = build(GENERATORS, generator)
    again = build(GENERATORS, generator, num_classes=0, embedding=9)
    assert plain.num_classes == 0
    assert not [name for name in plain.state_dict() if "class" in name]
    assert plain.state_dict().keys() == again.state_dict().keys()
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in plain.state_dict().items())


@EVERY_GENERATOR
def test_labels_that_lack_and_labels_too_many(generator):
    conditional, plain = build(GENERATORS, generator, num_classes=3), build(GENERATORS, generator)
    with pytest.raises(ValueError, match=r"conditional on 3 classes: expected labels, got none"):
        conditional(conditional.draw_latents(3))
    with pytest.raises(ValueError, match=r"is unconditional and got labels; build it with num_classes"):
        plain(plain.draw_latents(3), LABELS)


# --- discriminators --------------------------------------------------------------------------------------


@EVERY_CONDITIONING
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("group", [g for g in SQUARE_PLANE_GROUPS.values() if g != Z2], ids=str)
def test_the_score_is_invariant_given_the_label(group, body, conditioning):
    network = discriminator(body, group, num_classes=3, conditioning=conditioning).eval()
    x = images(network)
    assert_invariant(lambda x: network(x, LABELS), x, group)
    if conditioning == "auxiliary":
        assert_invariant(lambda x: network.judge(x, LABELS)[1], x, group)


def test_a_projection_onto_a_fiber_that_is_not_pooled_is_caught():
    network = discriminator("p4cnn", P4, num_classes=3).eval()
    unpooled = FieldSequential(*list(network.body.maps)[:-1])
    head = ProjectionHead(3, unpooled.out_type.channels).double()
    with pytest.raises(AssertionError, match="not invariant"):
        assert_invariant(lambda x: head(unpooled(x).flatten(1), LABELS), images(network), P4)


@EVERY_DISCRIMINATOR
def test_projection_from_its_definition(name):
    """phi(x) . psi + phi(x) . (V y + c), of a one-hot y."""
    network = build(DISCRIMINATORS, name, num_classes=3)
    x = images(network)
    features = network.features(x)
    one_hot = F.one_hot(LABELS, 3).double()
    expected = network.score(features) + (features * network.class_head.directions(one_hot)).sum(1)
    torch.testing.assert_close(network(x, LABELS), expected)
    others = torch.stack([network(x, torch.full((3,), label)) for label in range(3)])
    assert (others.std(0) > 1e-6).all(), "the label counts"
    assert network.judge(x, LABELS)[1] is None


@EVERY_DISCRIMINATOR
def test_an_auxiliary_classifier_sees_the_features_and_not_the_label(name):
    network = build(DISCRIMINATORS, name, num_classes=3, conditioning="auxiliary")
    x = images(network)
    score, logits = network.judge(x, LABELS)
    assert torch.equal(score, network(x, LABELS.flip(0)))
    torch.testing.assert_close(logits, network.class_head(network.features(x)))
    assert logits.shape == (3, 3)


@EVERY_DISCRIMINATOR
@EVERY_CONDITIONING
def test_an_unconditional_discriminator_is_what_it_was(name, conditioning):
    plain, again = build(DISCRIMINATORS, name), build(DISCRIMINATORS, name, conditioning=conditioning)
    conditional = build(DISCRIMINATORS, name, num_classes=3, conditioning=conditioning)
    assert not [key for key in plain.state_dict() if "class" in key]
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in plain.state_dict().items())
    x = images(plain)
    score, logits = plain.judge(x)
    assert torch.equal(score, plain(x))
    assert logits is None
    assert {k for k in conditional.state_dict() if not k.startswith("class_head")} == {*plain.state_dict()}


@EVERY_DISCRIMINATOR
def test_labels_of_images_that_lack_and_that_are_too_many(name):
    conditional, plain = build(DISCRIMINATORS, name, num_classes=3), build(DISCRIMINATORS, name)
    with pytest.raises(ValueError, match=r"conditional on 3 classes: expected labels, got none"):
        conditional(images(conditional))
    with pytest.raises(ValueError, match=r"is unconditional and got labels; build it with num_classes"):
        plain(images(plain), LABELS)


@pytest.mark.usefixtures("without_shape_checks")
def test_an_unknown_conditioning():
    with pytest.raises(ValueError, match="'projection' or 'auxiliary', got 'concat'"):
        ConvDiscriminator((1, 8, 8), P4, num_classes=3, conditioning="concat")


@pytest.mark.parametrize(("group", "count"), [(Z2, 1_482_753), (P4, 1_478_657)], ids=["z2", "p4"])
def test_the_numbers_of_parameters_of_the_paper(group, count):
    """Dey et al., Rotated MNIST: three blocks, a spectral head, and the projection of ten classes."""
    network = ConvDiscriminator((1, 28, 28), group, width=128, num_classes=10)
    assert sum(p.numel() for p in network.parameters()) == count


def test_a_discriminator_of_ones_own_need_not_know_labels():
    class Mean(Discriminator):
        def forward(self, x):
            return x.mean((1, 2, 3))

    x = torch.randn(2, 1, 4, 4)
    score, logits = Mean((1, 4, 4), Z2).judge(x)
    assert torch.equal(score, x.mean((1, 2, 3)))
    assert logits is None
    assert isinstance(Mean((1, 4, 4), Z2), nn.Module)
