"""Rotation of 8-bit images in integer arithmetic: the same bits on every machine."""

import numpy as np
from jaxtyping import Float, UInt8

LARGEST_SIDE = 1024
_TRIG_BITS = 16  # cosine and sine are multiples of 2^-16
_WEIGHT_BITS = 11  # positions are multiples of 2^-11: two weights and a grey value stay below 2^31
_CHUNK = 256  # images at a time: keeps the intermediate arrays in the processor's cache
_PAD = 2  # black rows around an image: any position outside reads two of them


def rotate_uint8(
    images: UInt8[np.ndarray, "images height width"], angles: Float[np.ndarray, " angles"]
) -> UInt8[np.ndarray, "images height width"]:
    """Rotate each image about its centre by its own angle, counter-clockwise as displayed.

    Pixel (row, column) lies at y = row - (size - 1)/2, x = column - (size - 1)/2, with y pointing down. The
    value of the result at (x, y) is that of the image at (x cos a - y sin a, x sin a + y cos a), interpolated
    bilinearly between the four pixels around; what lies outside the image is 0 (black).

    Everything after cosine and sine is integer arithmetic. These two are computed in float64 and rounded to
    2^-16, positions are rounded (half up) to 2^-11 pixels, grey values half up to integers. A last-bit
    difference between mathematical libraries can only matter where a cosine lies within 1e-11 of a rounding
    boundary. Multiples of 90 degrees are exact: no interpolation happens.

    Args:
        images: square grey images, 0 (black) to 255.
        angles: degrees, one per image.

    Returns:
        The rotated images.

    Raises:
        ValueError: images not square, wider than 1,024 pixels, or not as many as angles.

    >>> rotate_uint8(np.array([[[1, 2], [3, 4]]], np.uint8), np.array([90.0]))[0]
    array([[2, 4],
           [1, 3]], dtype=uint8)
    """
    if images.ndim != 3 or images.shape[1] != images.shape[2] or len(images) != len(angles):
        raise ValueError(
            f"expected square images (N, size, size) and N angles, got {images.shape} and {angles.shape}. "
            "Crop or resize the images first."
        )
    if images.shape[1] > LARGEST_SIDE:
        raise ValueError(
            f"expected at most {LARGEST_SIDE} pixels a side, got {images.shape[1]}. Resize the images."
        )
    cosine, sine = _fixed_point(angles)
    result = np.empty_like(images)
    for start in range(0, len(images), _CHUNK):
        part = slice(start, start + _CHUNK)
        result[part] = _rotate(images[part], cosine[part], sine[part])
    return result


def _fixed_point(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return cosine and sine of angles in degrees as integers, in units of 2^-16."""
    radians = np.deg2rad(np.asarray(angles, np.float64))
    scale = 1 << _TRIG_BITS
    cosine, sine = np.rint(np.cos(radians) * scale), np.rint(np.sin(radians) * scale)
    return cosine.astype(np.int32), sine.astype(np.int32)


def _rotate(images: np.ndarray, cosine: np.ndarray, sine: np.ndarray) -> np.ndarray:
    """Rotate (N, size, size) images by N fixed-point cosines and sines."""
    size = images.shape[1]
    twice = 2 * np.arange(size, dtype=np.int32) - (size - 1)  # twice the coordinate, so that it is an integer
    cos, sin = cosine[:, None, None], sine[:, None, None]
    column, right = _split(twice * cos - twice[:, None] * sin, size)
    row, below = _split(twice * sin + twice[:, None] * cos, size)
    one = 1 << _WEIGHT_BITS
    width = size + 2 * _PAD
    padded = np.pad(images, ((0, 0), (_PAD, _PAD), (_PAD, _PAD))).astype(np.int32).ravel()
    first = np.arange(len(images), dtype=np.int32)[:, None, None] * (width * width)
    corner = first + (row + _PAD) * width + (column + _PAD)
    upper = padded[corner] * (one - right) + padded[corner + 1] * right
    lower = padded[corner + width] * (one - right) + padded[corner + width + 1] * right
    total = upper * (one - below) + lower * below
    half = 1 << (2 * _WEIGHT_BITS - 1)
    return ((total + half) >> (2 * _WEIGHT_BITS)).astype(np.uint8)


def _split(twice: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Split centred fixed-point positions into a pixel, clipped to the padding, and a fraction.

    Args:
        twice: twice the position relative to the centre in units of 2^-16, that is the position in 2^-17.
        size: pixels a side.
    """
    drop = _TRIG_BITS + 1 - _WEIGHT_BITS
    position = (twice + ((size - 1) << _TRIG_BITS) + (1 << (drop - 1))) >> drop
    pixel = np.clip(position >> _WEIGHT_BITS, -_PAD, size)
    return pixel, position & ((1 << _WEIGHT_BITS) - 1)
