"""Rotation of images by any angle with a windowed sinc, and which pixels it can answer for."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def rotate_images(
    images: Float[Tensor, "batch channels height width"], degrees: float, taps: int = 3
) -> tuple[Float[Tensor, "batch channels height width"], Bool[Tensor, "height width"]]:
    """Images turned counter-clockwise about their centre, 0 outside, and the mask of pixels to trust.

    Lanczos-windowed sinc of ``2 taps`` pixels a side, whose weights sum to one. A quarter turn permutes the
    pixels, exactly. A pixel is masked out where a part of its window (more than 1e-6 of the weights) lies
    outside the image: there, the value is made up.

    Args:
        images: floating.
        degrees: any angle.
        taps: pixels of the window on either side.

    Returns:
        The images, and the mask, True for pixels to trust.

    Example:
        >>> x = torch.rand(1, 1, 5, 5)
        >>> turned, mask = rotate_images(x, 90.0)
        >>> bool((turned == torch.rot90(x, 1, (2, 3))).all()), bool(mask.all())
        (True, True)
        >>> int(rotate_images(torch.rand(1, 1, 9, 9), 45.0, taps=1)[1].sum())
        57
    """
    height, width = images.shape[-2:]
    rows, columns = _sources(height, width, degrees)
    flat = images.flatten(2)
    turned = torch.zeros_like(flat)
    lost = torch.zeros(height * width, dtype=torch.float64)
    row_parts, column_parts = _window(rows, taps), _window(columns, taps)
    for row, row_weight in row_parts:
        for column, column_weight in column_parts:
            weight = row_weight * column_weight
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            lost += weight.abs() * ~inside
            index = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).to(images.device)
            turned += flat[..., index] * (weight * inside).to(images)
    return turned.view_as(images), (lost <= 1e-6).view(height, width)


def _sources(height: int, width: int, degrees: float) -> tuple[Tensor, Tensor]:
    """Row and column, as real numbers, from which each pixel of a turned image comes."""
    radians = math.radians(degrees)
    cosine, sine = math.cos(radians), math.sin(radians)
    y = (height - 1) / 2 - torch.arange(height, dtype=torch.float64)[:, None]  # upwards
    x = torch.arange(width, dtype=torch.float64)[None] - (width - 1) / 2
    rows = (height - 1) / 2 - (cosine * y - sine * x)
    columns = (width - 1) / 2 + (cosine * x + sine * y)
    return rows.flatten(), columns.flatten()


def _window(places: Tensor, taps: int) -> list[tuple[Tensor, Tensor]]:
    """The whole numbers around each place, with their weights."""
    nearest = places.round()
    places = torch.where((places - nearest).abs() < 1e-9, nearest, places)
    first = places.floor().long()
    numbers = [first + k for k in range(1 - taps, taps + 1)]
    distances = [places - number for number in numbers]
    weights = [torch.sinc(d) * torch.sinc(d / taps) * (d.abs() < taps) for d in distances]
    weights = [torch.where(d == 0, 1.0, w * (first != places)) for d, w in zip(distances, weights)]
    total = torch.stack(weights).sum(0)
    return [(number, weight / total) for number, weight in zip(numbers, weights)]


def smooth_images(
    count: int, shape: tuple[int, int, int], generator: torch.Generator, blur: float = 1.5
) -> Float[Tensor, "count channels height width"]:
    """Random float64 images in [-1, 1] that survive a rotation: smooth, and 0 outside a disc.

    Args:
        count: how many.
        shape: (channels, height, width).
        generator: draws them.
        blur: standard deviation in pixels of the Gaussian that noise is filtered with.
    """
    channels, height, width = shape
    noise = torch.randn(count, channels, height, width, generator=generator, dtype=torch.float64)
    frequencies = torch.fft.fftfreq(height)[:, None] ** 2 + torch.fft.fftfreq(width)[None] ** 2
    gain = torch.exp(-2 * (math.pi * blur) ** 2 * frequencies.double())
    images = torch.fft.ifft2(torch.fft.fft2(noise) * gain).real * disc(height, width)
    return images / images.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12)


def disc(height: int, width: int, margin: float = 3.0) -> Float[Tensor, "height width"]:
    """1 inside the largest disc, falling smoothly to 0 a margin away from the edge of the image."""
    y = torch.arange(height, dtype=torch.float64)[:, None] - (height - 1) / 2
    x = torch.arange(width, dtype=torch.float64)[None] - (width - 1) / 2
    radius = max(min(height, width) / 2 - margin, min(height, width) / 4)
    fall = ((radius - (x**2 + y**2).sqrt()) / (radius / 2)).clamp(0, 1)
    return (1 - torch.cos(math.pi * fall)) / 2
