"""A plain residual network, inflated, is exactly its group average; weights come from where they may."""

import copy

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet, ResNet18_Weights

from eqgan.groups import P2, P4, P4M, SQUARE_PLANE_GROUPS, Z2, scalar
from eqgan.networks import (
    IMAGENET,
    GroupResNet,
    ResNet18,
    ResNet44,
    WideKernelResNet,
    inflate,
    initialise,
    plain_resnet,
    read_weights,
    torchvision_weights,
)
from eqgan.nn import act
from eqgan.testing import assert_invariant
from tests.networks.cases import classifier, images, train_classifier

GROUPS = pytest.mark.parametrize("group", [g for g in SQUARE_PLANE_GROUPS.values() if g.order > 1], ids=str)
SMALL = {"width": 4, "stem": "small"}
SOURCES = {  # sizes at which every stride is exact, odd and even
    "resnet18-33": lambda: ResNet18((1, 33, 33), 3, Z2, **SMALL),
    "resnet18-32": lambda: ResNet18((3, 32, 32), 3, Z2, **SMALL),
    "resnet18-65": lambda: ResNet18((3, 65, 65), 3, Z2, width=4),
    "resnet18-standardised": lambda: ResNet18((1, 33, 33), 3, Z2, **SMALL, **IMAGENET),
    "resnet44-13": lambda: ResNet44((1, 13, 13), 3, Z2, width=3),
    "wide-21": lambda: WideKernelResNet((1, 21, 21), 3, Z2, width=4),
}


