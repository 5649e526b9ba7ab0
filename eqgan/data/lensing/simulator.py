"""From a scene to images: rays are shot from every pixel back to the source."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from eqgan.data.lensing.light import blur, observe
from eqgan.data.lensing.priors import Scene, Task, draw

SIDE = 65
"""Pixels a side: odd, and so are 33, 17, 9, 5 and 3, which keeps stride 2 exact for kernels of 3 pixels."""

PIXEL = 0.08
"""Arcseconds."""

RAYS = 2
"""Rays a side of a pixel."""

BLOCK = 256
"""Lenses that share a stream of random numbers: lens i depends on (seed, i) and nothing else."""

_SOFT, _WHITE = 0.01, 0.5  # of the grey scale: linear below the first, white at the second
_CHUNK = 4  # lenses at a time: their rays fit into the processor's cache


def simulate(
    task: Task, count: int, seed: int, start: int = 0
) -> Iterator[tuple[UInt8[Tensor, "block 1 side side"], Int64[Tensor, " block"]]]:
    """Yield images and labels of lenses number `start` to `start + count - 1`, block by block.

    The class of lens i is i modulo the number of classes. The same numbers come out in whatever pieces they
    are asked for.

    Args:
        task: what to simulate.
        count: number of lenses.
        seed: of all of them, 0 to 2^32 - 1.
        start: number of the first.
    """
    stop = start + count
    for block in range(start // BLOCK, -(-stop // BLOCK)):
        rows = torch.arange(max(start - block * BLOCK, 0), min(stop - block * BLOCK, BLOCK))
        yield _part(task, seed, block, rows)


def _part(task: Task, seed: int, block: int, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Draw a whole block of lenses and return some of them."""
    stream = np.random.RandomState([seed, block])
    labels = (np.arange(BLOCK) + block * BLOCK) % len(task.classes)
    scene = take(draw(task, labels, stream), rows)
    noise = torch.from_numpy(stream.standard_normal((BLOCK, SIDE, SIDE)))[rows]
    chunks = torch.arange(len(rows)).split(_CHUNK)
    light = torch.cat([render(take(scene, chunk)) for chunk in chunks])
    seen = observe(light, noise, scene.background, scene.gain) * disc(SIDE)
    return grey(seen)[:, None], scene.labels


def take(scene: Scene, rows: Tensor) -> Scene:
    """Return some of the lenses of a scene."""

    def pick(value: object) -> object:
        if isinstance(value, Tensor):
            return value[rows]
        if isinstance(value, tuple):
            return tuple(pick(part) for part in value)
        return type(value)(**{key: pick(part) for key, part in vars(value).items()})

    return Scene(**{key: pick(part) for key, part in vars(scene).items()})


def render(
    scene: Scene, side: int = SIDE, pixel: float = PIXEL, rays: int = RAYS
) -> Float64[Tensor, "batch side side"]:
    """Return light per pixel, after the point spread function and before noise.

    Each pixel is the mean over rays x rays rays. A ray at theta shows the lensing galaxy at theta, and the
    source at theta minus the sum of the deflections.
    """
    x, y = sky(side, pixel, rays)
    dx, dy = torch.zeros_like(x), torch.zeros_like(y)
    for mass in scene.masses:
        ax, ay = mass.deflection(x, y)
        dx, dy = dx + ax, dy + ay
    brightness = scene.lens.brightness(x, y) + scene.source.brightness(x - dx, y - dy)
    light = brightness.view(-1, side, rays, side, rays).mean((2, 4)) * pixel**2
    return blur(light, scene.psf / pixel)


def sky(side: int, pixel: float, rays: int) -> tuple[Float64[Tensor, "1 n"], Float64[Tensor, "1 n"]]:
    """Return where the rays of an image are, row by row from the top: x to the right, y up, centre at 0."""
    line = (torch.arange(side * rays, dtype=torch.float64) - (side * rays - 1) / 2) * pixel / rays
    y, x = torch.meshgrid(line.flip(0), line, indexing="ij")
    return x.reshape(1, -1), y.reshape(1, -1)


def disc(side: int) -> Float64[Tensor, "side side"]:
    """Return 1 in the largest disc, 0 outside: a field of view that looks the same after any rotation."""
    x, y = sky(side, 1.0, 1)
    return (x**2 + y**2 <= (side / 2) ** 2).double().view(side, side)


def grey(light: Float64[Tensor, "batch side side"]) -> UInt8[Tensor, "batch side side"]:
    """Return bytes: black without light, the inverse hyperbolic sine of it up to white, rounded half up.

    One scale for all images, so that no image is scaled by its brightest pixel. Negative noise is cut off.
    """
    value = (light / _SOFT).asinh() / np.arcsinh(_WHITE / _SOFT)
    return (value.clamp(0, 1) * 255 + 0.5).floor().to(torch.uint8)
