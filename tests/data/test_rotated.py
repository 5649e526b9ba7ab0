"""Test sets whose images are turned, each by an angle of its own."""

from pathlib import Path

import numpy as np
import pytest
import torch

from eqgan.data import rotated as module
from eqgan.data.imageset import ImageSet
from eqgan.data.rotated import SEED, rotated
from eqgan.data.rotation import rotate_uint8


def _mapped(folder: Path) -> bool:
    return f"{folder}/" in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("count", [1, 4, 5])
def test_blocks_are_turned_as_the_whole_is(
    count: int, large: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "_BLOCK", 2)
    monkeypatch.setenv("EQGAN_CACHE", str(tmp_path / "cache"))
    if large:
        monkeypatch.setattr(module, "_IN_MEMORY", 0)
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
    if large:  # on the disk for as long as it is used, under no name
        assert _mapped(tmp_path / "cache")
        assert not list((tmp_path / "cache").iterdir())
        del turned
    assert not _mapped(tmp_path / "cache")


def test_a_full_disk_is_told_before_anything_is_turned(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_IN_MEMORY", 0)
    monkeypatch.setattr(module.os, "posix_fallocate", full)
    monkeypatch.setenv("EQGAN_CACHE", str(tmp_path))
    images = ImageSet.of("noise", torch.zeros(2, 1, 9, 9, dtype=torch.uint8))
    with pytest.raises(OSError, match=r"room for 0.0 GB .* No space left.*EQGAN_CACHE.*rotated false"):
        rotated(images)
    assert not list(tmp_path.iterdir())
