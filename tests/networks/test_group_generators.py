"""Generators over plane groups: equivariant from the first map on, and exactly invariant in law with a random
element in the latent. Compared with an independent re-derivation, with plain PyTorch, and with the paper."""

import numpy as np
import pytest
import torch
from torch import nn

from eqgan.groups import P4, P4M, P6, PM, SQUARE_PLANE_GROUPS, Z2, plane_group, scalar
from eqgan.networks import (
    GroupGenerator,
    OrbitGenerator,
    ResidualDiscriminator,
    ResidualGenerator,
    VanillaGenerator,
    symmetrised,
)
from eqgan.nn import GroupConv2d, SpectralLinear, act
from eqgan.testing import assert_equivariant
from tests.networks.generator_cases import EQUIVARIANT, generator, latents
from tests.oracles.generators import dey_generator

EVERY = pytest.mark.parametrize("name", EQUIVARIANT)
EVERY_GROUP = pytest.mark.parametrize("group", SQUARE_PLANE_GROUPS.values(), ids=str)
LABELS = torch.tensor([2, 0, 1])


def require_the_law(orbit, z, labels=None):
    """place(z, h g) = h place(z, g) for every pair of elements, and no two images of an orbit are alike."""
    group = orbit.group.point_group
    with torch.no_grad():
        placed = [orbit.place(z, torch.full((len(z),), g), labels) for g in range(group.order)]
    scale = placed[0].abs().max()
    for g in range(group.order):
        for h in range(group.order):
            moved = act(h, placed[g], scalar(orbit.group, placed[g].shape[1]))
            error = (placed[int(group.product[h, g])] - moved).abs().max() / scale
            assert error < 1e-10, f"element {h} after {g} of {orbit.group}: {error:.2g}"
    for g in range(1, group.order):
        assert (placed[g] - placed[0]).abs().max() / scale > 1e-3, "the orbit is a point: every law holds"


# --- the laws --------------------------------------------------------------------------------------------


@EVERY
@EVERY_GROUP
@pytest.mark.parametrize("num_classes", [0, 3])
def test_every_element_is_pushed_through(name, group, num_classes):
    """The structure-preserving law, with a first map of an odd side."""
    base = generator(name, group, EQUIVARIANT[name][1][1], num_classes=num_classes, channels=2)
    require_the_law(OrbitGenerator(base, group), latents(base), LABELS if num_classes else None)


@EVERY
@EVERY_GROUP
def test_what_follows_the_first_map_is_equivariant_given_the_condition(name, group):
    base = generator(name, group)
    condition = base.condition(latents(base), None)
    first = torch.randn(3, *base.start_shape, dtype=torch.float64)

    def law(group):
        kind = scalar(group, base.start_shape[0])
        assert_equivariant(lambda x: base.draw(x, condition), first, kind, scalar(group, 1))

    law(group)
    if group != P4M:  # and under no more than that
        with pytest.raises(AssertionError, match=r"not equivariant under element .* of p4m"):
            law(P4M)


@EVERY
@pytest.mark.parametrize("spectral", [None, "filter", "bank", "operator"])
def test_every_norm_in_training_and_after_it(name, spectral):
    """In training too: the statistics of a batch do not see which element moved an item of it."""
    base = generator(name, P4M, spectral=spectral, channels=3)
    orbit, z = OrbitGenerator(base, P4M), latents(base, 4)
    optimiser = torch.optim.Adam(base.parameters(), 0.01)
    for _ in range(2):
        (base.train()(z) - 0.1).square().mean().backward()
        optimiser.step()
    base.eval()
    require_the_law(orbit, z)
    base.train()
    state = {k: v.clone() for k, v in base.state_dict().items()}

    def place(*elements):
        base.load_state_dict(state)  # power iteration and running statistics move on
        return orbit.place(z, torch.tensor(elements))

    mixed, still = place(1, 5, 0, 2), place(0, 0, 0, 0)
    for i, g in enumerate((1, 5, 0, 2)):
        torch.testing.assert_close(
            mixed[i : i + 1], act(g, still[i : i + 1], scalar(P4M, 3)), rtol=0, atol=1e-12
        )


