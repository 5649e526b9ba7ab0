import hashlib

import numpy as np
import pytest

from eqgan.data.rotation import rotate_uint8
from tests.oracles.rotation import rotate_slowly

ANGLES = np.array([0.0, 13.7, 45.0, 89.9, 123.4, 200.0, 311.1, 359.99])


def _noise(count: int, size: int) -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (count, size, size)).astype(np.uint8)


@pytest.mark.parametrize("size", [1, 2, 7, 12, 28])
def test_agrees_with_the_definition_to_one_grey_level(size: int) -> None:
    images = _noise(len(ANGLES), size)
    fast = rotate_uint8(images, ANGLES).astype(float)
    slow = np.stack([rotate_slowly(image, angle) for image, angle in zip(images, ANGLES)])
    assert np.abs(fast - slow).max() < 1.0
    if size > 2:  # the test would see the other sense of rotation
        assert np.abs(rotate_uint8(images, -ANGLES) - slow).max() > 20


@pytest.mark.parametrize("size", [1, 6, 9, 28])
@pytest.mark.parametrize("quarters", range(-2, 6))
def test_quarter_turns_are_exact(size: int, quarters: int) -> None:
    images = _noise(3, size)
    rotated = rotate_uint8(images, np.full(3, 90.0 * quarters))
    assert np.array_equal(rotated, np.rot90(images, quarters, axes=(1, 2)))


def test_quarter_turns_commute_with_every_angle() -> None:
    """A law that rounding breaks where it is not the same in both directions."""
    images, angles = _noise(8, 28), ANGLES
    once = np.rot90(rotate_uint8(images, angles), axes=(1, 2))
    assert np.abs(once.astype(int) - rotate_uint8(images, angles + 90)).max() <= 1


def test_each_image_has_its_own_angle_across_chunks() -> None:
    images = _noise(600, 5)
    angles = np.random.RandomState(1).uniform(0, 360, 600)
    together = rotate_uint8(images, angles)
    for index in (0, 255, 256, 511, 512, 599):
        alone = rotate_uint8(images[index : index + 1], angles[index : index + 1])[0]
        assert np.array_equal(together[index], alone)


def test_background_is_black() -> None:
    white = np.full((1, 28, 28), 255, np.uint8)
    rotated = rotate_uint8(white, np.array([45.0]))[0]
    assert rotated[0, 0] == rotated[0, -1] == rotated[-1, 0] == rotated[-1, -1] == 0
    assert rotated[14, 14] == 255


def test_bits_are_the_same_everywhere() -> None:
    angles = np.random.RandomState(3).uniform(0, 360, 300)
    rotated = rotate_uint8(_noise(300, 28), angles)
    assert (
        hashlib.sha256(rotated).hexdigest()
        == "d3e444f7c5a957a491b28577523fff35e56a885f2942919f58822e2d992d826c"
    )


def test_last_bits_of_cosine_and_sine_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    angles = np.random.RandomState(3).uniform(0, 360, 300)
    images, cosine = _noise(300, 9), np.cos
    expected = rotate_uint8(images, angles)
    monkeypatch.setattr(np, "cos", lambda x: cosine(x) * (1 + 1e-14))
    assert np.array_equal(rotate_uint8(images, angles), expected)
    monkeypatch.setattr(np, "cos", lambda x: cosine(x) * (1 + 1e-2))
    assert not np.array_equal(rotate_uint8(images, angles), expected)


@pytest.mark.parametrize(
    ("shape", "angles", "message"),
    [((2, 4, 5), 2, "square"), ((2, 4, 4), 3, "N angles"), ((1, 1025, 1025), 1, "1024")],
)
def test_other_shapes_are_refused(shape: tuple[int, ...], angles: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rotate_uint8(np.zeros(shape, np.uint8), np.zeros(angles))
