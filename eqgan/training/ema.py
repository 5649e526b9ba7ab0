"""The averaged generator that every sample and every metric uses."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def ema_generator(generator: nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average of weights and batch statistics, a copy that is never trained.

    The decay warms up as min(decay, (1 + n) / (10 + n)) so that the first samples are not those of the random
    start.

    Raises:
        ValueError: for a decay outside [0, 1).
    """
    if not 0 <= decay < 1:
        raise ValueError(f"expected an EMA decay in [0, 1), got {decay}")
    average = AveragedModel(generator, multi_avg_fn=_warmed_up(decay), use_buffers=True)
    return average.eval().requires_grad_(False)


def _warmed_up(decay: float) -> Callable[[list[Tensor], list[Tensor], Tensor | int], None]:
    @torch.no_grad()
    def update(averages: list[Tensor], currents: list[Tensor], seen: Tensor | int) -> None:
        n = float(seen)
        weight = 1 - min(decay, (1 + n) / (10 + n))
        for average, current in zip(averages, currents):
            if average.is_floating_point():
                average.lerp_(current, weight)
            else:
                average.copy_(current)

    return update
