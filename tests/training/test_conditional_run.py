"""Conditional runs with all that may be switched on: resumed bit for bit, judged by class, a row a class."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from eqgan.cli import train_gan
from eqgan.cli.evaluate import evaluate
from eqgan.cli.sample import sample
from eqgan.data.imageset import ImageSet
from eqgan.data.sources import load_images
from eqgan.groups import P4
from eqgan.metrics import FeatureExtractor
from eqgan.networks import GivenLabel, OrbitGenerator, P4CNNClassifier
from eqgan.networks.features import feature_network
from eqgan.testing import assert_invariant
from eqgan.training.callbacks import read_checkpoint
from eqgan.training.callbacks.grid import columns_of
from eqgan.training.classes import classes_of
from eqgan.training.load import load_gan
from tests.training.runs import TINY, refused, require_same_run

EVERYTHING = {
    "gen": "p4",
    "generator.latent_dim": 6,
    "generator.width": 8,
    "loss": "rp",
    "penalty": "r1r2",
    "penalty.every": 2,
    "augment": "ada",
    "augment.images": 1000,
    "batch_size": 32,
    "fraction": 0.12,
    "augment.target": -0.5,
    "evaluation.grid": 20,
}
OPTIONS = {key.replace(".", "__"): value for key, value in EVERYTHING.items()}


@pytest.fixture(scope="module")
def conditional(shared):
    """Two epochs without a stop."""
    shared.train("--name", "conditional", "--epochs", "2", "--conditional", **OPTIONS)
    return "conditional"


def test_resumed_with_everything_switched_on_it_is_the_run_that_was_never_stopped(shared, conditional):
    shared.train("--name", "conditional-halved", "--epochs", "1", "--conditional", **OPTIONS)
    half = read_checkpoint(shared.last("conditional-halved"))["state_dict"]
    assert half["augmentation.batches"] == 5
    shared.resume("conditional-halved", "--epochs", "2")
    require_same_run(shared, "conditional-halved", conditional)
    state = read_checkpoint(shared.last(conditional))["state_dict"]
    assert state["augmentation.batches"] == 10
    assert 0 < state["augmentation.probability"] < 1, "it was in play"


def test_the_table_has_the_classes(shared, conditional):
    rows = shared.rows(conditional)
    assert all(0 <= float(row["class_accuracy"]) <= 1 for row in rows)
    assert all(0 <= float(row["augment_probability"]) <= 1 for row in rows)
    summary = json.loads((shared.logs(conditional) / "summary.json").read_text())
    scores = summary["classes_at_minimum"]
    known = [d for d in scores["by_class"] if d is not None]
    assert len(scores["by_class"]) == 10
    assert scores["intra_fid"] == pytest.approx(sum(known) / len(known))
    assert 0 <= scores["accuracy"] <= 1
    assert 0 <= summary["invariance_error"] < 1e-9
    assert summary["generator"]["multiply_adds"] > 0


def test_tensorboard_has_the_classes(shared, conditional):
    events = EventAccumulator(str(shared.logs(conditional)))
    events.Reload()
    assert {"class_accuracy", "augment_probability", "penalty"} <= set(events.Tags()["scalars"])
    accuracies = [float(row["class_accuracy"]) for row in shared.rows(conditional)]
    assert [event.value for event in events.Scalars("class_accuracy")] == pytest.approx(accuracies)


def test_a_row_of_the_grid_is_a_class(shared, conditional):
    """Ten rows of two, the digits enlarged three times; in a column one latent."""
    for name in ("real.png", "epoch_0001.png"):
        picture = np.asarray(Image.open(shared.samples(conditional) / name))
        assert picture.shape == (10 * (28 * 3 + 3) + 3, 2 * (28 * 3 + 3) + 3, 3)
    train = load_images("digits")
    real = np.asarray(Image.open(shared.samples(conditional) / "real.png"))[..., 0]
    for label in (0, 9):
        top = 3 + label * 87
        shown = real[top : top + 84 : 3, 3:87:3]
        own = train.images[train.labels == label][:, 0].numpy()
        assert (own == shown).all((1, 2)).any(), f"row {label} does not begin with a {label}"
    assert [columns_of(count, 10) for count in (5, 10, 64, 200)] == [1, 1, 6, 8]
    assert columns_of(5) == 5


def test_it_comes_back_from_its_checkpoint(shared, conditional):
    gan = load_gan(shared.last(conditional))
    assert gan.num_classes == 10
    assert isinstance(gan.generator, OrbitGenerator)
    assert read_checkpoint(shared.last(conditional))["eqgan"]["class_names"] == list("0123456789")
    z = gan.generator.draw_latents(1).expand(2, -1)
    zero, one = gan.sample(z, torch.tensor([0, 1]))
    assert not torch.equal(zero, one)
    x = 2 * torch.rand(3, 1, 28, 28, dtype=torch.float64) - 1
    assert_invariant(GivenLabel(gan.discriminator.double(), 4), x, P4)


@pytest.mark.parametrize(
    ("augment", "penalty"), [("diff", "gp"), ("rotation", "lipschitz"), ("group", "consistency")]
)
def test_the_other_augmentations_and_penalties_train(augment, penalty, place):
    settings = {"penalty": penalty, "penalty__every": 1, "loss": "alpha", "augment": augment}
    pairs = {**TINY, "epochs": 1, "trainer.limit_train_batches": 2, "batch-size": 32}
    for name in ("penalty.gamma", "disc", "disc-arch"):
        pairs.pop(name)
    words = [
        w
        for k, v in {**pairs, **{k.replace("__", "."): v for k, v in settings.items()}}.items()
        for w in (f"--{k}", str(v))
    ]
    summary = train_gan([*words, "--discriminator.spectral", "bank", *place.words])
    assert summary["generator_steps"] == 1


def test_it_is_evaluated_and_sampled_from(shared, conditional, tmp_path):
    found = evaluate([str(shared.logs(conditional)), "--samples", "100", "--json"])
    assert len(found["classes"]["by_class"]) == 10
    assert 0 <= found["classes"]["accuracy"] <= 1
    assert found["invariance_error"] < 1e-9
    images = tmp_path / "others.npz"
    np.savez(images, images=np.zeros((20, 28, 28), np.uint8), labels=np.arange(20) % 3)
    other = evaluate([str(shared.logs(conditional)), "--reference", str(images), "--json"])
    assert other["fid"] > 0
    assert (other.get("classes") or {}).get("by_class") is None  # of other classes: scored as a whole
    sample([str(shared.logs(conditional)), "-n", "5", "--class", "3", "--out", str(tmp_path / "threes.npz")])
    with np.load(tmp_path / "threes.npz") as file:
        assert (file["labels"] == 3).all()
        assert file["images"].shape == (5, 1, 28, 28)


# --- classes ---------------------------------------------------------------------------------------------


def labelled(labels, classes=("a", "b")):
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (len(labels), 1, 28, 28), generator=draws, dtype=torch.uint8)
    return ImageSet.of("things", images, torch.tensor(labels), None, classes)


def extractor():
    return FeatureExtractor.from_module(feature_network(), "digits")


def test_labels_are_drawn_as_often_as_the_real_ones():
    classes = classes_of(labelled([0] * 6 + [1] * 2), "test", extractor())
    assert classes.guess is None, "the shipped network knows digits alone"
    drawn = classes.draw(4000, torch.Generator().manual_seed(0))
    assert drawn.double().mean().item() == pytest.approx(0.25, abs=0.03)


def test_a_classifier_of_ones_own_guesses_the_class():
    torch.manual_seed(0)
    network = P4CNNClassifier((1, 28, 28), 2, P4, width=4)
    classes = classes_of(labelled([0, 1] * 4), "test", extractor(), network)
    pictures = torch.rand(5, 1, 28, 28)
    assert torch.equal(classes.guess(pictures, pictures), network.eval()(pictures).argmax(1))
    with pytest.raises(ValueError, match=r"tells 2 classes of \(1, 28, 28\) images apart, things has 3"):
        classes_of(labelled([0, 1, 2] * 4, tuple("abc")), "test", extractor(), network)


def test_sets_that_have_no_class_scores():
    bare = ImageSet.of("things", torch.zeros(4, 1, 28, 28, dtype=torch.uint8))
    with pytest.raises(ValueError, match="the test images have no labels"):
        classes_of(bare, "test", extractor())
    with pytest.raises(ValueError, match="class 'b' has fewer than 2 test images"):
        classes_of(labelled([0, 0, 0, 1]), "test", extractor())


def test_images_without_labels_cannot_be_conditional(place, tmp_path, capsys):
    np.savez(tmp_path / "bare.npz", images=np.zeros((300, 28, 28), np.uint8))
    words = ("--conditional", "--epochs", "1")
    line = refused(place, lambda: place.train(*words, data=str(tmp_path / "bare.npz")), capsys)
    assert "--conditional: expected images with labels of 2 classes or more, bare" in line
    assert "has none" in line
