import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from eqgan.data.lensing import (
    SIE,
    TASKS,
    Filament,
    Mass,
    Scene,
    Sersic,
    Shear,
    TruncatedSphere,
    draw,
    render,
    simulate,
    simulator,
)
from eqgan.data.lensing.simulator import SIDE, disc, grey, sky, take

LENS3 = TASKS["lens3"]


def _scene(count: int = 6, task: str = "lens3", seed: int = 3) -> Scene:
    labels = np.arange(count) % len(TASKS[task].classes)
    return draw(TASKS[task], labels, np.random.RandomState(seed))


def _turned(part: Mass | Sersic) -> Mass | Sersic:
    """Turn a galaxy or a mass by 90 degrees counter-clockwise about the centre of the image."""
    changes = {}
    if hasattr(part, "angle"):
        changes["angle"] = part.angle + math.pi / 2
    if hasattr(part, "x"):
        changes |= {"x": -part.y, "y": part.x}
    return replace(part, **changes)


@pytest.mark.parametrize("task", TASKS)
def test_turning_everything_turns_the_image(task: str) -> None:
    scene = _scene(task=task)
    masses = tuple(_turned(mass) for mass in scene.masses)
    turned = replace(scene, masses=masses, lens=_turned(scene.lens), source=_turned(scene.source))
    image = render(scene, side=21, pixel=0.2)
    assert torch.allclose(render(turned, side=21, pixel=0.2), image.rot90(1, (1, 2)), rtol=1e-10, atol=1e-12)
    assert not torch.allclose(image, image.rot90(1, (1, 2)), rtol=0.1)


def test_forgetting_the_shear_is_noticed() -> None:
    scene = _scene()
    masses = tuple(m if isinstance(m, Shear) else _turned(m) for m in scene.masses)
    turned = replace(scene, masses=masses, lens=_turned(scene.lens), source=_turned(scene.source))
    image = render(scene, side=21, pixel=0.2).rot90(1, (1, 2))
    assert not torch.allclose(render(turned, side=21, pixel=0.2), image, rtol=1e-3)


def test_an_unlensed_scene_is_the_sum_of_its_galaxies() -> None:
    scene = _scene()
    compact = [replace(g, index=torch.ones_like(g.index)) for g in (scene.lens, scene.source)]
    alone = replace(scene, masses=(), lens=compact[0], source=compact[1])
    light = render(alone, side=301, pixel=0.06).sum((1, 2))
    assert torch.allclose(light, scene.lens.flux + scene.source.flux, rtol=5e-3)


def _one(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


def _small_source(offset: float) -> Sersic:
    return Sersic(*(_one(v) for v in (1.0, 0.04, 1.0, 1.0, 0.0, offset, 0.0)))


def test_a_ring_has_the_einstein_radius_and_small_sources_the_known_magnification() -> None:
    """A sphere of radius b magnifies a point at the distance beta < b by 2 b / beta in all."""
    dark = Sersic(*(_one(v) for v in (0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0)))
    sphere = SIE(*(_one(v) for v in (1.0, 1.0, 0.0, 0.0, 0.0)))
    scene = Scene(
        torch.zeros(1).long(), (sphere,), dark, _small_source(0.0), _one(1e-3), _one(0.0), _one(1.0)
    )
    ring = render(scene, side=201, pixel=0.02)
    x, y = sky(201, 0.02, 1)
    mean = ((x**2 + y**2).sqrt().view(201, 201) * ring[0]).sum() / ring.sum()
    assert mean.item() == pytest.approx(1.0, rel=0.01)
    pair = render(replace(scene, source=_small_source(0.5)), side=401, pixel=0.01)
    assert pair.sum().item() == pytest.approx(2 * 1.0 / 0.5, rel=0.01)


def test_rays_converge() -> None:
    scene = _scene(4)
    coarse, fine = (render(scene, side=33, pixel=0.16, rays=rays) for rays in (4, 12))
    assert (coarse - fine).abs().max() < 0.04 * fine.max()  # the cusp of a galaxy is the worst pixel


def test_the_same_lenses_in_whatever_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulator, "BLOCK", 8)
    images, labels = zip(*simulate(LENS3, 20, 5))
    assert [len(part) for part in images] == [8, 8, 4]
    whole, labels = torch.cat(images), torch.cat(labels)
    assert whole.shape == (20, 1, SIDE, SIDE)
    assert labels.tolist() == [i % 3 for i in range(20)]
    pieces = list(simulate(LENS3, 7, 5, start=13))
    assert [len(images) for images, _ in pieces] == [3, 4]
    assert torch.equal(torch.cat([images for images, _ in pieces]), whole[13:])
    assert torch.equal(torch.cat([labels for _, labels in pieces]), labels[13:])


