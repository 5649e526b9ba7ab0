import itertools

import numpy as np
import pytest
import torch

from eqgan.groups import P4, P4M, PLANE_GROUPS
from eqgan.metrics import memorisation, nearest_distances

Z2 = PLANE_GROUPS["z2"]


def images(count, seed, channels=1, side=5):
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def slow_distance(image, training):
    """By hand: all quarter turns and mirrors of the image, all training images."""
    turned = [np.rot90(image, k, (1, 2)) for k in range(4)]
    orbit = turned + [t[:, :, ::-1] for t in turned]
    return min(np.sqrt(np.mean((a - b) ** 2)) for a, b in itertools.product(orbit, training))


def test_distances_are_those_of_brute_force():
    some, training = images(6, 0, channels=2).double(), images(11, 1, channels=2).double()
    slow = [slow_distance(image, training.numpy()) for image in some.numpy()]
    torch.testing.assert_close(nearest_distances(some, training).numpy(), np.array(slow), rtol=1e-12, atol=0)


def test_more_images_than_one_block():
    some, training = images(1100, 0), images(7, 1)
    apart = torch.cat([nearest_distances(part, training) for part in some.split(100)])
    torch.testing.assert_close(nearest_distances(some, training), apart)


@pytest.mark.parametrize("group", [Z2, P4, P4M], ids=str)
def test_copies_count_as_copies_only_under_a_group_that_holds_the_move(group):
    training = images(20, 0)
    mirrored = training.flip(3)
    distances = nearest_distances(mirrored, training, group)
    assert (distances == 0).all() if group is P4M else (distances > 0.1).all()


def test_copies_and_fresh_images_are_told_apart():
    law = torch.Generator().manual_seed(0)
    draw = lambda n: torch.rand(n, 1, 3, 3, generator=law) * 2 - 1  # noqa: E731
    training, fresh, others = draw(300), draw(2000), draw(2000)
    as_fresh = memorisation(others, training, fresh)
    assert 0 < as_fresh.share < 0.03
    assert as_fresh.ratio == pytest.approx(1, abs=0.05)
    half = memorisation(torch.cat([training.rot90(3, (2, 3)), draw(300)]), training, fresh)
    assert half.share == pytest.approx(0.5, abs=0.02)
    assert half.as_dict()["group"] == "p4m"
    copies = memorisation(training + 1e-4, training, fresh)
    assert copies.share == 1
    assert copies.ratio < 1e-2


@pytest.mark.parametrize("shape", [(0, 1, 5, 5), (3, 2, 5, 5), (3, 1, 4, 4)])
def test_sets_that_do_not_belong_together(shape):
    with pytest.raises(ValueError, match="two sets of images of one shape"):
        nearest_distances(torch.zeros(shape), images(4, 0))
