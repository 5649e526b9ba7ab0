"""Convolutions beside a resampling by two, done at once: a stride of two, and fewer multiplications."""

from abc import ABC, abstractmethod
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from eqgan.groups import FieldType
from eqgan.nn.conv import GroupConv2d
from eqgan.nn.fourier import FourierPath
from eqgan.nn.geometry import output_size


def spread(windows: Tensor) -> Tensor:
    """Each cell on itself and its next, in rows and columns: (..., size, size) to (..., size + 1, size + 1).

    A window and the mean over two neighbours, y[P] = sum_i w[i] (x[2 P + i] + x[2 P + 1 + i]) / 2, are the
    window v[k] = (w[k] + w[k - 1]) / 2 with stride 2. A window on a doubled map is the transpose of one: in
    y[p] = sum_i w[i] x[(p + i) // 2], x[X] goes to p = 2 X - i and 2 X + 1 - i: the window turned half round.

    >>> import torch
    >>> spread(torch.tensor([[1, 2], [3, 4]]))
    tensor([[ 1,  3,  2],
            [ 4, 10,  6],
            [ 3,  7,  4]])
    """
    rows = F.pad(windows, (0, 0, 0, 1)) + F.pad(windows, (0, 0, 1, 0))
    return F.pad(rows, (0, 1)) + F.pad(rows, (1, 0))


class PlainUpsampleConv2d(nn.Conv2d):
    """``nn.Conv2d`` with an odd window on maps doubled by nearest neighbours: (..., n, n) to (..., 2 n, 2 n).

    A 3x3 window after doubling is a transposed convolution of 4x4 with stride 2 before it: four
    multiplications a site instead of nine, and the doubled map is never made.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, bias: bool = True) -> None:
        if kernel_size % 2 == 0:
            raise ValueError(f"expected an odd window, got one of {kernel_size}")
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        size = self.kernel_size[0]
        window = spread(self.weight.transpose(0, 1).flip(2, 3))
        return F.conv_transpose2d(input, window, self.bias, 2, size // 2)


class _ResampledConv2d(GroupConv2d, ABC):
    """A convolution that keeps the size, beside a resampling by two."""

    def __init__(self, in_type: FieldType, out_type: FieldType, kernel_size: int, **options: Any) -> None:
        super().__init__(in_type, out_type, kernel_size, padding="same", **options)

    @abstractmethod
    def _both(self, windows: Tensor) -> Tensor:
        """From (..., size, size) to the windows that do both, (..., size + 1, size + 1)."""

    def _normalised_bank(self) -> Tensor:
        return self._both(super()._normalised_bank())

    def _filter_of_path(self) -> Tensor:
        windows = self.normalised_weight().unflatten(2, (-1, self.kernel_size, self.kernel_size))
        return self._both(windows).flatten(2)


class UpsampleConv2d(_ResampledConv2d):
    """Nearest x2, then a group convolution with an odd window that keeps the size, at once.

    What ``Upsample2d(in_type)`` and ``GroupConv2d(in_type, out_type, kernel_size, padding="same")`` compute
    with the same parameters, up to rounding. The doubled map is never made: a window of ``kernel_size`` on it
    is one of ``kernel_size + 1`` before it, transposed, with stride 2.

    Args:
        in_type, out_type: field types of one plane group.
        kernel_size: odd.
        options: ``bias``, ``spectral`` and ``gain`` as of ``GroupConv2d``; ``input_size`` is the side of the
            doubled map.

    Shape:
        (batch, in_type.channels, height, width) to (batch, out_type.channels, 2 height, 2 width).
    """

    def output_size(self, size: int) -> int:
        """Side of the output for maps of this side."""
        return 2 * size

    def _both(self, windows: Tensor) -> Tensor:
        return spread(windows.flip(-2, -1))

    def _make_path(self) -> FourierPath | None:
        window = self.kernel_size + 1, 2, self.padding
        return FourierPath.of(self.in_type, self.out_type, *window, transposed=True)

    def _dense(self, x: Tensor, bank: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv_transpose2d(x, bank.transpose(0, 1), bias, 2, self.padding)


class ConvAvgPool2d(_ResampledConv2d):
    """A group convolution with an odd window that keeps the size, then the mean over 2x2 sites, at once.

    What ``GroupConv2d(in_type, out_type, kernel_size, padding="same")`` and ``AvgPool2d(out_type, 2)``
    compute with the same parameters, up to rounding: a window of ``kernel_size + 1`` with stride 2.

    Args:
        in_type, out_type: field types of one plane group.
        kernel_size: odd.
        options: ``bias``, ``spectral``, ``gain`` and ``input_size`` as of ``GroupConv2d``.

    Shape:
        (batch, in_type.channels, height, width) to (batch, out_type.channels, height / 2, width / 2).

    Raises:
        ValueError: at the first pass, for an odd side, unless the group is trivial.
    """

    def output_size(self, size: int) -> int:
        """Side of the output for maps of this side; ValueError for an odd one."""
        group, window = self.in_type.group, self.kernel_size + 1
        return output_size(size, window, 2, self.padding, group, type(self).__name__)

    def _both(self, windows: Tensor) -> Tensor:
        return spread(windows) / 4

    def _make_path(self) -> FourierPath | None:
        return FourierPath.of(self.in_type, self.out_type, self.kernel_size + 1, 2, self.padding)

    @property
    def _may_refuse(self) -> bool:
        return True

    def _dense(self, x: Tensor, bank: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, bank, bias, 2, self.padding)