@EVERY
def test_moving_the_first_map_is_moving_the_image(name):
    """By equivariance; under a subgroup too. A group that the layers do not know moves the image itself."""
    for own, group in ((P4M, P4M), (P4M, P4), (P4, P4M), (PM, P4)):
        base = generator(name, own)
        orbit, z = OrbitGenerator(base, group), latents(base, group.order)
        elements = torch.arange(group.order)
        moved = torch.cat([act(g, base(z[g : g + 1]), scalar(group, 1)) for g in range(group.order)])
        torch.testing.assert_close(orbit.place(z, elements), moved, rtol=0, atol=1e-12)
        require_the_law(orbit, z)


@EVERY
def test_without_the_element_the_law_fails(name):
    """The dense layer is not symmetric: turned samples come from no latent (trap 5)."""
    base = generator(name, P4)
    z = latents(base, 64)
    turned_mean = torch.rot90(base(z).mean(0), 1, (1, 2))
    assert (base(z).mean(0) - turned_mean).abs().max() > 0.01
    orbit = OrbitGenerator(base, P4)
    mean = torch.stack([orbit.place(z, torch.full((64,), g)) for g in range(4)]).mean((0, 1))
    torch.testing.assert_close(mean, torch.rot90(mean, 1, (1, 2)), rtol=0, atol=1e-12)


@EVERY
def test_a_broken_table_is_caught(name):
    base = generator(name, P4)
    next(m for m in base.modules() if isinstance(m, GroupConv2d)).index.view(-1)[:9] = 0
    with pytest.raises(AssertionError, match=r"element \d after \d of p4"):
        require_the_law(OrbitGenerator(base, P4), latents(base))


def test_the_group_of_the_law():
    p4 = generator("group", P4)
    plain = VanillaGenerator((1, 8, 8), 4, hidden=(4,))
    assert symmetrised(plain, Z2) is plain
    assert symmetrised(plain, P4M).group is P4M
    assert symmetrised(p4, Z2).group is symmetrised(p4, P4).group is P4
    assert symmetrised(p4, P4M).group is P4M, "the discriminator knows more: the image is moved"
    assert symmetrised(generator("group", Z2), Z2).latent_dim == 5


# --- oracles ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SQUARE_PLANE_GROUPS)
def test_the_images_are_those_of_the_definition(name):
    group = plane_group(name)
    base = generator("group", group, width=4, start=3, spectral=None, num_classes=3)
    orbit, z = OrbitGenerator(base, group), latents(base, 2)
    weights = {key: value.numpy() for key, value in base.state_dict().items()}
    element = group.order - 1
    expected = dey_generator(name, weights, z.numpy(), np.array([2, 1]), base.start_shape, element)
    with torch.no_grad():
        images = orbit.place(z, torch.full((2,), element), torch.tensor([2, 1]))
    np.testing.assert_allclose(images.numpy(), expected, rtol=0, atol=1e-12)


class Modulated(nn.Module):
    """Batch norm without an affine map, then one from the condition."""

    def __init__(self, channels, condition):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gamma, self.beta = nn.Linear(condition, channels), nn.Linear(condition, channels)

    def forward(self, x, condition):
        return (1 + self.gamma(condition))[:, :, None, None] * self.norm(x) + self.beta(condition)[
            :, :, None, None
        ]


