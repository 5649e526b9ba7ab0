"""Rotation with a Lanczos window, pixel by pixel and tap by tap, from its formula."""

import math

import numpy as np


def lanczos(distance: float, taps: int) -> float:
    if distance == 0:
        return 1.0
    if abs(distance) >= taps:
        return 0.0
    x = math.pi * distance
    return taps * math.sin(x) * math.sin(x / taps) / x**2


def rotated(image: np.ndarray, degrees: float, taps: int) -> tuple[np.ndarray, np.ndarray]:
    """One image (height, width) turned counter-clockwise, and where all its weights lie inside."""
    height, width = image.shape
    angle = math.radians(degrees)
    out, mask = np.zeros_like(image), np.zeros(image.shape, dtype=bool)
    for row in range(height):
        for column in range(width):
            x, y = column - (width - 1) / 2, (height - 1) / 2 - row
            # the place that the rotation brings here
            u = math.cos(angle) * x + math.sin(angle) * y + (width - 1) / 2
            v = (height - 1) / 2 - (-math.sin(angle) * x + math.cos(angle) * y)
            weights = {
                (i, j): lanczos(v - i, taps) * lanczos(u - j, taps)
                for i in range(math.floor(v) - taps, math.floor(v) + taps + 2)
                for j in range(math.floor(u) - taps, math.floor(u) + taps + 2)
            }
            total = sum(weights.values())
            inside = {p: w for p, w in weights.items() if 0 <= p[0] < height and 0 <= p[1] < width}
            out[row, column] = sum(w * image[p] for p, w in inside.items()) / total
            lost = sum(abs(w) for p, w in weights.items() if p not in inside) / abs(total)
            mask[row, column] = lost <= 1e-6
    return out, mask
