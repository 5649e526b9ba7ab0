"""The averaged generator that every sample and every metric uses."""

from itertools import chain

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from eqgan.nn import OperatorNorm, SpectralNorm, iterate_norms

NORMS = (SpectralNorm, OperatorNorm)


def ema_generator(generator: nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average of weights and batch statistics, a copy that is never trained.

    Spectral norms are those of the averaged weights: an average of singular vectors is none, so the copy goes
    on with the power iteration on its own. The decay warms up as min(decay, (1 + n) / (10 + n)) so that the
    first samples are not those of the random start.

    Raises:
        ValueError: for a decay outside [0, 1).
    """
    if not 0 <= decay < 1:
        raise ValueError(f"expected an EMA decay in [0, 1), got {decay}")
    return _Average(generator, decay).eval().requires_grad_(False)


class _Average(AveragedModel):
    """As ``AveragedModel``, which waits for the device at each update to learn how many there were."""

    def __init__(self, generator: nn.Module, decay: float) -> None:
        super().__init__(generator, use_buffers=True)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        ours = chain(self.module.parameters(), self.module.buffers())
        vectors = {id(v) for m in self.module.modules() if isinstance(m, NORMS) for v in m.buffers()}
        weights: dict[torch.dtype, Tensor] = {}
        for average, current in zip(ours, chain(model.parameters(), model.buffers())):
            if id(average) in vectors:
                continue
            if not average.is_floating_point():
                average.copy_(current)
                continue
            if average.dtype not in weights:
                weights[average.dtype] = self._weight().to(average.dtype)
            average.lerp_(current, weights[average.dtype])
        iterate_norms(self.module)
        self.n_averaged += 1

    def _weight(self) -> Tensor:
        """Of what is averaged in; 1 at first."""
        n = self.n_averaged.to(torch.float32 if self.n_averaged.device.type == "mps" else torch.float64)
        return torch.where(n == 0, 1.0, 1 - ((1 + n) / (10 + n)).clamp_max(self.decay))
