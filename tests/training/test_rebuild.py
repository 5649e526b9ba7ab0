"""A checkpoint is enough to have the network again; anything else is refused."""

import pytest
import torch
import yaml

from eqgan.groups import P2, P4, P4M
from eqgan.networks import Classifier, ConvGenerator, Generator, budget
from eqgan.training.callbacks import read_checkpoint
from eqgan.training.finetuning import start_from
from eqgan.training.load import load_classifier
from eqgan.training.preprocessed import PreprocessedClassifier
from eqgan.training.rebuild import rebuild
from tests.training.test_resume import DAMAGES


@pytest.fixture
def checkpoint(classifiers, classified):
    return classifiers.best(classified)


@pytest.fixture
def images():
    return torch.rand(5, 1, 22, 22, generator=torch.Generator().manual_seed(0)) * 2 - 1


def edited(checkpoint, path, state=None, **described):
    """The checkpoint with other things said of it."""
    content = read_checkpoint(checkpoint)
    content["eqgan"] |= described
    content["state_dict"] = state or content["state_dict"]
    torch.save(content, path)
    return path


def test_the_network_comes_back(checkpoint, images):
    """The averaged weights, in eval mode, with the names of the classes."""
    network = load_classifier(checkpoint)
    state = read_checkpoint(checkpoint)["state_dict"]
    assert network.group is P4
    assert network.class_names == ("0", "1", "2")
    assert not network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[f"ema.module.{name}"])
    assert network(images).shape == (5, 3)
    assert load_classifier(str(checkpoint), P4).group is P4
    assert load_classifier(str(checkpoint), P2).group is P4, "it is invariant under half turns too"


def test_with_what_was_fitted_to_the_images(small_place, images):
    """Whitening is part of the network: its matrix is in the checkpoint."""
    summary = small_place.train("--name", "white", "--epochs", "1", preprocess="zca", fit__ema_decay=0)
    network = load_classifier(small_place.best("white"))
    assert isinstance(network, PreprocessedClassifier)
    assert summary["multiply_adds"] == budget(network.network, images[:1]).multiply_adds, "of the network"
    assert network.preprocess.fitted
    assert network.preprocess.group is P4, "that of the network, unless another is given"
    turned = network.double()(torch.rot90(images.double(), 1, (2, 3)))
    torch.testing.assert_close(turned, network(images.double()))
    assert summary["invariance_error"] < 1e-9


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__)
def test_damaged_and_foreign_files(damage, checkpoint, tmp_path):
    path, trap = tmp_path / "bad.ckpt", tmp_path / "trap"
    path.write_bytes(checkpoint.read_bytes())
    damage(path, trap)
    with pytest.raises(ValueError, match=r"is damaged or no plain checkpoint|is not a checkpoint of eqgan"):
        load_classifier(path)
    assert not trap.exists(), "code of the file was run"


def test_no_file():
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at nowhere\.ckpt"):
        load_classifier("nowhere.ckpt")


def test_a_gan(checkpoint, tmp_path):
    content = read_checkpoint(checkpoint)
    del content["eqgan"]["kind"]
    torch.save(content, tmp_path / "gan.ckpt")
    with pytest.raises(ValueError, match=r"gan\.ckpt holds a GAN, expected a classifier"):
        load_classifier(tmp_path / "gan.ckpt")


def test_another_group_than_asked_for(checkpoint):
    with pytest.raises(ValueError, match="holds a p4 network, expected p4m"):
        load_classifier(checkpoint, P4M)


def test_a_group_changed_by_hand(checkpoint, tmp_path):
    """p2 and pm have weights of the same shapes: only what is written tells them apart."""
    config = read_checkpoint(checkpoint)["eqgan"]["config"].replace("group: p4", "group: p2mm")
    path = edited(checkpoint, tmp_path / "edited.ckpt", config=config)
    with pytest.raises(ValueError, match="trained for p4, its settings say p2mm"):
        load_classifier(path)


def test_weights_that_do_not_fit(checkpoint, tmp_path):
    state = dict(list(read_checkpoint(checkpoint)["state_dict"].items())[:-1])
    path = edited(checkpoint, tmp_path / "short.ckpt", state={k: v for k, v in state.items() if "ema" in k})
    with pytest.raises(ValueError, match="the weights do not fit the network of its settings"):
        load_classifier(path)


@pytest.mark.parametrize(
    "class_path",
    ["os.system", "subprocess.Popen", "eqgan.networks.ConvGenerator", "no.such.Class", "Missing"],
)
def test_settings_that_name_something_else(class_path, checkpoint, tmp_path):
    """A config can call classifiers, and nothing else."""
    config = yaml.safe_load(read_checkpoint(checkpoint)["eqgan"]["config"])
    config["network"] = {"class_path": class_path, "init_args": {}}
    path = edited(checkpoint, tmp_path / "odd.ckpt", config=yaml.safe_dump(config))
    with pytest.raises(ValueError, match="Classifier cannot be built from"):
        load_classifier(path)


def test_rebuilding_anything_else():
    spec = {"class_path": "eqgan.networks.ConvGenerator", "init_args": {"width": 2, "latent_dim": 4}}
    assert isinstance(rebuild(Generator, spec, image_shape=(1, 28, 28)), ConvGenerator)
    with pytest.raises(ValueError, match="Generator cannot be built"):
        rebuild(Generator, {**spec, "init_args": {"widht": 2}}, image_shape=(1, 28, 28))


def test_starting_from_the_same_network(checkpoint, images):
    """Nothing is new, and the logits are those of the other."""
    config = yaml.safe_load(read_checkpoint(checkpoint)["eqgan"]["config"])
    network = rebuild(Classifier, config["network"], image_shape=(1, 22, 22), num_classes=3)
    start_from(network, checkpoint)
    assert torch.equal(network.eval()(images), load_classifier(checkpoint)(images))
