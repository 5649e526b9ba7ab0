from math import prod

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from eqgan.data.loader import to_unit
from eqgan.data.preprocess import ContrastNormalization, Preprocessing, ZCAWhitening
from eqgan.groups import P2MM, P4, P4M, P6, SQUARE_PLANE_GROUPS, scalar
from eqgan.nn import act

SHAPE = (3, 6, 6)


def _images(count: int = 300, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    """Smooth images with a gradient: their statistics know up from down."""
    stream = np.random.RandomState(0)
    noise = stream.normal(size=(count, *shape)).cumsum(2).cumsum(3)
    noise += 3 * np.arange(shape[1])[:, None]
    noise = (noise - noise.min()) / np.ptp(noise) if count else noise
    return torch.from_numpy((noise * 255).astype(np.uint8))


def _normalised(images: Tensor) -> np.ndarray:
    rows = images.numpy().reshape(len(images), -1) / 127.5 - 1
    rows = rows - rows.mean(1, keepdims=True)
    return rows / np.maximum(rows.std(1, keepdims=True), 1 / 127.5)


def test_contrast() -> None:
    x = to_unit(_images(20)).double()
    x[0] = 0.5  # flat
    x[1] = torch.randn(SHAPE) * 1e-4  # nearly flat
    y = ContrastNormalization(SHAPE)(x)
    assert torch.allclose(y[2:].mean((1, 2, 3)), torch.zeros(18, dtype=y.dtype), atol=1e-10)
    assert torch.allclose(y[2:].var((1, 2, 3), correction=0), torch.ones(18, dtype=y.dtype), atol=1e-10)
    assert not y[0].any()
    assert 0 < y[1].abs().max() < 0.1


def test_whitening_agrees_with_the_singular_value_decomposition() -> None:
    images, eps = _images(), 0.05
    rows = _normalised(images)
    mean = rows.mean(0)
    _, singular, axes = np.linalg.svd(rows - mean, full_matrices=True)
    variances = singular**2 / len(rows)
    whitening = axes.T @ np.diag((variances + eps) ** -0.5) @ axes
    zca = ZCAWhitening(SHAPE, eps).double().fit(images)
    assert np.allclose(zca.mean, mean, atol=1e-10)
    assert np.allclose(zca.whitening, whitening, atol=1e-10)
    expected = ((rows - mean) @ whitening).reshape(-1, *SHAPE)
    assert np.allclose(zca(to_unit(images).double()), expected, atol=1e-5)  # bytes become floats in single


def test_whitened_images_are_white() -> None:
    images = _images(2000)
    y = ZCAWhitening(SHAPE, 1e-6)
    white = y.double().fit(images)(to_unit(images).double()).flatten(1)
    covariance = white.T @ white / len(white)
    variances = torch.linalg.eigvalsh(covariance)
    one = torch.ones(len(variances) - 1, dtype=torch.float64)
    assert torch.allclose(variances[1:], one, atol=0.02)  # all but the mean of the image, which is gone
    assert variances[0] < 1e-6


@pytest.mark.parametrize("group", SQUARE_PLANE_GROUPS.values(), ids=str)
def test_whitening_commutes_with_its_group(group) -> None:
    images = _images()
    zca = ZCAWhitening(SHAPE, group=group).double().fit(images)
    x = to_unit(images[:5]).double()
    for g in range(group.order):
        moved = act(g, x, scalar(group, 3))
        assert torch.allclose(zca(moved), act(g, zca(x), scalar(group, 3)), atol=1e-10)


def test_whitening_without_the_group_does_not_commute() -> None:
    images = _images()
    zca = ZCAWhitening(SHAPE).double().fit(images)
    x = to_unit(images[:5]).double()
    assert not torch.allclose(zca(x.rot90(1, (2, 3))), zca(x).rot90(1, (2, 3)), atol=1e-3)


def test_the_group_average_is_that_of_the_moved_images() -> None:
    images = _images()
    moved = torch.cat([act(g, images, scalar(P4M, 3)) for g in range(8)])
    averaged = ZCAWhitening(SHAPE, group=P4M).double().fit(images)
    explicit = ZCAWhitening(SHAPE).double().fit(moved)
    assert torch.allclose(averaged.whitening, explicit.whitening, atol=1e-10)
    assert torch.allclose(averaged.mean, explicit.mean, atol=1e-10)


def test_blocks_are_as_good_as_all_images_at_once() -> None:
    images = _images()
    whole, parts = ZCAWhitening(SHAPE).fit(images), ZCAWhitening(SHAPE).fit(iter(images.split(70)))
    torch.testing.assert_close(parts.whitening, whole.whitening, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="got none"):
        ZCAWhitening(SHAPE).fit(iter([]))


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    images = _images()
    whole = ZCAWhitening(SHAPE).double().fit(images)
    monkeypatch.setattr("eqgan.data.preprocess._CHUNK", 7)
    assert torch.allclose(ZCAWhitening(SHAPE).double().fit(images).whitening, whole.whitening, atol=1e-12)


def test_a_checkpoint_holds_what_was_fitted() -> None:
    images = _images()
    network = nn.Sequential(ZCAWhitening(SHAPE).fit(images), nn.Flatten(), nn.Linear(prod(SHAPE), 2))
    again = nn.Sequential(ZCAWhitening(SHAPE), nn.Flatten(), nn.Linear(prod(SHAPE), 2))
    with pytest.raises(RuntimeError, match="expected a fitted whitening"):
        again(to_unit(images))
    again.load_state_dict(network.state_dict())
    assert torch.equal(again(to_unit(images)), network(to_unit(images)))
    assert ContrastNormalization(SHAPE).state_dict() == {}


def test_fitting_twice_gives_the_same_bits() -> None:
    images = _images()
    first, second = (ZCAWhitening(SHAPE, group=P4).fit(images) for _ in range(2))
    assert torch.equal(first.whitening, second.whitening)
    assert torch.equal(first.mean, second.mean)


@pytest.mark.parametrize("make", [ContrastNormalization, ZCAWhitening])
def test_interface(make: type[Preprocessing]) -> None:
    module = make(SHAPE)
    assert isinstance(module, Preprocessing)
    assert module.fit(_images()) is module
    assert module(to_unit(_images(4))).shape == (4, *SHAPE)
    assert not list(module.parameters())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ContrastNormalization(SHAPE, 0.0), "expected eps above 0, got 0.0"),
        (lambda: ZCAWhitening(SHAPE, -1.0), "got -1.0 and 108"),
        (lambda: ZCAWhitening((3, 64, 64)), "at most 8,192 values .* got 0.1 and 12,288"),
        (lambda: ZCAWhitening(SHAPE, group=P6), "a group of the square lattice.*got p6"),
        (
            lambda: ZCAWhitening((1, 4, 6), group=P4),
            r"square images under quarter turns, got p4 and \(1, 4, 6\)",
        ),
        (lambda: ZCAWhitening(SHAPE).fit(_images(0)), r"images of shape \(3, 6, 6\) to fit to, got none"),
        (lambda: ZCAWhitening(SHAPE).fit(_images(5, (1, 6, 6))), r"got \(5, 1, 6, 6\)"),
    ],
)
def test_arguments_out_of_range(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_mirrors_keep_wide_images() -> None:
    images = _images(50, (1, 4, 6))
    zca = ZCAWhitening((1, 4, 6), group=P2MM).double().fit(images)
    x = to_unit(images).double()
    assert torch.allclose(zca(x.flip(3)), zca(x).flip(3), atol=1e-10)
