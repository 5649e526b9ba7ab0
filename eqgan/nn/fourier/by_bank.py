"""``eqgan::group_conv2d`` by its filter bank and torch's convolution: for every device and dtype."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from eqgan.groups import PointGroup, intertwiner_index
from eqgan.groups.representation import Representation, regular, trivial
from eqgan.nn.fourier.native import bias_gradient, lifts
from eqgan.nn.fourier.window import Window, output_shape, require_bias, require_gradient


@cache
def _bank_index(fiber: Representation, size: int) -> Tensor:
    group = fiber.group
    table, _ = intertwiner_index(regular(group), fiber, size)
    return torch.tensor(table, device="cpu")  # (order out, fiber in, cells)


def _index(weight: Tensor, group: PointGroup, size: int, stabiliser: Sequence[int]) -> Tensor:
    fiber = Representation(group, tuple(stabiliser)) if stabiliser else regular(group)
    return _bank_index(trivial(group) if lifts(weight, size) else fiber, size).to(weight.device)


def filter_bank(weight: Tensor, group: PointGroup, size: int, stabiliser: Sequence[int] = ()) -> Tensor:
    """Of the operator's weight, (out * order, in * fiber, size, size): what a dense convolution takes."""
    index = _index(weight, group, size, stabiliser)
    bank = weight[:, :, index].transpose(1, 2)  # (out, order, in, fiber, cells)
    return bank.reshape(len(weight) * group.order, -1, size, size)


def _dense(window: Window) -> tuple[Any, ...]:
    """What torch.convolution is told after the bias."""
    return [window.stride] * 2, [window.padding] * 2, [1, 1], window.transposed, [0, 0], 1


def _bank_and_maps(x: Tensor, weight: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """The bank as ``_dense`` takes it, and maps that are not cut."""
    bank = filter_bank(weight, window.group, window.size, window.stabiliser).to(x.dtype)
    maps = F.pixel_shuffle(x, window.stride) if window.cut else x
    return bank.transpose(0, 1) if window.transposed else bank, maps


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, *how: Any) -> Tensor:
    """The numbers of a ``Window`` follow the bias."""
    window = Window(*how)
    output_shape(x, weight, window)
    require_bias(bias, len(weight))
    wide = None if bias is None else bias.repeat_interleave(window.group.order).to(x.dtype)
    bank, maps = _bank_and_maps(x, weight, window)
    return torch.convolution(maps, bank, wide, *_dense(window)).contiguous()


def backward(
    out_gradient: Tensor, x: Tensor, weight: Tensor, *how_and_need: Any
) -> tuple[Tensor, Tensor, Tensor]:
    window, (need_x, need_weight, need_bias) = Window(*how_and_need[:-3]), how_and_need[-3:]
    group, size = window.group, window.size
    require_gradient(out_gradient, output_shape(x, weight, window))
    bank, maps = _bank_and_maps(x, weight, window)
    gradients = torch.ops.aten.convolution_backward(
        out_gradient, maps, bank, None, *_dense(window), [need_x, need_weight, False]
    )
    x_gradient, w_gradient = x.new_empty(0), weight.new_empty(0)
    if need_x:
        x_gradient = F.pixel_unshuffle(gradients[0], window.stride) if window.cut else gradients[0]
        x_gradient = x_gradient.reshape(x.shape).contiguous()  # of no images nothing is cut
    if need_weight:
        fields_out, fields_in = weight.shape[:2]
        index = _index(weight, group, size, window.stabiliser)
        shape = (fields_out, group.order, fields_in, *index.shape[1:])
        of_bank = gradients[1].transpose(0, 1) if window.transposed else gradients[1]
        entries = of_bank.to(weight.dtype).reshape(shape).transpose(1, 2).flatten(2)
        w_gradient = torch.zeros_like(weight, memory_format=torch.contiguous_format)
        w_gradient.index_add_(2, index.flatten(), entries)
    of_bias = bias_gradient(out_gradient, weight) if need_bias else weight.new_empty(0)
    return x_gradient, w_gradient, of_bias
