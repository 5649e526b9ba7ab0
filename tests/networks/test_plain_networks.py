"""Given z2, each discriminator is the plain PyTorch network of the same layers and weights."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from eqgan.groups import Z2
from eqgan.networks import MLPDiscriminator
from eqgan.nn import GroupConv2d, SpectralLinear
from tests.networks.cases import BODIES, discriminator, images


class Mean(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


def leaky():
    return nn.LeakyReLU(0.2)


def conv_28(width):
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        leaky(),
        nn.AvgPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        leaky(),
        nn.AvgPool2d(2),
        nn.Conv2d(2 * width, 4 * width, 3, padding=1),
        leaky(),
        Mean(),
        nn.Linear(4 * width, 1),
    )


def p4cnn_28(width):
    layers = [nn.Conv2d(1, width, 3), leaky(), nn.Conv2d(width, width, 3), leaky(), nn.MaxPool2d(2)]
    for _ in range(4):
        layers += [nn.Conv2d(width, width, 3), leaky()]
    return nn.Sequential(
        *layers, nn.Conv2d(width, 2 * width, 4), leaky(), nn.Flatten(), nn.Linear(2 * width, 1)
    )


def strided_28(width):
    return nn.Sequential(
        nn.Conv2d(1, width, 4, 2, 1),
        leaky(),
        nn.Conv2d(width, 2 * width, 4, 2, 1),
        leaky(),
        nn.Conv2d(2 * width, 2 * width, 7),
        leaky(),
        nn.Flatten(),
        nn.Linear(2 * width, 1),
    )


class Down(nn.Module):
    """A residual block that halves the map."""

    def __init__(self, before, after, first):
        super().__init__()
        self.first, self.conv1 = first, nn.Conv2d(before, after, 3, padding=1)
        self.conv2, self.skip = nn.Conv2d(after, after, 3, padding=1), nn.Conv2d(before, after, 1)

    def forward(self, x):
        inner = x if self.first else nn.functional.leaky_relu(x, 0.2)
        inner = self.conv2(nn.functional.leaky_relu(self.conv1(inner), 0.2))
        return nn.functional.avg_pool2d(inner, 2) + self.skip(nn.functional.avg_pool2d(x, 2))


def residual_28(width):
    blocks = [Down(1, 2 * width, first=True), Down(2 * width, 4 * width, first=False)]
    return nn.Sequential(*blocks, leaky(), Mean(), nn.Linear(4 * width, 1))


PLAIN = {"conv": conv_28, "p4cnn": p4cnn_28, "residual": residual_28, "strided": strided_28}


def test_every_body_has_a_plain_twin():
    assert PLAIN.keys() == BODIES.keys()


def weighted(network, kinds):
    return [m for m in network.modules() if isinstance(m, kinds)]


def copy_weights(network, plain, spectral):
    """Weights, biases and, with spectral norm, torch's own normalisation with our vectors."""
    ours, theirs = weighted(network, (GroupConv2d, nn.Linear)), weighted(plain, (nn.Conv2d, nn.Linear))
    assert len(ours) == len(theirs)
    with torch.no_grad():
        for own, other in zip(ours, theirs):
            other.weight.copy_(own.weight.view_as(other.weight))
            other.bias.copy_(own.bias)
            if spectral:
                norm = spectral_norm(other).parametrizations.weight[0]
                norm._u.copy_(own.norm.u), norm._v.copy_(own.norm.v)


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("spectral", [None, "filter", "bank"])
def test_equals_the_plain_network(body, spectral):
    network = discriminator(body, Z2, width=4, spectral=spectral)
    plain = PLAIN[body](4).double()
    copy_weights(network, plain, spectral)
    assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in plain.parameters())
    network.eval(), plain.eval()
    x, y = images(network).requires_grad_(), images(network).requires_grad_()
    torch.testing.assert_close(network(x), plain(y).squeeze(1), rtol=1e-12, atol=1e-12)
    network(x).sum().backward(), plain(y).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-12, atol=1e-12)
    with torch.no_grad():  # and it would be noticed if it were another
        weighted(plain, nn.Conv2d)[1].bias.add_(0.1)
        assert (network(x) - plain(x).squeeze(1)).abs().max() > 1e-6


@pytest.mark.parametrize("spectral", [False, True])
def test_the_mlp_is_the_tutorials(spectral):
    torch.manual_seed(0)
    network = MLPDiscriminator((1, 28, 28), hidden=(1024, 512, 256), dropout=0.3, spectral=spectral)
    assert sum(p.numel() for p in network.parameters()) == 1_460_225
    layers = []
    for before, after in ((784, 1024), (1024, 512), (512, 256)):
        layers += [nn.Linear(before, after), leaky(), nn.Dropout(0.3)]
    plain = nn.Sequential(nn.Flatten(), *layers, nn.Linear(256, 1))
    copy_weights(network, plain, spectral)
    assert bool(weighted(network, SpectralLinear)) == spectral
    x = torch.rand(5, 1, 28, 28)
    torch.testing.assert_close(network.eval()(x), plain.eval()(x).squeeze(1))
    if not spectral:  # the same dropped units from the same stream
        torch.manual_seed(3)
        dropped = network.train()(x)
        torch.manual_seed(3)
        assert torch.equal(dropped, plain.train()(x).squeeze(1))
        assert not torch.equal(dropped, network.eval()(x))
