"""Given z2, each classifier is the plain PyTorch network of the same layers; P4CNN-RP is filters turned."""

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from eqgan.groups import P4, Z2
from eqgan.networks import AllCNN, GroupResNet, P4CNNClassifier, ResNet18, ResNet44, fiber_pool
from eqgan.nn import GroupConv2d
from tests.networks.cases import classifier, images, train_classifier
from tests.oracles.networks import preactivation_resnet, rotation_pooled_network


def block(before, after, kernel, stride=1, padding=0):
    return [nn.Conv2d(before, after, kernel, stride, padding), nn.BatchNorm2d(after), nn.ReLU()]


def z2cnn(width, dropout=0.3):
    """28-26-24-[pool]-12-10-8-6-4-[4x4]-1, dropout after layers 1 and 3 to 6."""
    layers = [*block(1, width, 3), nn.Dropout(dropout), *block(width, width, 3), nn.MaxPool2d(2)]
    for _ in range(4):
        layers += [*block(width, width, 3), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Conv2d(width, 10, 4), nn.Flatten())


def all_cnn_c(width, first):
    """The table of Springenberg et al. with the batch norm of Cohen & Welling."""
    twice = 2 * width
    return nn.Sequential(
        *[nn.Dropout(0.2), *block(3, width, first, 1, first // 2), *block(width, width, 3, 1, 1)],
        *[*block(width, width, 3, 2, 1), nn.Dropout(0.5)],
        *[*block(width, twice, 3, 1, 1), *block(twice, twice, 3, 1, 1)],
        *[*block(twice, twice, 3, 2, 1), nn.Dropout(0.5)],
        *[*block(twice, twice, 3), *block(twice, twice, 1), *block(twice, 10, 1)],
        *[nn.AdaptiveAvgPool2d(1), nn.Flatten()],
    )


def torchvision_resnet(stem, width=64):
    """torchvision's ResNet-18; for small images with the usual change of its first layers."""
    torch.manual_seed(5)
    network = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=10)
    if stem == "small":
        network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    return network


TWINS = {
    "z2cnn": (lambda: P4CNNClassifier((1, 28, 28), 10, Z2, width=4, dropout=0.3), lambda: z2cnn(4)),
    "all-cnn-c": (
        lambda: AllCNN((3, 32, 32), 10, Z2, width=4, stem_window=3),
        lambda: all_cnn_c(4, 3),
    ),
    "all-cnn-c-33": (lambda: AllCNN((3, 32, 32), 10, Z2, width=4), lambda: all_cnn_c(4, 4)),
    "resnet18": (lambda: ResNet18((3, 65, 65), 10, Z2), lambda: torchvision_resnet("large")),
    "resnet18-224": (  # an even size, which only z2 takes with the usual window
        lambda: ResNet18((3, 64, 64), 10, Z2, stem_window=7),
        lambda: torchvision_resnet("large"),
    ),
    "resnet18-small": (
        lambda: ResNet18((3, 33, 33), 10, Z2, stem="small"),
        lambda: torchvision_resnet("small"),
    ),
    "resnet44": (
        lambda: ResNet44((3, 32, 32), 10, Z2, width=3),
        lambda: preactivation_resnet(3, (3, 6, 12), 7, 10, 4),
    ),
}


def by_kind(network):
    """Convolutions, norms and dense layers: in each kind the same order on both sides."""
    kinds = ((GroupConv2d, nn.Conv2d), nn.BatchNorm2d, nn.Linear)
    return [m for kind in kinds for m in network.modules() if isinstance(m, kind)]


@torch.no_grad()
def twins(name):
    """Both in float64 with the plain one's weights; scales and shifts drawn too."""
    torch.manual_seed(0)
    network, plain = (build().double() for build in TWINS[name])
    ours, theirs = by_kind(network), by_kind(plain)
    assert len(ours) == len(theirs)
    for own, other in zip(ours, theirs):
        if isinstance(other, nn.BatchNorm2d):
            other.weight.uniform_(0.5, 1.5), other.bias.normal_(std=0.2)
        own.weight.copy_(other.weight.view_as(own.weight))
        assert (own.bias is None) == (other.bias is None)
        if own.bias is not None:
            own.bias.copy_(other.bias)
    assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in plain.parameters())
    return network, plain


@pytest.mark.parametrize("name", TWINS)
def test_equals_the_plain_network(name):
    network, plain = twins(name)
    x = images(network, 3)
    torch.manual_seed(1)
    trained = network.train()(x)
    torch.manual_seed(1)  # the same units dropped
    torch.testing.assert_close(trained, plain.train()(x), rtol=1e-10, atol=1e-10)
    with torch.no_grad():
        logits = network.eval()(x)
        torch.testing.assert_close(logits, plain.eval()(x), rtol=1e-10, atol=1e-10)
        assert logits.std() > 1e-6
        by_kind(plain)[1].weight.mul_(1.1)  # and it would be noticed if it were another
        assert (logits - plain(x)).abs().max() > 1e-6


@pytest.mark.parametrize("name", ["z2cnn", "resnet44"])
def test_gradients_equal_those_of_the_plain_network(name):
    network, plain = twins(name)
    x = images(network, 3)
    for one in (network.train(), plain.train()):
        torch.manual_seed(1)
        one(x).square().sum().backward()
    for own, other in zip(by_kind(network), by_kind(plain)):
        torch.testing.assert_close(
            own.weight.grad, other.weight.grad.view_as(own.weight), rtol=1e-8, atol=1e-10
        )


def test_standardised_images():
    """Mean and deviation of images in [0, 1], as torchvision's weights expect; grey in three channels."""
    options = {"input_mean": (0.4, 0.5, 0.6), "input_deviation": (0.2, 0.25, 0.3)}
    torch.manual_seed(0)
    network = ResNet18((3, 33, 33), 10, Z2, width=2, stem="small", **options).double().eval()
    grey = ResNet18((1, 33, 33), 10, Z2, width=2, stem="small", **options).double().eval()
    plain = ResNet18((3, 33, 33), 10, Z2, width=2, stem="small").double().eval()
    for other in (grey, plain):
        other.load_state_dict(network.state_dict())
    x = images(network)
    mean, deviation = (torch.tensor(v).double().view(3, 1, 1) for v in options.values())
    torch.testing.assert_close(network(x), plain(((x + 1) / 2 - mean) / deviation))
    torch.testing.assert_close(grey(x[:, :1]), network(x[:, :1].expand(-1, 3, -1, -1)))


@pytest.mark.parametrize(
    "options", [{"input_mean": (0.5,) * 3}, {"input_mean": (0.5,), "input_deviation": (1.0,)}]
)
def test_a_mean_and_a_deviation_for_each_channel(options):
    with pytest.raises(ValueError, match="a mean and a deviation for each of 3 channels"):
        GroupResNet((3, 33, 33), 10, Z2, (1,), (4,), stem="small", **options)


def test_rotation_pooling_from_turned_filters():
    network = train_classifier(classifier("p4cnn-rp", P4, width=8, fiber=fiber_pool("group"))).eval()
    convolutions = [m for m in network.modules() if isinstance(m, GroupConv2d)]
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    x = images(network)
    torch.testing.assert_close(
        network(x), rotation_pooled_network(x, convolutions, norms), rtol=1e-10, atol=1e-10
    )
