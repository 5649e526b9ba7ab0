"""Fréchet distances another way: by a general matrix square root, and in closed form where there is one."""

import numpy as np
from scipy import linalg

Array = np.ndarray


def by_matrix_root(mean_a: Array, cov_a: Array, mean_b: Array, cov_b: Array) -> float:
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^1/2), with scipy's Schur method on the product."""
    root = linalg.sqrtm(cov_a @ cov_b)
    return float(((mean_a - mean_b) ** 2).sum() + np.trace(cov_a + cov_b - 2 * np.real(root)))


def of_samples(a: Array, b: Array) -> float:
    """The same, of samples in rows, with NumPy's covariance."""
    return by_matrix_root(a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False))


def in_common_eigenbasis(mean_a: Array, values_a: Array, mean_b: Array, values_b: Array) -> float:
    """|m_a - m_b|^2 + sum_i (sqrt(a_i) - sqrt(b_i))^2, for covariances with the same eigenvectors."""
    return float(((mean_a - mean_b) ** 2).sum() + ((np.sqrt(values_a) - np.sqrt(values_b)) ** 2).sum())


def without_cross_term(mean_a: Array, cov_a: Array, mean_b: Array, cov_b: Array) -> float:
    """A wrong distance, that of independent coordinates: to see that a comparison can fail."""
    return in_common_eigenbasis(mean_a, np.diag(cov_a), mean_b, np.diag(cov_b))
