"""Rotation from its definition: one pixel at a time, in floating point."""

import math

import numpy as np


def rotate_slowly(image: np.ndarray, degrees: float) -> np.ndarray:
    """Rotate one grey image counter-clockwise as displayed, bilinear, black outside; unrounded floats.

    The pixel of the result at (x, y), y up and the origin at the centre, shows what the image has at the
    point that a rotation by `degrees` carries to (x, y).
    """
    size = len(image)
    centre = (size - 1) / 2
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    result = np.zeros((size, size))
    for row in range(size):
        for column in range(size):
            x, y = column - centre, centre - row
            result[row, column] = _bilinear(
                image, centre - (-sine * x + cosine * y), centre + (cosine * x + sine * y)
            )
    return result


def _bilinear(image: np.ndarray, row: float, column: float) -> float:
    """Return the sum of all pixels, each weighted with a tent of width 2 about its position."""
    total = 0.0
    for i in range(math.floor(row), math.floor(row) + 2):
        for j in range(math.floor(column), math.floor(column) + 2):
            if 0 <= i < len(image) and 0 <= j < len(image):
                total += (1 - abs(row - i)) * (1 - abs(column - j)) * float(image[i, j])
    return total