@torch.no_grad()
def drawn(network: nn.Module) -> nn.Module:
    """Scales, shifts and running statistics that are not zero or one, as training leaves them."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(0.5, 1.5), module.bias.normal_(std=0.2)
            module.running_mean.normal_(std=0.2), module.running_var.uniform_(0.5, 1.5)
    return network


def torchvision_resnet(classes=5, blocks=(1, 1, 1, 1)):
    torch.manual_seed(3)
    return drawn(ResNet(BasicBlock, list(blocks), num_classes=classes))


def group_average(network, x, group):
    with torch.no_grad():
        turned = [network(act(g, x, scalar(group, x.shape[1]))) for g in range(group.order)]
    return torch.stack(turned).mean(0)


@pytest.mark.parametrize("name", SOURCES)
@GROUPS
def test_it_is_the_explicit_average_over_the_group(name, group):
    torch.manual_seed(0)
    plain = drawn(SOURCES[name]().double()).eval()
    x = images(plain, 2)
    inflated = inflate(plain, group)
    assert inflated.group == group
    assert not inflated.training
    with torch.no_grad():
        torch.testing.assert_close(inflated(x), group_average(plain, x, group), rtol=1e-10, atol=1e-10)
        assert (inflated(x) - plain(x)).abs().max() > 1e-6, "the plain network is no average"
    assert_invariant(inflated, x, group)
    with pytest.raises(AssertionError, match="not invariant"):
        assert_invariant(plain, x, group)


def test_torchvisions_resnet_in_single_precision():
    """As it comes: 64 channels and more, float32, a size that keeps strides exact."""
    theirs = torchvision_resnet().eval()
    plain = plain_resnet(theirs.state_dict(), (3, 33, 33)).eval()
    x = images(plain, 2).float()
    with torch.no_grad():
        torch.testing.assert_close(plain(x), theirs(x), rtol=1e-5, atol=1e-5)
        average = group_average(theirs, x, P4)
        torch.testing.assert_close(inflate(plain, P4)(x), average, rtol=1e-5, atol=1e-5)


def test_in_training_it_is_the_plain_network_on_all_turns_at_once():
    """Batch norm shared over the fiber sees what the plain one sees in a batch of every turned image."""
    torch.manual_seed(0)
    plain = drawn(SOURCES["resnet18-33"]().double()).train()
    x = images(plain, 4)
    inflated = inflate(plain, P4)
    assert inflated.training
    turned = torch.cat([act(g, x, scalar(P4, 1)) for g in range(4)])
    average = plain(turned).unflatten(0, (4, 4)).mean(0)
    torch.testing.assert_close(inflated(x), average, rtol=1e-9, atol=1e-9)
    for own, theirs in zip(inflated.modules(), plain.modules()):
        if isinstance(own, nn.BatchNorm2d):
            torch.testing.assert_close(own.running_mean, theirs.running_mean, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(own.running_var, theirs.running_var, rtol=1e-9, atol=1e-9)


def test_three_quarters_of_the_weights_of_p4_are_free_and_zero():
    plain = SOURCES["resnet18-33"]()
    inflated = inflate(plain, P4)
    filters = [(m.weight, m.kernel_size**2) for m in inflated.body.residual.modules() if hasattr(m, "orbits")]
    for weight, cells in filters:
        assert weight.shape[2] == 4 * cells
        assert (weight[..., :cells] != 0).all()
        assert (weight[..., cells:] == 0).all()
    assert all(p.requires_grad for p in inflated.parameters())


@pytest.mark.parametrize("where", ["off", "on"])
def test_another_tap_would_be_noticed(where):
    torch.manual_seed(0)
    plain = drawn(SOURCES["resnet18-33"]().double()).eval()
    inflated, x = inflate(plain, P4), images(plain, 2)
    weight = inflated.body.residual[1][0].conv1.weight
    with torch.no_grad():
        if where == "off":
            weight[..., 9:] += 0.01
        else:  # the mean over the fiber of every filter: uniform inflation
            weight.copy_(weight.unflatten(2, (4, 9)).mean(2, keepdim=True).expand(-1, -1, 4, -1).flatten(2))
        assert (inflated(x) - group_average(plain, x, P4)).abs().max() > 1e-4
    assert_invariant(inflated, x, P4)


def test_what_cannot_be_inflated():
    with pytest.raises(ValueError, match=r"plain \(z2\) network to inflate, got one over p4"):
        inflate(ResNet18((1, 33, 33), 3, P4, **SMALL), P4M)
    even = ResNet18((3, 64, 64), 3, Z2, width=2, stem_window=7)  # z2 does not mind
    with pytest.raises(ValueError, match=r"size 64: .* breaks p4 symmetry.* takes: 33, 65"):
        inflate(even, P4)


@pytest.mark.parametrize("name", ["p4cnn", "allcnn"])
def test_any_classifier_can_be_filled_from_a_plain_one(name):
    plain = train_classifier(classifier(name, Z2, width=4, pool="mean")).eval()
    network = classifier(name, P4, width=4, match="none", pool="mean", seed=1).eval()
    initialise(network, plain.state_dict())
    x = images(plain, 2)
    with torch.no_grad():
        torch.testing.assert_close(network(x), group_average(plain, x, P4), rtol=1e-10, atol=1e-10)
    other = classifier(name, P4, width=4, match="none", seed=2)
    head = copy.deepcopy(other.stages()["head"].state_dict())
    initialise(other, plain.state_dict(), head=False)
    parameters = dict(other.stages()["head"].named_parameters())
    assert all(torch.equal(head[key], value) for key, value in parameters.items())


# --- where weights come from ------------------------------------------------------------------------------


def test_the_layout_is_read_from_names_and_shapes():
    theirs = torchvision_resnet(classes=4, blocks=(1, 2, 1, 2))
    network = plain_resnet(theirs.state_dict(), (3, 65, 65))
    assert network.layout["blocks"] == (1, 2, 1, 2)
    assert network.layout["widths"] == (64, 128, 256, 512)
    assert network.layout["stem_window"] == 7
    assert network.num_classes == 4
    narrow = {n: w for n, w in theirs.state_dict().items() if not n.startswith(("layer3", "layer4"))}
    network = plain_resnet(narrow | {"fc.weight": torch.randn(4, 128)}, (3, 65, 65))
    assert network.layout["blocks"] == (1, 2)
    assert network.layout["widths"] == (64, 128)


def test_one_for_small_images():
    theirs = torchvision_resnet()
    theirs.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    theirs.maxpool = nn.Identity()
    ours = plain_resnet(theirs.state_dict(), (3, 33, 33), stem="small").eval()
    x = images(ours, 2).float()
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs.eval()(x), rtol=1e-5, atol=1e-5)


def test_other_classes_start_a_fresh_head():
    theirs = torchvision_resnet(classes=5)
    other = plain_resnet(theirs.state_dict(), (3, 33, 33), num_classes=2)
    same = plain_resnet(theirs.state_dict(), (3, 33, 33), num_classes=5)
    assert other.head.weight.shape == (2, 512)
    assert torch.equal(same.head.weight, theirs.fc.weight)
    assert torch.equal(other.body.stem[0].weight.flatten(), theirs.conv1.weight.flatten())


def test_weights_of_the_same_group_are_copied_as_they_are():
    """Pretraining of one's own, from one set to another: all but the head."""
    torch.manual_seed(0)
    source = drawn(ResNet18((1, 33, 33), 5, P4, **SMALL))
    target = ResNet18((1, 33, 33), 3, P4, **SMALL)
    head = target.head.weight.clone()
    initialise(target, source.state_dict(), head=False)
    assert torch.equal(target.head.weight, head)
    for name, value in source.body.state_dict().items():
        assert torch.equal(target.body.state_dict()[name], value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 6}, r"body.stem.0.weight: .*\(6, 1, 9\).*\(4, 1, 9\).*match='none'"),
        ({"blocks": (1, 2)}, "they have besides 'body.residual.0.1.bn1"),
        ({"blocks": (2, 3)}, "they lack 'body.residual.1.2.bn1"),
        ({"num_classes": 4}, r"head.*\(4\D.*\(3\D.*head=False"),
        ({"group": P2}, r"conv1.weight: .*\(4, 4, 18\).*\(4, 4, 72\)"),
    ],
    ids=["width", "short", "long", "classes", "group"],
)
def test_weights_of_another_layout_change_nothing(options, message):
    torch.manual_seed(0)
    form = {"num_classes": 3, "group": P4M, "width": 4, "blocks": (2, 2), "match": "none", "stem": "small"}

    def network(num_classes, group, width, **rest):
        return GroupResNet((1, 33, 33), num_classes, group, widths=(width, 2 * width), **rest)

    target = network(**form | options)
    before = {n: w.clone() for n, w in target.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        initialise(target, network(**form).state_dict())
    for name, value in target.state_dict().items():
        assert torch.equal(before[name], value)


def test_a_wider_first_window_is_told_with_the_side_that_helps():
    """An even side takes a window of 8 where the weights have 7."""
    network = ResNet18((3, 224, 224), 5, P4, match="none", pool="mean")
    with pytest.raises(ValueError, match=r"first window has 64 cells, that of the weights 49.*--size 225"):
        initialise(network, torchvision_resnet(blocks=(2, 2, 2, 2)).state_dict())


def test_the_weights_that_torchvision_gives_out(tmp_path, monkeypatch):
    """From torch's hub folder, where a download is kept; the hash in the name is checked."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    weights = torchvision_resnet(blocks=(2, 2, 2, 2)).state_dict()
    asked = {}

    def get_state_dict(self, **options):
        asked.update(options)
        return weights

    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", get_state_dict)
    monkeypatch.delenv("EQGAN_NO_DOWNLOAD")
    assert torchvision_weights("resnet18").keys() == weights.keys()
    assert asked == {"check_hash": True, "weights_only": True}
    monkeypatch.setenv("EQGAN_NO_DOWNLOAD", "1")
    with pytest.raises(FileNotFoundError, match=r"EQGAN_NO_DOWNLOAD is set.*--init FILE"):
        torchvision_weights("resnet18")
    kept = tmp_path / "checkpoints" / ResNet18_Weights.DEFAULT.url.rpartition("/")[2]
    kept.parent.mkdir()
    kept.touch()
    assert torchvision_weights("resnet18").keys() == weights.keys()

    def broken(self, **options):
        raise RuntimeError("invalid hash value")

    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", broken)
    with pytest.raises(FileNotFoundError, match=r"torchvision:resnet18 \(invalid hash value\)"):
        torchvision_weights("resnet18")


@pytest.mark.parametrize("weights", [{"a": torch.zeros(1)}, ResNet(Bottleneck, [1, 1, 1, 1]).state_dict()])
def test_other_networks_are_refused(weights):
    with pytest.raises(ValueError, match="state dict of a torchvision ResNet of basic blocks"):
        plain_resnet(weights, (3, 33, 33))


def test_weights_from_files(tmp_path):
    weights = {"a.weight": torch.randn(3), "a.bias": torch.randn(1)}
    torch.save(weights, tmp_path / "w.pt")
    save_file(weights, tmp_path / "w.safetensors")
    for name in ("w.pt", "w.safetensors"):
        found = read_weights(tmp_path / name)
        assert found.keys() == weights.keys()
        assert all(torch.equal(found[k], weights[k]) for k in weights)
    torch.save({"epoch": 3}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other.pt: expected a state dict"):
        read_weights(tmp_path / "other.pt")
    with pytest.raises(FileNotFoundError, match=r"no weights at .*missing.pt"):
        read_weights(tmp_path / "missing.pt")
