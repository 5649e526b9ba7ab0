"""Group convolution in fewer multiplications than its dense equal (docs/fast_group_convolution.md)."""

from eqgan.nn.fourier import operator  # noqa: F401  # registers the operators
from eqgan.nn.fourier.path import FourierPath, convolution_paths

__all__ = ["FourierPath", "convolution_paths"]
