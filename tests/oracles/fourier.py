"""The fast group convolution, slowly: co-rotated patches and a Fourier transform over the group, in float64.

Follows docs/fast_group_convolution.md line by line; only the transform itself comes from the package.
"""

from itertools import product

import numpy as np

from eqgan.groups import PointGroup, window_action
from eqgan.groups.fourier import group_fourier


def co_rotated_patches(group: PointGroup, x: np.ndarray, size: int, padding: int) -> np.ndarray:
    """patch[z, t](p) = x[t](p + t z), (batch, fields, cells, order, height', width')."""
    padded = np.pad(x, [(0, 0)] * 3 + [(padding, padding)] * 2)
    height, width = padded.shape[-2] - size + 1, padded.shape[-1] - size + 1
    moved = window_action(group, size)
    patches = np.empty((*x.shape[:2], size * size, group.order, height, width))
    for cell, t in product(range(size * size), range(group.order)):
        row, column = divmod(int(moved[t, cell]), size)
        patches[:, :, cell, t] = padded[:, :, t, row : row + height, column : column + width]
    return patches


def fourier_convolution(
    group: PointGroup, x: np.ndarray, w: np.ndarray, size: int, padding: int
) -> np.ndarray:
    """Group convolution, regular to regular; x (batch, in, order, h, w), w (out, in, order, cells)."""
    transform = group_fourier(group)
    moved = window_action(group, size)
    co_rotated = np.stack([w[:, :, u, moved[u]] for u in range(group.order)], axis=2)  # w'_z[u] = w[u](u z)
    features = np.einsum("ft,bictyx->bicfyx", transform.analysis, co_rotated_patches(group, x, size, padding))
    blocks = np.einsum("eu,oiuc->oice", transform.filter_matrix, co_rotated)
    parts, first, entry = [], 0, 0
    for irrep in transform.irreps:
        d, length = irrep.dim, irrep.copies * irrep.dim
        part = features[:, :, :, first : first + length]
        part = part.reshape(*part.shape[:3], irrep.copies, d, *part.shape[-2:])
        block = blocks[..., entry : entry + d * d].reshape(*blocks.shape[:3], d, d)
        out = np.einsum("bicmlyx,oiclj->bomjyx", part, block)
        parts.append(out.reshape(*out.shape[:2], length, *out.shape[-2:]))
        first, entry = first + length, entry + d * d
    return np.einsum("ft,bofyx->botyx", transform.analysis, np.concatenate(parts, axis=2))
