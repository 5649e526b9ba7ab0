"""Five faults that a public attempt at this network had, and five traps of a published one: a test each."""

import numpy as np
import pytest
import torch
from torch import nn

from eqgan.cli import parse_gan
from eqgan.data.loader import to_unit
from eqgan.data.rotation import rotate_uint8
from eqgan.data.sources import load_images
from eqgan.groups import P4, P4M, SQUARE_PLANE_GROUPS, Z2, regular
from eqgan.networks import (
    ConvGenerator,
    Discriminator,
    Generator,
    GroupGenerator,
    OrbitGenerator,
    P4CNNDiscriminator,
    VanillaGenerator,
)
from eqgan.nn import AvgPool2d, FieldBatchNorm2d, FieldSequential, GroupConv2d, GroupPool
from eqgan.testing import assert_invariant
from tests.networks.cases import BODIES, discriminator, images


def digits(count=200):
    return load_images("digits").images[:count]


# --- the five faults -------------------------------------------------------------------------------------


def test_fault_1_the_generator_is_no_discriminator(capsys):
    for kind in (ConvGenerator, VanillaGenerator):
        assert issubclass(kind, Generator)
        assert not issubclass(kind, Discriminator)
    assert not any(issubclass(kind, Generator) for kind, _ in BODIES.values())
    generator = ConvGenerator((1, 28, 28), latent_dim=4, width=1)
    assert generator(generator.draw_latents(2)).shape == (2, 1, 28, 28), "images, not scores"
    with pytest.raises(SystemExit):
        parse_gan(["--generator", "eqgan.networks.ConvDiscriminator"])
    assert "not correspond to a subclass of Generator" in capsys.readouterr().err


@pytest.mark.parametrize("body", BODIES)
def test_fault_2_a_score_is_unbounded_and_gives_a_signal(body):
    network = discriminator(body, P4).eval()
    x = images(network).requires_grad_()
    constant = torch.log_softmax(network(x)[:, None], dim=1)
    assert not constant.any(), "the log-softmax of one logit is 0, whatever the logit"
    (nothing,) = torch.autograd.grad(constant.sum(), x)
    assert not nothing.any()

    (signal,) = torch.autograd.grad(network(x).sum(), x)
    assert (signal.flatten(1).norm(dim=1) > 0).all()
    with torch.no_grad():
        network.head.weight.mul_(-1)
        turned = network(x)
        network.head.bias.add_(100)
        assert (network(x) - turned - 100).abs().max() < 1e-9


def test_fault_3_reals_and_fakes_have_one_range():
    reals = to_unit(digits())
    assert reals.min() == -1
    assert reals.max() == 1
    generator = ConvGenerator((1, 28, 28), latent_dim=4, width=1)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.mul_(30)
        fakes = generator(generator.draw_latents(64))
    assert fakes.min() >= -1
    assert fakes.max() <= 1
    assert fakes.max() - fakes.min() > 1.9, "the range is used"


def test_fault_4_corners_stay_black_when_a_digit_is_rotated():
    corners = to_unit(digits())[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == -1).all()
    upright = np.zeros((1, 28, 28), np.uint8)
    upright[0, 4:24, 4:24] = 255
    turned = to_unit(torch.from_numpy(rotate_uint8(upright, np.array([45.0]))))
    assert (turned[0, [0, 0, -1, -1], [0, -1, 0, -1]] == -1).all()
    # the fault: zeros filled in after scaling are grey
    assert to_unit(torch.zeros(1, dtype=torch.uint8)).item() == -1 != 0


@pytest.mark.parametrize("group", [P4, P4M], ids=str)
def test_fault_5_the_fiber_is_pooled(group):
    network = discriminator("p4cnn", group, width=8).eval()
    assert_invariant(network, images(network), group)
    layers = list(network.body.maps)
    assert isinstance(layers[-1], GroupPool)
    unpooled = FieldSequential(*layers[:-1])
    head = nn.Linear(unpooled.out_type.channels, 1).double()
    with pytest.raises(AssertionError, match="not invariant"):
        assert_invariant(lambda x: head(unpooled(x).flatten(1)), images(network), group)


