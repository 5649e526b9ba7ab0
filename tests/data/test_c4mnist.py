"""Quarter turns of MNIST: exact, each training image its own, every test image in all four."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from eqgan.data import c4mnist
from eqgan.data.sources import open_source


@pytest.fixture
def source(monkeypatch):
    """Of forty digits of noise."""
    draws = np.random.RandomState(0)
    images, labels = draw_images(draws, 40)
    tests, test_labels = draw_images(draws, 8)
    mnist = SimpleNamespace(
        train_images=images, train_labels=labels, test_images=tests, test_labels=test_labels
    )
    monkeypatch.setattr(c4mnist, "load_mnist", lambda root: mnist)
    return mnist, open_source("c4mnist")


def draw_images(draws, count):
    return draws.randint(0, 256, (count, 28, 28), dtype=np.uint8), draws.randint(0, 10, count).astype(
        np.uint8
    )


def test_every_training_image_has_its_own_turn(source):
    mnist, made = source
    train = made.split("train")
    turns = np.random.RandomState(2402).randint(0, 4, 40)
    assert set(turns.tolist()) == {0, 1, 2, 3}
    assert train.angles.tolist() == (90.0 * turns).tolist()
    for image, original, quarters in zip(train.images[:, 0].numpy(), mnist.train_images, turns):
        assert (image == np.rot90(original, quarters)).all()
    assert train.labels.tolist() == mnist.train_labels.tolist()


def test_the_test_images_are_closed_under_quarter_turns(source):
    mnist, made = source
    test = made.split("test")
    assert test.images.shape == (32, 1, 28, 28)
    assert test.labels.tolist() == np.repeat(mnist.test_labels, 4).tolist()
    orbits = test.images.view(8, 4, 28, 28)
    assert (orbits[:, 0].numpy() == mnist.test_images).all()
    assert torch.equal(torch.rot90(orbits, 1, (2, 3)).roll(1, 1), orbits)


def test_it_is_not_upright_mnist(source):
    mnist, made = source
    assert (made.split("train").images[:, 0].numpy() != mnist.train_images).any()
    assert made.name == "c4mnist"
