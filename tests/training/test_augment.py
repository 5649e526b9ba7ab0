"""Augmentations of the game: by definition, differentiable, drawn from the global stream, and adaptive."""

import itertools

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform

from eqgan.data.augment import Augmentation, GroupAugmentation, RandomRotation
from eqgan.groups import P4, P4M, plane_group
from eqgan.networks import ConvDiscriminator
from eqgan.training.augment import (
    AdaptiveAugmentation,
    DiffAugment,
    RandomColour,
    RandomCutout,
    RandomScale,
    RandomTranslation,
    cut_out,
    recolour,
    zoom,
)

EVERY = {
    "colour": RandomColour(),
    "cutout": RandomCutout(),
    "translation": RandomTranslation(0.25),
    "scale": RandomScale(),
    "diff": DiffAugment(),
    "rotation": RandomRotation(),
    "group": GroupAugmentation(P4M),
}


def adaptive(probability, **options):
    module = AdaptiveAugmentation(**options)
    module.probability.fill_(probability)
    return module


def pictures(count=6, channels=3, side=8, seed=0):
    draws = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(count, channels, side, side, generator=draws, dtype=torch.float64) - 1


# --- each from its definition ----------------------------------------------------------------------------


def test_colours_from_their_definition():
    x = pictures(2)
    b, s, c = torch.tensor([[0.3, -0.2], [1.5, 0.1], [0.5, 1.25]], dtype=torch.float64)
    found = recolour(x, b, s, c)
    for i, image in enumerate(x.numpy()):
        image = image + b[i].item()
        for row, column in itertools.product(range(8), range(8)):
            grey = image[:, row, column].mean()
            image[:, row, column] = grey + s[i].item() * (image[:, row, column] - grey)
        image = image.mean() + c[i].item() * (image - image.mean())
        np.testing.assert_allclose(found[i].numpy(), image, atol=1e-12)


def test_saturation_leaves_grey_images_alone():
    x, one = pictures(2, channels=1), torch.ones(2, dtype=torch.float64)
    torch.testing.assert_close(recolour(x, 0 * one, 0 * one, one), x)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (3, 5), (1, 2)])
def test_cut_outs_from_their_definition(height, width):
    x = pictures(4)
    rows, columns = torch.tensor([0, 4, 8, 2]), torch.tensor([3, 8, 0, 5])
    found = cut_out(x, rows, columns, height, width)
    for i, image in enumerate(x):
        for row, column in itertools.product(range(8), range(8)):
            top, left = int(rows[i]) - height // 2, int(columns[i]) - width // 2
            hole = top <= row < top + height and left <= column < left + width
            expected = torch.full((3,), -1.0, dtype=torch.float64) if hole else image[:, row, column]
            assert torch.equal(found[i, :, row, column], expected)


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.0, 1.7])
def test_zoom_against_scipy(factor):
    """Positions inside the outermost pixel centres; at the border the two fill in differently."""
    x = pictures(2, channels=1, side=9)
    found = zoom(x, torch.full((2,), factor, dtype=torch.float64))
    centre = 4.0
    for image, other in zip(x[:, 0].numpy(), found[:, 0].numpy()):
        expected = affine_transform(
            image, np.eye(2) / factor, offset=centre - centre / factor, order=1, cval=-1, mode="constant"
        )
        reach = np.abs((np.arange(9) - centre) / factor) <= centre
        np.testing.assert_allclose(other[np.ix_(reach, reach)], expected[np.ix_(reach, reach)], atol=1e-12)


def test_translation_reaches_a_share_of_the_sides_and_fills_with_black():
    x = torch.ones(2000, 1, 16, 16)
    torch.manual_seed(0)
    moved = RandomTranslation()(x)
    black = (moved[:, 0] == -1).sum((1, 2))
    assert black.max() == 16 * 16 - 14 * 14
    assert set(moved.unique().tolist()) == {-1.0, 1.0}
    corners = torch.stack([moved[:, 0, 0, 0], moved[:, 0, -1, -1]])
    assert ((corners == -1).double().mean(1) - (1 - (3 / 5) ** 2)).abs().max() < 0.05


def test_draws_of_colour_have_the_ranges_of_the_paper():
    torch.manual_seed(0)
    grey = torch.zeros(4000, 1, 1, 1)
    brightness = RandomColour()(grey).flatten()
    assert (brightness.sort().values - torch.linspace(-0.5, 0.5, 4000)).abs().max() < 0.03
    edge = torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2).expand(4000, -1, -1, -1)
    spread = RandomColour()(edge).diff(dim=3).flatten() / 2  # contrast alone
    assert (spread.sort().values - torch.linspace(0.5, 1.5, 4000)).abs().max() < 0.03
    coloured = torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(4000, -1, -1, -1)
    both = RandomColour()(coloured)
    assert ((both[:, 2] - both[:, 0]) / 2).min() >= 0
    assert ((both[:, 2] - both[:, 0]) / 2).max() > 2


# --- what holds for all ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_gradients_reach_the_generator(name):
    augmentation, x = EVERY[name], pictures(2, side=6).requires_grad_()

    def changed(x):
        torch.manual_seed(5)
        return augmentation(x)

    assert torch.autograd.gradcheck(changed, (x,), fast_mode=True, atol=1e-6)
    before = x.detach().clone()
    changed(x).sum().backward()
    assert x.grad.any()
    assert torch.equal(x.detach(), before), "the images themselves are left alone"


