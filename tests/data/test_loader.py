import pytest
import torch

from eqgan.data.loader import TensorLoader

IMAGES = torch.arange(20, dtype=torch.uint8).reshape(20, 1, 1, 1)


def _seen(loader: TensorLoader) -> list[int]:
    """Return the images of an epoch by their one pixel, in order."""
    return [round((pixel + 1) * 127.5) for image, _ in loader for pixel in image.flatten().tolist()]


def test_values_and_types() -> None:
    images = torch.tensor([0, 51, 204, 255], dtype=torch.uint8).reshape(4, 1, 1, 1)
    ((image, label),) = TensorLoader(images, torch.arange(4), 4, shuffle=False)
    assert image.dtype == torch.float32
    assert label.dtype == torch.int64
    assert image.flatten().tolist() == pytest.approx([-1.0, -0.6, 0.6, 1.0])
    assert image.flatten()[[0, 3]].tolist() == [-1.0, 1.0]
    assert label.tolist() == [0, 1, 2, 3]


def test_labels_stay_with_their_images_and_zeros_stand_for_none() -> None:
    for image, label in TensorLoader(IMAGES, torch.arange(20), 4):
        assert ((image.flatten() + 1) * 127.5).round().long().tolist() == label.tolist()
    assert all(not label.any() for _, label in TensorLoader(IMAGES, None, 4))


def test_an_epoch_is_every_image_once_in_an_order_of_its_own() -> None:
    loader = TensorLoader(IMAGES, None, 5)
    orders = []
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        orders.append(_seen(loader))
        assert _seen(loader) == orders[-1]
        assert sorted(orders[-1]) == list(range(20))
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_order_depends_on_seed_and_epoch_alone() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = TensorLoader(IMAGES, None, 5, seed=3)
    first.set_epoch(7)
    expected = _seen(first)
    assert torch.equal(torch.get_rng_state(), state)  # no global randomness used up
    torch.manual_seed(2)
    again = TensorLoader(IMAGES, None, 5, seed=3)
    assert _seen(again) != expected
    again.set_epoch(7)
    assert _seen(again) == expected
    assert _seen(TensorLoader(IMAGES, None, 5, seed=4)) != _seen(TensorLoader(IMAGES, None, 5, seed=3))


@pytest.mark.parametrize(("drop_last", "batches", "images"), [(True, 2, 16), (False, 3, 20)])
def test_last_batch(drop_last: bool, batches: int, images: int) -> None:
    loader = TensorLoader(IMAGES, None, 8, drop_last=drop_last)
    assert len(loader) == len(list(loader)) == batches
    assert len(_seen(loader)) == images


def test_as_they_come() -> None:
    assert _seen(TensorLoader(IMAGES, None, 5, shuffle=False)) == list(range(20))


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("drop_last", [True, False])
def test_ranks_share_an_epoch_equally(world_size: int, drop_last: bool) -> None:
    ranks = [
        TensorLoader(IMAGES, None, 3, drop_last=drop_last, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    shares = [_seen(loader) for loader in ranks]
    assert len({len(share) for share in shares}) == 1
    assert len({len(loader) for loader in ranks}) == 1
    together = [pixel for share in shares for pixel in share]
    if drop_last:
        assert len(set(together)) == len(together)
    else:
        assert set(together) == set(range(20))


def test_more_than_there_is() -> None:
    with pytest.raises(
        ValueError, match=r"at least one batch of 21 .*got 20 images. Use --batch-size 20 or less"
    ):
        TensorLoader(IMAGES, None, 21)
    with pytest.raises(ValueError, match=r"batch of 11 images for each of 2 .*Use --batch-size 10 or less"):
        TensorLoader(IMAGES, None, 11, world_size=2)
    assert len(TensorLoader(IMAGES, None, 21, drop_last=False)) == 1


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"batch_size": 2, "seed": -1}, {"batch_size": 2, "rank": 1}]
)
def test_arguments_out_of_range(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected batch_size >= 1"):
        TensorLoader(IMAGES, None, **wrong)


@pytest.mark.parametrize("drop_last", [True, False])
def test_an_epoch_of_several_passes_is_several_epochs(drop_last: bool) -> None:
    once = TensorLoader(IMAGES, None, 4, drop_last=drop_last)
    thrice = TensorLoader(IMAGES, None, 4, drop_last=drop_last, passes=3)
    thrice.set_epoch(1)
    orders = []
    for epoch in (3, 4, 5):
        once.set_epoch(epoch)
        orders.append(once.order())
    assert torch.equal(thrice.order(), torch.cat(orders))
    assert len(list(thrice)) == len(thrice) == 3 * len(IMAGES) // 4


def test_no_pass_is_refused() -> None:
    with pytest.raises(ValueError, match="passes >= 1"):
        TensorLoader(IMAGES, None, 4, passes=0)