@pytest.mark.parametrize("training", [False, True])
def test_given_z2_it_is_the_plain_network(training):
    network = generator("group", Z2, 12, channels=3, spectral=None).train(training)
    up = nn.Upsample(scale_factor=2)
    convs = [nn.Conv2d(8, 32, 3, padding=1)]
    convs += [nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in ((32, 16), (16, 8), (8, 3))]
    norms, dense = [Modulated(16, 5), Modulated(8, 5)], nn.Linear(5, 8 * 9)
    ours = [network.project, network.lift, *network.blocks, network.last]
    theirs = nn.ModuleList([dense, convs[0], convs[1], norms[0], convs[2], norms[1], convs[3]]).double()
    state = [value for part in ours for value in part.state_dict().values()]
    for (key, value), own in zip(theirs.state_dict().items(), state, strict=True):
        value.copy_(own.view(value.shape)), key
    theirs.train(training)
    z = latents(network)
    x = convs[0](dense(z).view(3, 8, 3, 3)).relu()
    for conv, norm in zip(convs[1:], norms):
        x = norm(conv(up(x)), z).relu()
    torch.testing.assert_close(network(z), convs[3](x).tanh(), rtol=0, atol=1e-12)


class Up(nn.Module):
    """A residual block that doubles the map, over plain channels."""

    def __init__(self, before, after, condition):
        super().__init__()
        self.norms = nn.ModuleList([Modulated(before, condition), Modulated(after, condition)])
        self.first = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.second = nn.Conv2d(after, after, 3, padding=1)
        self.skip = nn.Identity() if before == after else nn.Conv2d(before, after, 1, bias=False)

    def forward(self, x, condition):
        def double(x):
            return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

        inner = self.first(double(self.norms[0](x, condition).relu()))
        return self.second(self.norms[1](inner, condition).relu()) + self.skip(double(x))