@pytest.mark.parametrize("name", [*EVERY, "ada"])
def test_draws_are_the_global_streams_and_one_an_image(name):
    augmentation = adaptive(0.7) if name == "ada" else EVERY[name]
    x = pictures(1).expand(12, -1, -1, -1)
    torch.manual_seed(1)
    first = augmentation(x)
    torch.manual_seed(1)
    assert torch.equal(augmentation(x), first)
    assert not torch.equal(augmentation(x), first)
    assert len({tuple(image.flatten().tolist()) for image in first}) > 3
    assert first.shape == x.shape
    assert first.dtype == x.dtype


def test_an_invariant_discriminator_cannot_see_the_control_of_its_group():
    """So group augmentation of reals and fakes is a control for z2: to p4 it is nothing at all."""
    torch.manual_seed(0)
    x = pictures(16, channels=1)
    p4 = ConvDiscriminator((1, 8, 8), P4, width=4).double().eval()
    z2 = ConvDiscriminator((1, 8, 8), plane_group("z2"), width=4).double().eval()
    turn = GroupAugmentation(P4)
    torch.testing.assert_close(p4(turn(x)), p4(x), rtol=1e-10, atol=1e-12)
    assert not torch.allclose(z2(turn(x)), z2(x), rtol=1e-3)


def test_diffaugment_is_its_parts_in_order():
    x = pictures()
    torch.manual_seed(2)
    expected = RandomCutout()(RandomTranslation()(RandomColour()(x)))
    torch.manual_seed(2)
    assert torch.equal(DiffAugment()(x), expected)
    assert [type(p) for p in DiffAugment(cutout=False).augmentations] == [RandomColour, RandomTranslation]
    with pytest.raises(ValueError, match="at least one of colour, translation, cutout"):
        DiffAugment(False, False, False)


# --- the adaptive one ------------------------------------------------------------------------------------


class Mark(Augmentation):
    """Adds one: shows which images were changed."""

    def __call__(self, x):
        return x + 1


def test_each_change_is_made_with_the_probability():
    torch.manual_seed(0)
    module = adaptive(0.3, pipeline=[Mark(), Mark()])
    counts = module(torch.zeros(20_000, 1, 1, 1)).flatten().long().bincount(minlength=3) / 20_000
    assert (counts - torch.tensor([0.49, 0.42, 0.09])).abs().max() < 0.015
    x = pictures()
    assert torch.equal(adaptive(0.0)(x), x)
    assert torch.equal(adaptive(1.0, pipeline=[Mark()])(x), x + 1)


def by_hand(batches, target, interval, images):
    """The probability after each batch of scores, in plain Python."""
    probability, signs, course = 0.0, [], []
    for number, scores in enumerate(batches, 1):
        signs += [(s > 0) - (s < 0) for s in scores]
        if number % interval == 0:
            mean = sum(signs) / len(signs)
            step = ((mean > target) - (mean < target)) * len(signs) / images
            probability, signs = min(1.0, max(0.0, probability + step)), []
        course.append(probability)
    return course


def test_the_probability_follows_the_signs():
    torch.manual_seed(0)
    levels = [2.0] * 12 + [-1.0] * 8 + [3.0] * 60
    batches = [torch.randn(7) + level for level in levels]
    module = AdaptiveAugmentation(target=0.6, interval=4, images=200)
    course = []
    for scores in batches:
        module.observe(scores)
        course.append(module.probability.item())
    expected = by_hand([b.tolist() for b in batches], 0.6, 4, 200)
    assert course == pytest.approx(expected, abs=1e-6)
    assert max(course) == 1
    assert course[11] > course[19] >= 0


def test_scores_without_a_zero_are_measured_from_a_level():
    module, other = AdaptiveAugmentation(images=100), AdaptiveAugmentation(images=100)
    for _ in range(4):
        scores = torch.randn(8)
        module.observe(scores + 50, level=torch.tensor(49.0))
        other.observe(scores + 1)
    assert module.probability == other.probability


def test_its_state_is_a_checkpoints():
    module = AdaptiveAugmentation(images=100)
    for _ in range(6):
        module.observe(torch.ones(5))
    assert module.probability > 0
    other = AdaptiveAugmentation(images=100)
    other.load_state_dict(module.state_dict())
    for one in (module, other):
        one.observe(torch.ones(5)), one.observe(torch.ones(5))
    assert {k: v.item() for k, v in module.state_dict().items()} == {
        k: v.item() for k, v in other.state_dict().items()
    }


def test_the_default_pipeline_keeps_images_in_their_range_of_colours():
    x = pictures(32)
    torch.manual_seed(0)
    changed = adaptive(0.5)(x)
    assert changed.isfinite().all()
    assert not torch.equal(changed, x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomColour(0.0), r"strength in \(0, 1\], got 0"),
        (lambda: RandomCutout(1.0), r"share of the sides in \(0, 1\), got 1"),
        (lambda: RandomTranslation(0.0), r"share of the sides in \(0, 1\), got 0"),
        (lambda: RandomScale(0.0), "deviation above 0, got 0"),
        (lambda: AdaptiveAugmentation(target=1.0), r"target in \(-1, 1\).*target=1"),
        (lambda: AdaptiveAugmentation(interval=0), "interval=0"),
        (lambda: AdaptiveAugmentation(images=0), "images=0"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
