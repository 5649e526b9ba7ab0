"""A GAN comes back from its checkpoint as it was, and nothing else is mistaken for one."""

import pickle

import pytest
import torch
import yaml

from eqgan.networks import ConvGenerator, OrbitGenerator
from eqgan.training.callbacks import read_checkpoint
from eqgan.training.load import find_checkpoint, load_gan, open_gan


@pytest.fixture
def checkpoint(shared, whole):
    return shared.last(whole)


def test_it_draws_the_last_grid_of_its_run(shared, whole):
    """The averaged generator, from the fixed latents of the grids: the very picture that training wrote."""
    from eqgan.training.callbacks.grid import save_grid

    gan = load_gan(shared.last(whole))
    latents = gan.generator.draw_latents(8, torch.Generator().manual_seed(0))
    written = shared.root / "again.png"
    save_grid(gan.sample(latents).float(), written)
    assert written.read_bytes() == (shared.samples(whole) / "epoch_0003.png").read_bytes()


def test_every_weight_comes_back(checkpoint):
    gan, kept = load_gan(checkpoint), read_checkpoint(checkpoint)["state_dict"]
    assert gan.state_dict().keys() == kept.keys()
    assert all(torch.equal(kept[name], tensor) for name, tensor in gan.state_dict().items())
    assert isinstance(gan.generator, OrbitGenerator)
    assert isinstance(gan.generator.base, ConvGenerator)
    assert str(gan.discriminator.group) == "p4"
    assert not gan.training


def test_settings_come_with_it(checkpoint, shared, whole):
    gan, settings = open_gan(checkpoint)
    assert settings == yaml.safe_load((shared.logs(whole) / "config.yaml").read_text())
    assert gan.lr_generator == settings["gan"]["lr_generator"]
    assert gan.betas == (0.5, 0.9)


def test_a_folder_stands_for_its_best_checkpoint(shared, whole, tmp_path):
    assert find_checkpoint(shared.logs(whole)) == shared.logs(whole) / "checkpoints" / "best-fid.ckpt"
    assert find_checkpoint(shared.logs(whole) / "checkpoints").name == "best-fid.ckpt"
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        find_checkpoint(tmp_path)
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    assert find_checkpoint(tmp_path).name == "last.ckpt"


# --- what is no GAN's checkpoint --------------------------------------------------------------------------


class Code:
    """Unpickled, it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def changed(checkpoint, path, change):
    content = read_checkpoint(checkpoint)
    change(content)
    torch.save(content, path)
    return path


def set_config(content, **settings):
    kept = yaml.safe_load(content["eqgan"]["config"])
    content["eqgan"]["config"] = yaml.safe_dump({**kept, **settings})


def test_a_pickle_that_wants_to_run_code(tmp_path):
    trap = tmp_path / "trap"
    with (tmp_path / "x.ckpt").open("wb") as file:
        pickle.dump(Code(trap), file)
    with pytest.raises(ValueError, match="damaged or no plain checkpoint"):
        load_gan(tmp_path / "x.ckpt")
    torch.save({"eqgan": Code(trap)}, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match="Nothing of it was loaded"):
        load_gan(tmp_path / "x.ckpt")
    assert not trap.exists()


@pytest.mark.parametrize("content", [{"state_dict": {}}, {"eqgan": {"format": 99}}, {"eqgan": "x"}, [1, 2]])
def test_a_checkpoint_of_another_program(content, tmp_path):
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match="is not a checkpoint of eqgan"):
        load_gan(tmp_path / "x.ckpt")


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_gan(tmp_path / "x.ckpt")


CHANGES = {
    "a classifier": (lambda c: c["eqgan"].update(kind="classifier"), "holds a classifier, expected a GAN"),
    "no settings": (lambda c: c["eqgan"].update(config=""), "does not say how its networks were made"),
    "settings that are no YAML": (lambda c: c["eqgan"].update(config="a: ["), "settings cannot be read"),
    "other settings": (
        lambda c: set_config(c, discriminator={"class_path": "eqgan.networks.MLPDiscriminator"}),
        "do not fit the networks of its settings",
    ),
    "a weight lost": (
        lambda c: c["state_dict"].pop("generator.base.project.weight"),
        r'Missing key.*"generator.base.project.weight"',
    ),
    "another size": (lambda c: c["eqgan"].update(image_shape=[1, 56, 56]), "do not fit"),
    "a class that is no generator": (
        lambda c: set_config(c, generator={"class_path": "os.system", "init_args": {"command": "true"}}),
        "Generator cannot be built from",
    ),
    "a class that is not here": (
        lambda c: set_config(c, generator={"class_path": "nosuch.Thing"}),
        "Generator cannot be built from",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_does_not_fit_is_refused(name, checkpoint, tmp_path):
    change, told = CHANGES[name]
    path = changed(checkpoint, tmp_path / "x.ckpt", change)
    with pytest.raises(ValueError, match=told):
        load_gan(path)