# --- the five traps --------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", [P4, P4M], ids=str)
def test_trap_1_a_third_pool_would_drop_a_row(group):
    network = discriminator("conv", group, side=28, width=16).eval()
    x = images(network)
    assert_invariant(network, x, group)
    layers = list(network.body.maps)
    assert [m(torch.zeros(1, m.in_type.channels, 8, 8)).shape[-1] for m in layers if isinstance(m, AvgPool2d)]
    maps, fiber = nn.Sequential(*layers[:-2]), layers[-2]
    assert maps(x).shape[-2:] == (7, 7)

    def with_third_pool(x):
        return network.head(fiber(nn.functional.avg_pool2d(maps(x), 2)).mean((2, 3))).squeeze(1)

    scores = with_third_pool(x)
    error = (with_third_pool(torch.rot90(x, 1, (2, 3))) - scores).abs().mean() / scores.std()
    assert error > 1e-3
    with pytest.raises(ValueError, match=rf"on a 7x7 map breaks {group} symmetry"):
        AvgPool2d(fiber.in_type, 2)(maps(x))


@pytest.mark.parametrize("group", [g for g in SQUARE_PLANE_GROUPS.values() if g != Z2], ids=str)
def test_trap_2_the_norm_of_the_bank_is_not_that_of_the_filter(group):
    torch.manual_seed(0)
    layer = GroupConv2d(regular(group, 3), regular(group, 2), kernel_size=3).double()

    def sigma(matrix):
        return torch.linalg.matrix_norm(matrix.flatten(1), 2).item()

    of_filter, of_bank = sigma(layer.weight), sigma(layer.expand(layer.weight))
    assert 1.001 < of_bank / of_filter <= group.order**0.5 * (1 + 1e-9)
    kinds = {}
    for kind in ("filter", "bank"):
        normalised = GroupConv2d(regular(group, 3), regular(group, 2), 3, spectral=kind).double()
        normalised.load_state_dict(layer.state_dict(), strict=False)
        for _ in range(300):
            normalised(torch.zeros(1, 3 * group.order, 3, 3, dtype=torch.float64))
        kinds[kind] = sigma(normalised.eval().filter_bank())
    assert kinds["bank"] == pytest.approx(1, rel=1e-3)
    assert kinds["filter"] == pytest.approx(of_bank / of_filter, rel=1e-3)


def test_trap_3_momentum_is_the_weight_of_the_new_batch():
    """Keras's 0.1 keeps a tenth of the old mean; PyTorch's keeps nine tenths, and ours is PyTorch's."""
    norm = FieldBatchNorm2d(regular(P4, 1), momentum=0.1)
    norm(torch.full((2, 4, 3, 3), 10.0))
    assert norm.running_mean.item() == pytest.approx(1.0)
    assert norm.momentum == nn.BatchNorm2d(1).momentum
    for module in ConvGenerator((1, 28, 28)).modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.momentum == 0.1


@pytest.mark.parametrize("body", BODIES)
def test_trap_4_every_group_starts_from_the_same_law(body):
    """Not orthogonal for one and Glorot for the other: entries of every bank have one standard deviation."""
    spreads = {}
    for group in SQUARE_PLANE_GROUPS.values():
        torch.manual_seed(0)
        network = BODIES[body][0]((1, 28, 28), group, width=64, spectral=None)
        layers = [m for m in network.modules() if isinstance(m, GroupConv2d)]
        spreads[group.name] = [
            (m.expand(m.weight).std() * (m.in_type.channels * m.kernel_size**2) ** 0.5).item()
            for m in layers
            if m.in_type.channels > 1  # the few weights on a single colour do not tell
        ]
        assert not any(m.bias.any() for m in layers)
    for name, spread in spreads.items():
        assert spread == pytest.approx(spreads["z2"], rel=0.05), name


@pytest.mark.parametrize("group", [P4, P4M], ids=str)
def test_trap_5_the_dense_layer_before_the_lift_is_not_symmetric(group):
    """So a turned sample is no sample, until a random element moves the first map."""
    torch.manual_seed(0)
    base = GroupGenerator((1, 16, 16), group, width=8).double().eval()
    z = base.draw_latents(64)
    orbit = OrbitGenerator(base, group)
    elements = torch.arange(group.order).repeat(64)
    means = base(z).mean(0), orbit.place(z.repeat_interleave(group.order, 0), elements).mean(0)
    errors = [(torch.rot90(m, 1, (1, 2)) - m).abs().max() / m.std() for m in means]
    assert errors[0] > 0.1
    assert errors[1] < 1e-12


def test_one_seed_gives_one_generator_whatever_the_group_of_its_opponent():
    """So that two runs differ in the group and in nothing else."""
    states = []
    for group in (Z2, P4M):
        torch.manual_seed(3)
        generator = ConvGenerator((1, 28, 28), latent_dim=8, width=2)
        P4CNNDiscriminator((1, 28, 28), group, width=4)
        states.append(generator.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
