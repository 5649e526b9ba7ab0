"""Feature networks: their hash, what is done to their input, and the user's own by a dotted path."""

import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eqgan.metrics import FeatureExtractor, features_from_path, inception_features, module_hash
from eqgan.metrics.features import signed_unit
from eqgan.metrics.inception import InceptionFeatures


class Means(nn.Module):
    """Mean and first pixel of every channel; remembers what it was shown."""

    def __init__(self, image_size=None, in_channels=None) -> None:
        super().__init__()
        if image_size is not None:
            self.image_size = image_size
        if in_channels is not None:
            self.in_channels = in_channels
        self.seen: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(images)
        return torch.cat([images.mean(dim=(2, 3)), images[:, :, 0, 0]], dim=1)


class Returns(nn.Module):
    """Returns what a function makes of the images."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: torch.Tensor):
        return self.function(images)


def images(rows: int = 6, channels: int = 1, size: int = 8) -> torch.Tensor:
    return torch.rand(rows, channels, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


# --- hash ---


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten())


def change_weight(module: nn.Module) -> None:
    module[0].weight.data[0, 0, 0, 0] += 1e-6


def change_buffer(module: nn.Module) -> None:
    module[1].num_batches_tracked += 1


def change_dtype(module: nn.Module) -> None:
    module.double()


def change_shape(module: nn.Module) -> None:
    module[0].weight.data = module[0].weight.data.reshape(1, 2, 3, 3)


def change_name(module: nn.Module) -> None:
    module.add_module("3", module[2])
    module[2] = module[1]
    module[1] = nn.Identity()


@pytest.mark.parametrize("change", [change_weight, change_buffer, change_dtype, change_shape, change_name])
def test_the_hash_sees_every_change_of_state(change):
    module = network()
    before = module_hash(module)
    assert before == module_hash(network()) == module_hash(module.eval())
    change(module)
    assert module_hash(module) != before


def test_the_hash_is_of_stated_bytes_and_stays_the_same_for_ever():
    module = nn.Linear(2, 1)
    module.weight.data, module.bias.data = torch.tensor([[1.0, -2.0]]), torch.tensor([0.5])
    assert module_hash(module) == "3b1d833458e7a5121f855c84fe87fa0711e3759bacf2313bcb7e81707aaa6217"
    assert module_hash(module.bfloat16()) != module_hash(module.float())


# --- extraction ---


@pytest.mark.parametrize("batch_size", [1, 4, 6, 500])
def test_batches_do_not_change_the_features(batch_size):
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(), nn.Flatten()).double()
    extractor = FeatureExtractor.from_module(module, "small")
    features = extractor.extract(images(), batch_size)
    expected = module.eval()(images().double()).float()
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, expected)
    torch.testing.assert_close(extractor(images()), expected)


def test_train_flags_gradients_and_statistics_are_left_alone():
    module = network().train()
    module[0].eval()
    before = module_hash(module)
    features = FeatureExtractor.from_module(module, "small").extract(images())
    assert [part.training for part in module] == [False, True, True]
    assert module.training
    assert module_hash(module) == before  # batch norm did not count
    assert not features.requires_grad
    features += 1  # an ordinary tensor
    module[0].weight.sum().backward()  # and the network can train


def test_train_flags_come_back_after_an_error():
    module = Returns(lambda x: x).train()
    with pytest.raises(ValueError, match="expected an output of shape"):
        FeatureExtractor.from_module(module, "broken").extract(images())
    assert module.training


def test_autocast_around_it_does_not_reach_the_network():
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    extractor = FeatureExtractor.from_module(module, "linear")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = extractor.extract(images())
        assert module(images()).dtype == torch.bfloat16
    torch.testing.assert_close(inside, module(images()).detach(), rtol=0, atol=0)


def test_bytes_are_scaled_to_plus_and_minus_one():
    byte_images = torch.tensor([[0, 255], [51, 204]], dtype=torch.uint8).reshape(1, 1, 2, 2)
    expected = torch.tensor([[-1.0, 1.0, -0.6, 0.6]])
    torch.testing.assert_close(
        FeatureExtractor.from_module(nn.Flatten(), "pixels").extract(byte_images), expected
    )
    with pytest.raises(ValueError, match=r"uint8 in 0\.\.255, got torch.int64"):
        signed_unit(byte_images.long())


def test_grey_becomes_rgb_by_repetition():
    module = Means(in_channels=3)
    extractor = FeatureExtractor.from_module(module, "rgb")
    extractor.extract(images())
    assert torch.equal(module.seen[0], images().repeat(1, 3, 1, 1))
    assert extractor.describe()["channels"] == "RGB (grey by repetition)"


def test_rgb_becomes_grey_by_luma():
    module = Means(in_channels=1)
    extractor = FeatureExtractor.from_module(module, "grey")
    colours = torch.eye(3).reshape(3, 3, 1, 1).expand(3, 3, 4, 4)
    features = extractor.extract(colours)
    torch.testing.assert_close(features[:, 0], torch.tensor([0.299, 0.587, 0.114]))
    assert extractor.describe()["channels"] == "grey (RGB by ITU-R 601 luma)"


@pytest.mark.parametrize("declared", [4, (4, 4)])
def test_other_sizes_are_resized_with_antialiasing(declared):
    module = Means(image_size=declared)
    extractor = FeatureExtractor.from_module(module, "four")
    extractor.extract(images(size=8))
    extractor.extract(images(size=4))
    expected = F.interpolate(images(size=8), size=(4, 4), mode="bilinear", antialias=True)
    assert torch.equal(module.seen[0], expected)
    assert torch.equal(module.seen[1], images(size=4))  # the right size is left alone
    assert extractor.describe()["resize"] == "bilinear-antialias-4"


def test_a_network_that_declares_nothing_gets_images_as_they_are():
    module = Means()
    extractor = FeatureExtractor.from_module(module, "any")
    extractor.extract(images(channels=2, size=5))
    assert torch.equal(module.seen[0], images(channels=2, size=5))
    sha256 = module_hash(module)
    assert extractor.describe() == {
        "name": "any",
        "sha256": sha256,
        "resize": None,
        "channels": "as given",
    }


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"image_size": (4, 5)}, r"image_size=\(4, 5\)"),
        ({"image_size": "28"}, "image_size='28'"),
        ({"in_channels": 2}, "in_channels=2"),
        ({"in_channels": [1]}, r"in_channels=\[1\]"),
    ],
)
def test_declarations_that_make_no_sense_are_named(attributes, message):
    with pytest.raises(ValueError, match=message):
        FeatureExtractor.from_module(Means(**attributes), "odd")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x, r"expected an output of shape \(6, d\), got \(6, 1, 8, 8\)"),
        (lambda x: (x.flatten(1), x), "got tuple"),
        (lambda x: x.flatten(1)[:3], r"got \(3, 64\)"),
        (
            lambda x: x.flatten(1).sqrt(),
            "6 of 6 outputs hold NaN or infinity. Look for the cause in its weights",
        ),
    ],
)
def test_outputs_that_are_no_features_are_named(function, message):
    with pytest.raises(ValueError, match=message):
        FeatureExtractor.from_module(Returns(function), "broken").extract(images())


def test_images_that_are_not_finite_are_named():
    broken = images()
    broken[2] = float("nan")
    with pytest.raises(ValueError, match=r"1 of 6 outputs .* the images, which are not finite"):
        FeatureExtractor.from_module(nn.Flatten(), "pixels").extract(broken)


@pytest.mark.parametrize("bad", [torch.zeros(0, 1, 8, 8), torch.zeros(1, 8, 8), torch.zeros(3, 64)])
def test_images_of_another_shape_are_named(bad):
    with pytest.raises(ValueError, match="expected images"):
        FeatureExtractor.from_module(nn.Flatten(), "pixels").extract(bad)


def test_channels_that_cannot_be_adapted_are_named():
    with pytest.raises(ValueError, match="takes 3 channels, the images have 4"):
        FeatureExtractor.from_module(Means(in_channels=3), "rgb").extract(images(channels=4))


# --- the user's own ---

USER_MODULE = """
from torch import nn

