"""Where a symmetry breaks inside a network: every layer held to the group, the guilty one named."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eqgan.groups import P2, P4, P4M, Z2, quotient, regular, scalar
from eqgan.metrics.layers import layer_errors, where_it_breaks
from eqgan.networks import ConvDiscriminator
from eqgan.nn import GroupConv2d, LiftingConv2d

TOLERANCE = 1e-9


@pytest.fixture
def x():
    return torch.rand(6, 1, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def exact(group):
    return nn.Sequential(
        LiftingConv2d(scalar(group, 1), regular(group, 3), 3),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(2),
        GroupConv2d(regular(group, 3), quotient(group, Z2, 2), 3),
        nn.Sequential(nn.Tanh()),
    ).double()


def errors_of(layers):
    return {layer.name: layer.error for layer in layers}


@pytest.mark.parametrize("group", [P2, P4, P4M], ids=str)
def test_every_layer_of_an_exact_network_follows(group, x):
    layers = layer_errors(exact(group), x, group)
    assert list(errors_of(layers)) == ["0", "1", "2", "3", "4.0"]
    assert max(errors_of(layers).values()) < 1e-12
    assert [layer.action for layer in layers] == ["typed", "permuted", "permuted", "typed", "permuted"]
    assert where_it_breaks(layers, TOLERANCE) is None


@pytest.mark.parametrize("layout", ["field-major", "group-major", "shuffled"])
def test_untyped_fields_of_any_layout_are_recognised(layout, x):
    """What the group does to the channels is found out, as long as it permutes them."""
    filters = torch.randn(5, 1, 3, 3, dtype=torch.float64)
    bank = torch.stack([torch.rot90(filters, turn, (2, 3)) for turn in range(4)], 1)
    bank = bank.transpose(0, 1) if layout == "group-major" else bank
    bank = bank.flatten(0, 1)
    bank = bank[torch.randperm(20)] if layout == "shuffled" else bank
    lift = nn.Conv2d(1, 20, 3, padding=1, bias=False).double()
    lift.weight = nn.Parameter(bank)
    layers = layer_errors(nn.Sequential(lift, nn.ReLU()), x, P4)
    assert max(errors_of(layers).values()) < 1e-12
    assert layers[0].action == "permuted"


def test_a_plain_convolution_breaks_it_at_once(x):
    network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3)).double()
    layers = layer_errors(network, x, P4)
    assert min(errors_of(layers).values()) > 0.1
    guilty = where_it_breaks(layers, TOLERANCE)
    assert (guilty.name, guilty.kind, guilty.input_error) == ("0", "Conv2d", 0.0)


def test_a_pool_that_drops_a_row_is_found(x):
    """The fault of a published discriminator: 7 to 3."""
    network = exact(P4)
    network[4].append(nn.AvgPool2d(2))
    network.append(nn.Conv2d(8, 2, 1).double())
    layers = layer_errors(network, x, P4)
    guilty = where_it_breaks(layers, TOLERANCE)
    assert (guilty.name, guilty.kind) == ("4.1", "AvgPool2d")
    assert guilty.input_error < 1e-12 < 0.05 < guilty.error
    assert errors_of(layers)["3"] < 1e-12


def test_a_symmetry_lost_under_mirrors_only(x):
    network = exact(P4)
    assert where_it_breaks(layer_errors(network, x, P4), TOLERANCE) is None
    assert where_it_breaks(layer_errors(network, x, P4M), TOLERANCE).name == "0"


class Average(nn.Module):
    """A plain convolution on all turned images, turned back: what it breaks is mended by the sum."""

    def __init__(self, tail: nn.Module) -> None:
        super().__init__()
        self.conv, self.tail = nn.Conv2d(1, 4, 3, padding=1), tail

    def forward(self, x):
        parts = [torch.rot90(self.conv(torch.rot90(x, k, (2, 3))), -k, (2, 3)) for k in range(4)]
        return self.tail(torch.stack(parts).sum(0))


def test_what_a_sum_over_the_group_mends_is_not_blamed(x):
    layers = layer_errors(Average(nn.AvgPool2d(5)).double(), x, P4)
    assert list(errors_of(layers)) == ["conv", "conv#2", "conv#3", "conv#4", "tail"]
    assert where_it_breaks(layers, TOLERANCE).name == "tail"


class Shifted(nn.Module):
    """Breaks the symmetry between its layers, in plain code."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Tanh(), nn.Tanh()

    def forward(self, x):
        return self.second(self.first(x)[..., 1:, 1:])


def test_a_break_between_layers_names_the_layer_after_it(x):
    layers = layer_errors(Shifted(), x, P4)
    found = where_it_breaks(layers, TOLERANCE)
    assert found.name == "second"
    assert found.input_error > 0.1


def test_a_block_that_breaks_it_itself(x):
    """Its parts follow, its own code does not."""
    found = where_it_breaks(layer_errors(nn.Sequential(nn.Identity(), Block()), x, P4), TOLERANCE)
    assert (found.name, found.kind) == ("1", "Block")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Tanh()

    def forward(self, x):
        return self.inner(x) * torch.linspace(0, 1, x.shape[-1], dtype=x.dtype)


def test_the_network_is_left_as_it_was(x):
    network = ConvDiscriminator((1, 12, 12), P4, width=4).double().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    layer_errors(network, x, P4)
    assert network.training
    assert all(not module._forward_hooks for module in network.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_weights_under_a_parametrisation(x):
    network = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Conv2d(1, 3, 3)), nn.Tanh()).double()
    assert list(errors_of(layer_errors(network, x, P4))) == ["0", "1"]


def test_layers_that_cannot_be_tested(x):
    """Constants say nothing of a symmetry; vectors too long to match stay as they are."""

    class Constant(nn.Module):
        def forward(self, x):
            return F.relu(-x.abs()) * 0

    layers = layer_errors(nn.Sequential(nn.Tanh(), nn.Flatten()), x, P4)
    assert layers[1].action == "permuted"
    assert layers[1].error < 1e-12
    assert layer_errors(nn.Sequential(Constant()), x, P4)[0].action == "untested"
    wide = torch.rand(4, 1, 40, 40, dtype=torch.float64)
    assert layer_errors(nn.Sequential(nn.Flatten()), wide, P4)[0].action == "scalar"


def test_it_needs_images_to_find_and_to_judge(x):
    with pytest.raises(ValueError, match="at least 4 images"):
        layer_errors(nn.Sequential(nn.Tanh()), x[:3], P4)
    with pytest.raises(ValueError, match="quarter turns"):
        layer_errors(nn.Sequential(nn.Tanh()), x[..., :8], P4)
    assert layer_errors(nn.Sequential(nn.Tanh()), x[..., :8], P2)[0].error == 0
