"""Generators: images in [-1, 1] of the shape asked for, from latents that are the same on any device."""

import pytest
import torch
from torch import nn

from eqgan.networks import ConvGenerator, Generator, VanillaGenerator

SMALL = {
    "vanilla": lambda shape: VanillaGenerator(shape, latent_dim=8, hidden=(16, 32)),
    "vanilla-batch-norm": lambda shape: VanillaGenerator(shape, 8, (16, 32), batch_norm=True),
    "conv": lambda shape: ConvGenerator(shape, latent_dim=8, width=2),
}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_images_lie_in_the_open_interval(name, shape):
    torch.manual_seed(0)
    generator = SMALL[name](shape)
    images = generator(generator.draw_latents(5))
    assert images.shape == (5, *shape)
    assert images.abs().max() <= 1
    assert images.std() > 0
    with torch.no_grad():  # however large the last layer: the same range as the reals
        for parameter in generator.parameters():
            parameter.mul_(30)
        extreme = generator(generator.draw_latents(5)).abs().max()
    assert 0.99 < extreme <= 1


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_learns(name):
    torch.manual_seed(0)
    generator = SMALL[name]((1, 16, 16))
    generator(generator.draw_latents(4)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in generator.parameters())
    assert sum(bool(p.grad.any()) for p in generator.parameters()) >= len(list(generator.parameters())) - 1


def test_the_vanilla_generator_is_the_tutorials():
    torch.manual_seed(0)
    generator = VanillaGenerator((1, 28, 28), latent_dim=128, hidden=(256, 512, 1024))
    assert sum(p.numel() for p in generator.parameters()) == 1_493_520
    layers = []
    for before, after in ((128, 256), (256, 512), (512, 1024)):
        layers += [nn.Linear(before, after), nn.LeakyReLU(0.2)]
    plain = nn.Sequential(*layers, nn.Linear(1024, 784), nn.Tanh())
    plain.load_state_dict({k.removeprefix("layers."): v for k, v in generator.state_dict().items()})
    z = generator.draw_latents(3)
    assert torch.equal(generator(z), plain(z).view(3, 1, 28, 28))


@pytest.mark.parametrize("side", [28, 32, 48, 64, 96, 128, 14, 30])
def test_sides_that_the_conv_generator_draws(side):
    assert ConvGenerator((1, side, side), 4, width=1)(torch.zeros(2, 4)).shape == (2, 1, side, side)


@pytest.mark.parametrize("side", [29, 7, 100, 1])
def test_sides_that_it_does_not(side):
    with pytest.raises(ValueError, match=rf"size {side}: .*28, 32, 48, 64, 96 and 128 work.*--gen vanilla"):
        ConvGenerator((1, side, side), 4)
    assert VanillaGenerator((1, side, side), 4, hidden=(4,))(torch.zeros(1, 4)).shape[-1] == side


def test_bad_arguments():
    with pytest.raises(ValueError, match="needs square images, got 28x32"):
        ConvGenerator((1, 28, 32))
    for generator in (ConvGenerator, VanillaGenerator):
        with pytest.raises(ValueError, match="latent of at least 1 dimension, got 0"):
            generator((1, 28, 28), latent_dim=0)
    with pytest.raises(ValueError, match="width of at least 1, got 0"):
        ConvGenerator((1, 28, 28), width=0)
    with pytest.raises(ValueError, match="width of at least 1, got 8, 0"):
        VanillaGenerator((1, 28, 28), hidden=(8, 0))


class Echo(Generator):
    def __init__(self):
        super().__init__((1, 1, 1), 4)
        self.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, z):
        return z[:, :1, None, None]


def test_latents():
    echo = Echo()
    torch.manual_seed(0)
    first = echo.draw_latents(1000)
    assert first.shape == (1000, 4)
    assert first.dtype == torch.float64
    assert abs(first.mean()) < 0.05
    assert abs(first.std() - 1) < 0.05
    state = torch.get_rng_state()
    drawn = echo.draw_latents(3, torch.Generator().manual_seed(5))
    assert torch.equal(torch.get_rng_state(), state), (
        "a generator of one's own leaves the global stream alone"
    )
    assert torch.equal(drawn, torch.randn(3, 4, generator=torch.Generator().manual_seed(5)).double())


def test_generator_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        Generator((1, 1, 1), 1)
