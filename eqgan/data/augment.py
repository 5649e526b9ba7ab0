"""Random changes of a batch of images, on its own device: rotations, affine maps, flips, shifts, group
elements.

Every image of a batch is changed by its own draw. Draws come from torch's global generator of the batch's
device, whose state a checkpoint holds, so that a resumed run goes on with the draws of the uninterrupted one.
What comes in from outside an image is black, -1 in images in [-1, 1].
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from eqgan.groups import PlaneGroup, scalar
from eqgan.nn import act_each

Interpolation = Literal["nearest", "bilinear", "bicubic"]

BLACK = -1.0
"""The value of black in images in [-1, 1]."""


class Augmentation(ABC):
    """A random change of each image of a batch; what an image shows stays the same."""

    @abstractmethod
    def __call__(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the changed images.

        Args:
            x: images in [-1, 1], black being -1; unchanged.
        """


class RandomRotation(Augmentation):
    """Rotate each image about its centre by an angle from U[-degrees, degrees].

    Args:
        degrees: the largest angle, above 0 and up to 180: all angles.
        interpolation: between the pixels.

    Raises:
        ValueError: an argument out of range.

    >>> RandomRotation(15.0)(torch.zeros(8, 1, 28, 28)).shape
    torch.Size([8, 1, 28, 28])
    """

    def __init__(self, degrees: float = 180.0, interpolation: Interpolation = "bilinear") -> None:
        if not 0 < degrees <= 180:
            raise ValueError(f"expected degrees above 0 and up to 180, got {degrees}. 180 means all angles.")
        self.degrees = degrees
        self.interpolation = _known(interpolation)

    def __call__(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        angles = (2 * torch.rand(len(x), device=x.device, dtype=x.dtype) - 1) * self.degrees
        return rotate(x, angles, self.interpolation)


class RandomAffine(Augmentation):
    """Turn, zoom, stretch and move each image a little, in one step: the image is interpolated once.

    No direction is preferred: the stretch, which keeps areas, is along a uniformly drawn direction and the
    shift is uniform in a disc, so that the law of the changed images is invariant where that of the images
    is.

    Args:
        degrees: the angle is from U[-degrees, degrees]; from 0 to 180: all angles.
        zoom: the largest magnification, at least 1; its logarithm is uniform from -log(zoom) to log(zoom).
        stretch: the largest ratio of a length along the direction to what it was, at least 1 (across it
            lengths are divided by as much); its logarithm is uniform from 0.
        shift: radius of the disc, in pixels.
        interpolation: between the pixels.

    Raises:
        ValueError: an argument out of range, or all of them leaving images as they are.

    >>> RandomAffine()(torch.zeros(8, 1, 28, 28)).shape
    torch.Size([8, 1, 28, 28])
    """

    def __init__(
        self,
        degrees: float = 180.0,
        zoom: float = 1.1,
        stretch: float = 1.1,
        shift: float = 1.0,
        interpolation: Interpolation = "bilinear",
    ) -> None:
        if not (0 <= degrees <= 180 and 1 <= zoom < math.inf and 1 <= stretch < math.inf and shift >= 0):
            raise ValueError(
                "expected degrees from 0 to 180, zoom and stretch of at least 1 and a shift of at least 0, "
                f"got {degrees}, {zoom}, {stretch} and {shift}. 180, 1.1, 1.1 and 1 change small images a "
                "little."
            )
        if degrees == shift == 0 and zoom == stretch == 1:
            raise ValueError("expected some change, got degrees 0, zoom 1, stretch 1 and shift 0.")
        self.degrees, self.zoom, self.stretch, self.shift = degrees, zoom, stretch, shift
        self.interpolation = _known(interpolation)

    def __call__(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        turn, size, ratio, along, radius, bearing = torch.rand(6, len(x), device=x.device, dtype=x.dtype)
        turned = _turns((2 * turn - 1) * math.radians(self.degrees))
        axes = _turns(along * math.pi)
        ratio = torch.exp(ratio * math.log(self.stretch))
        stretched = axes @ torch.diag_embed(torch.stack([1 / ratio, ratio], 1)) @ axes.mT
        smaller = torch.exp((2 * size - 1) * math.log(self.zoom))
        distance = self.shift * radius.sqrt()
        moves = distance[:, None] * _turns(2 * math.pi * bearing)[:, :, 0]
        return warp(x, smaller[:, None, None] * stretched @ turned, self.interpolation, moves)


class RandomFlip(Augmentation):
    """Mirror each image, left to right, with some probability.

    Args:
        probability: of a flip, in [0, 1].

    Raises:
        ValueError: a probability out of range.
    """

    def __init__(self, probability: float = 0.5) -> None:
        if not 0 <= probability <= 1:
            raise ValueError(f"expected a probability in [0, 1], got {probability}. 0.5 flips half of them.")
        self.probability = probability

    def __call__(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        flipped = torch.rand(len(x), 1, 1, 1, device=x.device) < self.probability
        return torch.where(flipped, x.flip(3), x)


class RandomShift(Augmentation):
    """Move each image by whole pixels, from -pixels to pixels in each direction.

    The same as a random crop from the image with `pixels` black ones around it.

    Args:
        pixels: the largest shift, at least 1.

    Raises:
        ValueError: no shift at all.
    """

    def __init__(self, pixels: int = 4) -> None:
        if pixels < 1:
            raise ValueError(f"expected a shift of at least 1 pixel, got {pixels}. Leave the shift out.")
        self.pixels = pixels

    def __call__(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        down, right = torch.randint(-self.pixels, self.pixels + 1, (2, len(x)), device=x.device)
        return shift(x, down, right)


class GroupAugmentation(Augmentation):
    """Move each image by a uniformly drawn element of the point group of a plane group, exactly.

    Quarter turns and mirrors only move pixels about, so that nothing is interpolated.

    Args:
        group: of the square lattice, such as `P4M`.

    Raises:
        ValueError: a group of the hexagonal lattice; images that are not square, under a group with quarter
            turns.
    """

    def __init__(self, group: PlaneGroup) -> None:
        if group.lattice != "square":
            raise ValueError(
                f"expected a group of the square lattice, got {group}: pixels do not fit onto themselves "
                "under turns of 60 degrees. Use RandomRotation."
            )
        self.group = group

    def __call__(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        elements = torch.randint(self.group.order, (len(x),), device=x.device)
        return self.move(x, elements)

    def move(
        self, x: Float[Tensor, "batch channels height width"], elements: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return image i moved by the group element of number elements[i], as `eqgan.nn.act` moves it."""
        return act_each(elements, x, scalar(self.group, x.shape[1]))


class Compose(Augmentation):
    """One augmentation after the other.

    Args:
        augmentations: in the order in which they are applied; with none, images stay as they are.
    """

    def __init__(self, augmentations: Sequence[Augmentation]) -> None:
        self.augmentations = tuple(augmentations)

    def __call__(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        for augmentation in self.augmentations:
            x = augmentation(x)
        return x


def rotate(
    x: Float[Tensor, "batch channels height width"],
    degrees: Float[Tensor, " batch"],
    interpolation: Interpolation = "bilinear",
) -> Float[Tensor, "batch channels height width"]:
    """Rotate each image about its centre by its own angle, counter-clockwise as displayed.

    With y pointing down, the result at (x, y) is the image at (x cos a - y sin a, x sin a + y cos a); black
    outside. Multiples of 90 degrees turn square images as `torch.rot90`, up to round-off.

    Args:
        x: images, black being -1.
        degrees: one angle per image.
        interpolation: between the pixels.

    Raises:
        ValueError: an unknown interpolation.

    >>> image = torch.tensor([[[[-1.0, 1.0], [-1.0, -1.0]]]])
    >>> rotate(image, torch.tensor([90.0])).round().tolist()
    [[[[1.0, -1.0], [-1.0, -1.0]]]]
    """
    return warp(x, _turns(torch.deg2rad(degrees.to(x.dtype))), interpolation)


def _turns(radians: Tensor) -> Tensor:
    """The matrices ((cos, -sin), (sin, cos)) of angles (batch,)."""
    cos, sin = radians.cos(), radians.sin()
    return torch.stack([cos, -sin, sin, cos], 1).unflatten(1, (2, 2))


def warp(
    x: Float[Tensor, "batch channels height width"],
    matrices: Float[Tensor, "batch 2 2"],
    interpolation: Interpolation = "bilinear",
    moves: Float[Tensor, "batch 2"] | None = None,
) -> Float[Tensor, "batch channels height width"]:
    """Look each image up at the places that its own map makes of the pixels' places; black outside.

    Args:
        x: images, black being -1.
        matrices: of places (x, y) from the centre, in pixels, y down.
        interpolation: between the pixels.
        moves: (x, y) added to the places, in pixels; None: the centre stays.

    Raises:
        ValueError: an unknown interpolation.
    """
    half = x.new_tensor([x.shape[3] / 2, x.shape[2] / 2])  # the unit of affine_grid
    moves = x.new_zeros(len(x), 2) if moves is None else moves
    maps = torch.cat([matrices * (half / half[:, None]), (moves / half)[:, :, None]], 2).to(x.dtype)
    grid = F.affine_grid(maps, list(x.shape), align_corners=False)
    light = x - BLACK  # grid_sample fills with 0
    return F.grid_sample(light, grid, mode=_known(interpolation), align_corners=False) + BLACK


def shift(
    x: Float[Tensor, "batch channels height width"],
    down: Int64[Tensor, " batch"],
    right: Int64[Tensor, " batch"],
) -> Float[Tensor, "batch channels height width"]:
    """Move each image down and to the right by its own whole numbers of pixels; black comes in."""
    rows, row_inside = _sources(x.shape[2], down)
    columns, column_inside = _sources(x.shape[3], right)
    moved = x.gather(2, rows[:, None, :, None].expand_as(x)).gather(3, columns[:, None, None, :].expand_as(x))
    inside = row_inside[:, None, :, None] & column_inside[:, None, None, :]
    return torch.where(inside, moved, BLACK)


def _sources(size: int, shifts: Tensor) -> tuple[Tensor, Tensor]:
    """Return where each pixel of a shifted line comes from, and whether that is inside the image."""
    position = torch.arange(size, device=shifts.device) - shifts[:, None]
    return position.clamp(0, size - 1), (position >= 0) & (position < size)


def _known(interpolation: str) -> Interpolation:
    known: tuple[Interpolation, ...] = ("nearest", "bilinear", "bicubic")
    for name in known:
        if name == interpolation:
            return name
    raise ValueError(f"unknown interpolation {interpolation!r}, expected one of: {', '.join(known)}.")