def test_seeds_and_no_global_randomness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulator, "BLOCK", 4)
    torch.manual_seed(1)
    np.random.seed(1)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    (first, _), (again, _), (other, _) = (next(simulate(LENS3, 4, seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulator, "BLOCK", 6)
    (expected, _) = next(simulate(LENS3, 6, 0))
    monkeypatch.setattr(simulator, "_CHUNK", 5)
    assert torch.equal(next(simulate(LENS3, 6, 0))[0], expected)


def test_classes_have_what_they_are_named_after() -> None:
    scene = _scene(60)
    spheres = [m for m in scene.masses if isinstance(m, TruncatedSphere)]
    (vortex,) = [m for m in scene.masses if isinstance(m, Filament)]
    (galaxy,) = [m for m in scene.masses if isinstance(m, SIE)]
    mass = sum(m.radius * m.truncation for m in spheres)
    number = sum((m.radius > 0).int() for m in spheres)
    for label, has_spheres, has_vortex in ((0, False, False), (1, True, False), (2, False, True)):
        of_class = scene.labels == label
        assert ((mass[of_class] > 0) == has_spheres).all()
        assert ((vortex.mass[of_class] > 0) == has_vortex).all()
    shares = (mass + vortex.mass)[scene.labels > 0] / galaxy.radius[scene.labels > 0] ** 2
    assert 0.06 <= shares.min() < shares.max() <= 0.16
    assert 1 <= number[scene.labels == 1].min() < number.max() <= 5
    binary = _scene(60, "lens")
    assert ((binary.masses[0].radius > 0) == (binary.labels == 1)).all()
    assert ((binary.masses[1].strength > 0) == (binary.labels == 1)).all()
    outside = (binary.source.x**2 + binary.source.y**2).sqrt()[binary.labels == 0]
    assert outside.min() > 0.4


def test_labels_do_not_change_the_neighbours() -> None:
    one, other = (draw(LENS3, np.array([a, 1, 2]), np.random.RandomState(0)) for a in (0, 1))
    rows = torch.tensor([1, 2])
    assert torch.equal(
        render(take(one, rows), side=15, pixel=0.3), render(take(other, rows), side=15, pixel=0.3)
    )


def test_grey_values() -> None:
    light = torch.tensor([-1.0, 0.0, 0.5, 9.0], dtype=torch.float64).view(1, 2, 2)
    assert grey(light).flatten().tolist() == [0, 0, 255, 255]
    linear = torch.tensor([2e-4, 4e-4, 8e-4, 12e-4], dtype=torch.float64)
    assert grey(linear.view(1, 2, 2)).flatten().tolist() == [1, 2, 4, 7]


def test_the_field_of_view_is_a_disc() -> None:
    images, _ = next(simulate(TASKS["lens"], 8, 0))
    assert not images[:, 0][:, disc(SIDE) == 0].any()
    assert torch.equal(disc(SIDE), disc(SIDE).rot90())
    assert disc(SIDE)[SIDE // 2].all()


@pytest.mark.parametrize("task", TASKS)
def test_images_are_neither_dark_nor_blown_out(task: str) -> None:
    images, _ = next(simulate(TASKS[task], 32, 0))
    assert (images.flatten(1).amax(1) > 40).all()
    assert (images == 255).float().mean() < 1e-3
