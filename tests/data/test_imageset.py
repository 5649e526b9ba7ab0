import numpy as np
import pytest
import torch
from PIL import Image

from eqgan.data.imageset import ImageSet, Source, label_indices


def _set(count: int = 4, channels: int = 1, height: int = 6, width: int = 6) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, channels, height, width), generator=generator, dtype=torch.uint8)
    angles = torch.arange(count, dtype=torch.float64)
    return ImageSet.of("some", images, torch.arange(count), angles, tuple("abcd"[:count]))


def test_hash_sees_images_labels_and_shape() -> None:
    one = _set()
    assert one.sha256 == _set().sha256
    brighter = one.images.clone()
    brighter[0, 0, 0, 0] ^= 1
    others = [
        ImageSet.of("some", brighter, one.labels),
        ImageSet.of("some", one.images, one.labels.flip(0)),
        ImageSet.of("some", one.images, None),
        ImageSet.of("some", one.images.reshape(4, 1, 4, 9), one.labels),
    ]
    assert len({one.sha256, *(other.sha256 for other in others)}) == 5


def test_hash_is_of_the_values_whatever_the_memory_layout() -> None:
    one = _set(channels=3)
    strided = one.images.to(memory_format=torch.channels_last)
    assert ImageSet.of("some", strided, one.labels).sha256 == one.sha256


def test_subset_keeps_what_belongs_together() -> None:
    part = _set().subset(torch.tensor([3, 1]))
    assert torch.equal(part.images, _set().images[[3, 1]])
    assert part.labels.tolist() == part.angles.tolist() == [3, 1]


@pytest.mark.parametrize("size", [3, 6, 11])
@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_is_that_of_pillow(size: int, channels: int) -> None:
    one = _set(channels=channels)
    resized = one.resized(size)
    pixels = one.images[2].permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels if channels == 3 else pixels[..., 0])
    expected = np.asarray(image.resize((size, size), Image.Resampling.LANCZOS)).reshape(size, size, channels)
    assert np.array_equal(resized.images[2].permute(1, 2, 0), expected)
    assert (resized is one) == (size == 6)
    assert torch.equal(resized.labels, one.labels)


def test_missing_split_names_those_that_exist() -> None:
    source = Source.of("some", {"train": _set(), "extra": _set()})
    assert source.splits == ("train", "extra")
    with pytest.raises(ValueError, match="some has no test split, expected one of: train, extra"):
        source.split("test")


def test_square_or_a_size() -> None:
    source = Source.of("some", {"train": _set(height=6, width=8)})
    with pytest.raises(ValueError, match=r"got 8 x 6 pixels .width x height.*--size N"):
        source.split("train")
    assert Source.of("some", source.sets, 5).split("train").images.shape == (4, 1, 5, 5)


def test_classes_are_numbered_over_all_splits() -> None:
    indices, names = label_indices(
        {"train": np.array(["b", "a"]), "test": np.array(["longer", "b"]), "extra": None}
    )
    assert names == ("a", "b", "longer")
    assert {split: None if i is None else i.tolist() for split, i in indices.items()} == {
        "train": [1, 0],
        "test": [2, 1],
        "extra": None,
    }
