"""Test sets whose images are turned, each by an angle of its own."""

import numpy as np
import pytest
import torch

from eqgan.data import rotated as module
from eqgan.data.imageset import ImageSet
from eqgan.data.rotated import SEED, rotated
from eqgan.data.rotation import rotate_uint8


@pytest.mark.parametrize("count", [1, 4, 5])
def test_blocks_are_turned_as_the_whole_is(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 2)
    pixels = torch.randint(0, 256, (count, 3, 9, 9), generator=torch.Generator().manual_seed(0)).to(
        torch.uint8
    )
    images = ImageSet.of("noise", pixels, torch.arange(count) % 2, class_names=("a", "b"))
    turned = rotated(images)
    angles = np.random.RandomState(SEED).uniform(0.0, 360.0, count)
    for channel in range(3):
        expected = rotate_uint8(pixels[:, channel].numpy(), angles)
        assert np.array_equal(turned.images[:, channel], expected)
    assert (turned.name, turned.class_names) == ("noise-rotated", ("a", "b"))
    assert torch.equal(turned.labels, images.labels)
    assert np.array_equal(turned.angles, angles)