def test_given_z2_the_residual_generator_is_the_plain_network():
    """On 96 pixels: the widths of two blocks are equal, and they have no convolution beside them."""
    network = generator("residual", Z2, 96, channels=3, width=2)
    lift, last = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(2, 3, 3, padding=1)
    blocks = [Up(16, 16, 5), Up(16, 8, 5), Up(8, 4, 5), Up(4, 2, 5)][-4:]
    dense, norm = nn.Linear(5, 16 * 36), nn.BatchNorm2d(2)
    theirs = nn.ModuleList([dense, lift, *blocks, norm, last]).double().eval()
    ours = [network.project, network.lift, *network.blocks, network.norm, network.last]
    state = [value for part in ours for value in part.state_dict().values()]
    for value, own in zip(theirs.state_dict().values(), state, strict=True):
        value.copy_(own.view(value.shape))
    z = latents(network, 2)
    x = lift(dense(z).view(2, 16, 6, 6))
    for block in blocks:
        x = block(x, z)
    expected = last(nn.functional.leaky_relu(norm(x), 0.2)).tanh()
    torch.testing.assert_close(network(z), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("group", [P4, P4M], ids=str)
def test_without_norms_the_laws_hold_too(group):
    base = generator("residual", group, norm=False, num_classes=3)
    assert not [m for m in base.modules() if isinstance(m, nn.BatchNorm2d)]
    require_the_law(OrbitGenerator(base, group), latents(base), LABELS)


@pytest.mark.parametrize(("group", "count"), [(Z2, 2_974_848), (P4, 2_631_296)], ids=["z2", "p4"])
def test_the_numbers_of_parameters_of_the_paper(group, count):
    network = GroupGenerator((1, 28, 28), group, latent_dim=64, width=128, num_classes=10, embedding=64)
    assert sum(p.numel() for p in network.parameters()) == count
    assert network.start_shape == (128, 7, 7)
    assert isinstance(network.project, SpectralLinear)
    assert network.class_embedding.weight.shape == (10, 64)


# --- widths and the start --------------------------------------------------------------------------------


@EVERY
def test_equal_parameters_across_groups(name):
    """Of the convolutions, whose widths follow the group; the dense layer is the same in all."""
    counts = {}
    for group in SQUARE_PLANE_GROUPS.values():
        network = EQUIVARIANT[name][0]((1, 32, 32), group, width=32, spectral=None)
        convs = [m for m in network.modules() if isinstance(m, GroupConv2d)][1:-1]
        counts[group.name] = sum(p.numel() for m in convs for p in m.parameters())
    for group, count in counts.items():
        assert abs(count / counts["z2"] - 1) < 0.05, counts[group]


@EVERY
def test_every_group_starts_from_the_same_law(name):
    """Trap 4: not orthogonal for one and Glorot for the other."""
    spreads = {}
    for group in SQUARE_PLANE_GROUPS.values():
        torch.manual_seed(0)
        network = EQUIVARIANT[name][0]((1, 32, 32), group, width=32, spectral=None)
        spreads[group.name] = [
            (m.expand(m.weight).std() * (m.in_type.channels * m.kernel_size**2) ** 0.5).item()
            for m in network.modules()
            if isinstance(m, GroupConv2d)
        ][1:-1]
    for group, spread in spreads.items():
        assert spread == pytest.approx(spreads["z2"], rel=0.05), group


@EVERY
def test_the_momentum_is_pytorchs(name):
    """Trap 3: Keras's 0.1 would be 0.9 here."""
    norms = [m for m in generator(name, P4).modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert all(m.momentum == 0.1 for m in norms)
    given = [m for m in generator(name, P4, momentum=0.9).modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(m.momentum == 0.9 for m in given)


@EVERY
@EVERY_GROUP
def test_every_parameter_learns_and_images_use_the_range(name, group):
    network = generator(name, group, num_classes=3, channels=3).train()
    z = latents(network, 6)
    images = network(z, LABELS.repeat(2))
    assert images.abs().max() < 1
    assert images.std() > 0.05
    (images - 0.3).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert all(p.grad.any() for p in network.parameters() if p.ndim > 1)


# --- sizes and bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [4, 12, 28, 32, 64])
def test_sides_that_the_group_generator_draws(side):
    network = generator("group", P4, side, width=2)
    assert network(latents(network, 2)).shape == (2, 1, side, side)


@pytest.mark.parametrize("side", [8, 20, 28, 32, 48, 64, 96, 128])
def test_sides_that_the_residual_networks_take(side):
    network = generator("residual", P4, side, width=1)
    images = network(latents(network, 1))
    assert images.shape == (1, 1, side, side)
    assert ResidualDiscriminator((1, side, side), P4, width=1).double()(images).shape == (1,)


@pytest.mark.parametrize("side", [7, 29, 30, 36, 100, 4])
@pytest.mark.parametrize("kind", [ResidualGenerator, ResidualDiscriminator])
def test_sides_that_they_do_not(kind, side):
    with pytest.raises(ValueError, match=rf"size {side}: .*28, 32, 48, 64, 96 and 128\. Use --size"):
        kind((1, side, side), P4)


@pytest.mark.parametrize(
    ("side", "remedies"), [(30, "28 or 32"), (29, "28 or 32"), (2, "4 or 4"), (7, "4 or 8")]
)
def test_sides_that_it_does_not(side, remedies):
    with pytest.raises(ValueError, match=rf"size {side}: .*--size {remedies}, or --gen vanilla"):
        GroupGenerator((1, side, side), P4)


@EVERY
def test_images_that_are_not_square_and_hexagonal_groups_are_refused(name):
    factory, _ = EQUIVARIANT[name]
    with pytest.raises(ValueError, match=r"expected square images, got 28x32.*--size"):
        factory((1, 28, 32), P4)
    with pytest.raises(ValueError, match=r"which p6 does not map to themselves\. Use one of z2, .*p4m"):
        factory((1, 28, 28), P6)


@EVERY
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width of at least 1, got 0"),
        ({"latent_dim": 0}, "latent of at least 1 dimension, got 0"),
        ({"match": "weights"}, r"match in .*'weights'"),
        ({"spectral": "norm"}, r"spectral in .*'norm'"),
        ({"num_classes": -1}, "got num_classes=-1"),
    ],
)
@pytest.mark.usefixtures("without_shape_checks")
def test_bad_arguments(name, options, message):
    with pytest.raises(ValueError, match=message):
        generator(name, P4, **options)
