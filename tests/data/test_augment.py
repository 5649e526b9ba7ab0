import numpy as np
import pytest
import torch
from torch import Tensor

from eqgan.data.augment import (
    Augmentation,
    Compose,
    GroupAugmentation,
    RandomAffine,
    RandomFlip,
    RandomRotation,
    RandomShift,
    rotate,
    shift,
)
from eqgan.groups import P4, P4M, P6, PLANE_GROUPS, SQUARE_PLANE_GROUPS, Z2, scalar
from eqgan.nn import act
from tests.oracles.rotation import rotate_slowly

EVERY = [
    RandomRotation(),
    RandomRotation(30.0, "nearest"),
    RandomAffine(),
    RandomFlip(),
    RandomShift(2),
    GroupAugmentation(P4M),
    Compose([RandomFlip(), RandomShift(1)]),
]


def _images(side: int = 7, dtype: torch.dtype = torch.float64, batch: int = 6) -> Tensor:
    return torch.rand(batch, 3, side, side, dtype=dtype, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("side", [6, 7])
@pytest.mark.parametrize("quarters", range(-2, 3))
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_quarter_turns_are_exact(side: int, quarters: int, interpolation: str) -> None:
    x = _images(side)
    turned = rotate(x, torch.full((len(x),), 90.0 * quarters, dtype=x.dtype), interpolation)
    assert torch.allclose(turned, x.rot90(quarters, (2, 3)), rtol=0, atol=1e-10)
    if quarters % 4 == 1:
        assert not torch.allclose(turned, x.rot90(-1, (2, 3)), atol=0.1)


def test_rotation_agrees_with_its_definition_image_by_image() -> None:
    x = _images(8)
    degrees = torch.linspace(-170, 180, len(x), dtype=x.dtype)
    rotated = rotate(x, degrees)
    for image, degree, got in zip(x, degrees.tolist(), rotated):
        for channel, got_channel in zip(image.numpy(), got.numpy()):
            expected = rotate_slowly(channel + 1, degree) - 1  # the oracle's black is 0
            assert np.abs(got_channel - expected).max() < 1e-10
    assert rotate(x, degrees).amin() >= -1


def test_wide_images_keep_their_proportions() -> None:
    """A square inside a wide image rotates as it does inside a square one."""
    square = torch.full((1, 1, 9, 9), -1.0, dtype=torch.float64)
    square[..., 3:6, 3:6] = torch.rand(3, 3, dtype=torch.float64)
    wide = torch.nn.functional.pad(square, (4, 4), value=-1.0)
    degrees = torch.tensor([33.0], dtype=torch.float64)
    assert torch.allclose(rotate(wide, degrees)[..., 4:-4], rotate(square, degrees), atol=1e-10)


def test_angles_cover_the_range_one_for_each_image() -> None:
    torch.manual_seed(0)
    x = torch.full((400, 1, 41, 41), -1.0)
    x[:, :, 20, 38] = 1.0  # a dot at angle 0
    dots = RandomRotation(60.0)(x).flatten(1).argmax(1)
    angles = torch.rad2deg(torch.atan2(20.0 - dots // 41, dots % 41 - 20.0))
    assert angles.abs().max() < 62
    assert angles.max() > 55
    assert angles.min() < -55
    assert abs(angles.mean()) < 6


def _frames(augmentation: RandomAffine, count: int = 4000) -> Tensor:
    """The affine map of each draw, (count, 2, 3) in pixels, by least squares from images of coordinates."""
    side = 21
    line = torch.linspace(-1, 1, side, dtype=torch.float64) * (side // 2)
    down, right = torch.meshgrid(line, line, indexing="ij")
    coordinates = torch.stack([right, down])
    inside = (coordinates**2).sum(0) < 4**2  # far from the black that comes in
    images = coordinates[None].expand(count, -1, -1, -1)
    looked_up = (augmentation(images / 100) * 100)[:, :, inside]
    known = torch.cat([coordinates[:, inside], torch.ones(1, int(inside.sum()), dtype=torch.float64)])
    maps = torch.linalg.lstsq(known.T.expand(count, -1, -1), looked_up.mT).solution.mT
    assert torch.allclose(maps @ known, looked_up, atol=1e-8)  # affine, exactly
    return maps


def test_affine_maps_stay_within_what_was_asked_and_fill_it() -> None:
    torch.manual_seed(0)
    maps = _frames(RandomAffine(180.0, zoom=1.2, stretch=1.3, shift=2.0))
    values = torch.linalg.svdvals(maps[:, :, :2])
    assert torch.allclose(torch.linalg.det(maps[:, :, :2]), values.prod(1))  # no mirrors
    sizes, ratios = values.prod(1).sqrt(), (values[:, 0] / values[:, 1]).sqrt()
    moves = maps[:, :, 2].norm(dim=1)
    for drawn, low, high in ((sizes, 1 / 1.2, 1.2), (ratios, 1.0, 1.3), (moves, 0.0, 2.0)):
        assert low - 1e-9 < drawn.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < drawn.max() < high + 1e-9


@pytest.mark.parametrize("degrees", [0.0, 25.0, 180.0])
def test_affine_maps_prefer_no_direction(degrees: float) -> None:
    """Seen in a turned frame the maps have the same law: their means there are those in the frame given."""
    torch.manual_seed(1)
    maps = _frames(RandomAffine(degrees, zoom=1.2, stretch=1.5, shift=2.0))
    quarter = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    eighth = torch.linalg.matrix_exp(quarter * torch.pi / 4)
    for turn in (quarter, eighth):
        linear = turn.T @ maps[:, :, :2] @ turn
        moves = maps[:, :, 2] @ turn
        for one, other in ((maps[:, :, :2], linear), (maps[:, :, :2] ** 2, linear**2)):
            assert torch.allclose(one.mean(0), other.mean(0), atol=0.03)
        assert torch.allclose(maps[:, :, 2].mT.cov(), moves.mT.cov(), atol=0.1)


def test_an_affine_map_that_only_turns_is_a_rotation() -> None:
    x = _images(9)
    torch.manual_seed(2)
    turned = RandomAffine(70.0, zoom=1.0, stretch=1.0, shift=0.0)(x)
    torch.manual_seed(2)
    assert torch.allclose(turned, RandomRotation(70.0)(x), atol=1e-10)


def test_group_elements_move_images_exactly() -> None:
    x = _images(5)
    for group in SQUARE_PLANE_GROUPS.values():
        augmentation = GroupAugmentation(group)
        elements = torch.arange(len(x)) % group.order
        for i, moved in enumerate(augmentation.move(x, elements)):
            expected = act(int(elements[i]), x[i : i + 1], scalar(group, 3))
            assert torch.equal(moved[None], expected)


def test_every_group_element_is_drawn_and_nothing_else() -> None:
    torch.manual_seed(0)
    image = _images(5, batch=1)
    orbit = torch.cat([act(g, image, scalar(P4M, 3)) for g in range(8)])
    moved = GroupAugmentation(P4M)(image.expand(400, -1, -1, -1))
    counts = (moved[:, None] == orbit).flatten(2).all(2).sum(0)
    assert counts.sum() == 400
    assert counts.min() > 25
    assert torch.equal(GroupAugmentation(Z2)(image), image)


def test_wide_images_have_no_quarter_turns() -> None:
    wide = torch.rand(3, 1, 4, 6)
    assert GroupAugmentation(PLANE_GROUPS["p2mm"])(wide).shape == wide.shape
    with pytest.raises(ValueError, match="expected square images, got 6 x 4"):
        GroupAugmentation(P4)(wide)


def test_flips() -> None:
    torch.manual_seed(0)
    x = torch.rand(200, 1, 2, 3)
    assert torch.equal(RandomFlip(1.0)(x), x.flip(3))
    assert torch.equal(RandomFlip(0.0)(x), x)
    flipped = (RandomFlip()(x) != x).flatten(1).any(1)
    assert 70 < flipped.sum() < 130


def test_shifts_are_crops_of_the_image_with_a_black_frame() -> None:
    x = _images(6)
    down, right = torch.tensor([0, 1, -2, 3, 0, -3]), torch.tensor([0, 0, 1, -3, 2, 3])
    framed = torch.nn.functional.pad(x, (3, 3, 3, 3), value=-1.0)
    for i, moved in enumerate(shift(x, down, right)):
        top, left = 3 - int(down[i]), 3 - int(right[i])
        assert torch.equal(moved, framed[i, :, top : top + 6, left : left + 6])
    torch.manual_seed(0)
    dot = torch.full((500, 1, 9, 9), -1.0)
    dot[:, :, 4, 4] = 1.0
    positions = RandomShift(2)(dot).flatten(1).argmax(1)
    assert set(positions.tolist()) == {row * 9 + column for row in range(2, 7) for column in range(2, 7)}


@pytest.mark.parametrize("augmentation", EVERY, ids=lambda a: type(a).__name__)
def test_draws_follow_torchs_generator_and_inputs_stay(augmentation: Augmentation) -> None:
    x = _images(8, torch.float32, batch=32)
    kept = x.clone()
    torch.manual_seed(3)
    first = augmentation(x)
    state = torch.get_rng_state()
    second = augmentation(x)
    torch.set_rng_state(state)
    assert torch.equal(augmentation(x), second)
    torch.manual_seed(3)
    assert torch.equal(augmentation(x), first)
    assert not torch.equal(first, second)
    assert torch.equal(x, kept)
    assert (first.dtype, first.shape) == (x.dtype, x.shape)


def test_black_stays_black() -> None:
    for augmentation in EVERY:
        black = torch.full((4, 1, 6, 6), -1.0)
        assert torch.equal(augmentation(black), black)


def test_composition_keeps_the_order() -> None:
    x = _images()
    torch.manual_seed(1)
    together = Compose([RandomShift(2), RandomFlip()])(x)
    torch.manual_seed(1)
    assert torch.equal(RandomFlip()(RandomShift(2)(x)), together)
    assert Compose([])(x) is x


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomRotation(0.0), "expected degrees above 0 and up to 180, got 0"),
        (lambda: RandomRotation(200.0), "got 200"),
        (lambda: RandomAffine(zoom=0.9), "zoom and stretch of at least 1 .* got 180.0, 0.9"),
        (lambda: RandomAffine(0.0, 1.0, 1.0, 0.0), "expected some change"),
        (lambda: RandomFlip(1.5), r"expected a probability in \[0, 1\], got 1.5"),
        (lambda: RandomShift(0), "expected a shift of at least 1 pixel, got 0"),
        (lambda: GroupAugmentation(P6), "expected a group of the square lattice, got p6"),
    ],
)
def test_arguments_out_of_range(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.usefixtures("without_shape_checks")
def test_unknown_interpolation() -> None:
    with pytest.raises(ValueError, match="unknown interpolation 'cubic', expected one of: nearest"):
        RandomRotation(interpolation="cubic")