class Network(nn.Sequential):
    image_size = 4
    def __init__(self):
        super().__init__(nn.Flatten())

def make_network():
    return Network()

ready = Network()
number = 3

def needs_width(width):
    return nn.Linear(width, 1)

def makes_a_list():
    return [1]
"""


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    (tmp_path / "my_features.py").write_text(USER_MODULE)
    (tmp_path / "my_broken.py").write_text("import a_package_nobody_has\n")
    monkeypatch.chdir(tmp_path)
    yield "my_features"
    for name in ("my_features", "my_broken"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("attribute", [":make_network", ":Network", ".Network", ":ready", ".make_network"])
def test_a_path_names_the_users_network(user_module, attribute):
    path_before = list(sys.path)
    extractor = features_from_path(user_module + attribute)
    assert extractor.name == user_module + attribute
    assert extractor.describe()["resize"] == "bilinear-antialias-4"
    assert extractor.extract(images()).shape == (6, 16)
    assert sys.path == path_before


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("my_nothing:make", "module 'my_nothing' cannot be imported .*No module named 'my_nothing'"),
        ("my_broken:make", "cannot be imported .*a_package_nobody_has"),
        ("my_features:make_netwrk", "has no 'make_netwrk'. Nearest names: make_network"),
        ("my_features:number", "is of type int"),
        ("my_features:needs_width", "calling it without arguments failed .*width"),
        ("my_features:makes_a_list", "returned list: expected an nn.Module"),
        ("my_features", 'expected "package.module:factory"'),
        ("my_features:", 'expected "package.module:factory"'),
        ("", 'expected "package.module:factory"'),
    ],
)
def test_paths_that_lead_nowhere_are_named(user_module, path, message):
    with pytest.raises(ValueError, match=message):
        features_from_path(path)


# --- Inception ---


def test_inception_without_torch_fidelity_says_what_to_do(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"needs torch-fidelity.*\.\[inception\].*--fid-features default"):
        inception_features()


@pytest.fixture
def pretended_torch_fidelity(monkeypatch, tmp_path):
    """Enough of torch-fidelity to reach the weights, which lie (or do not) under tmp_path."""
    package, module = (type(sys)(name) for name in ("torch_fidelity", "feature_extractor_inceptionv3"))
    module.URL_INCEPTION_V3 = "https://example.invalid/weights-inception-2015-12-05-6726825d.pth"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "torch_fidelity", package)
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", module)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    return tmp_path


def test_inception_without_weights_says_what_to_do(pretended_torch_fidelity, monkeypatch):
    monkeypatch.setenv("EQGAN_NO_DOWNLOAD", "1")
    with pytest.raises(RuntimeError, match=r"no weights of Inception-v3 at .*--fid-features default"):
        inception_features()

    def offline(*args, **kwargs):
        raise OSError("Network is unreachable")

    monkeypatch.delenv("EQGAN_NO_DOWNLOAD")
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(RuntimeError, match=r"cannot download .*unreachable.*--fid-features default"):
        inception_features()


def test_inception_with_damaged_weights_says_what_to_do(pretended_torch_fidelity):
    folder = pretended_torch_fidelity / "checkpoints"
    folder.mkdir()
    (folder / "weights-inception-2015-12-05-6726825d.pth").write_bytes(b"not weights")
    with pytest.raises(RuntimeError, match="damaged: expected a SHA-256 that starts with 6726825d"):
        inception_features()


def test_inception_is_shown_rgb_bytes():
    seen = []

    def pretended(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return x.float().flatten(1)

    extractor = FeatureExtractor.from_module(InceptionFeatures(Returns(pretended)), "inception-v3-compat")
    values = torch.tensor([-1.0, 1.0, 0.0, 51 / 127.5 - 1]).reshape(1, 1, 2, 2)
    extractor.extract(values)
    assert seen[0].dtype == torch.uint8
    assert seen[0].shape == (1, 3, 2, 2)
    assert seen[0][0, 1].flatten().tolist() == [0, 255, 128, 51]
    assert extractor.describe()["resize"] == "bilinear-antialias-299"
    with pytest.raises(ValueError, match="images hold NaN"):  # bytes would have hidden it
        extractor.extract(values / 0)


def test_bytes_reach_inception_unchanged():
    seen = []
    module = InceptionFeatures(Returns(lambda x: seen.append(x) or x.float().flatten(1)))
    every_byte = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    FeatureExtractor.from_module(module, "inception-v3-compat").extract(every_byte)
    assert torch.equal(seen[0][:, :1], every_byte)
