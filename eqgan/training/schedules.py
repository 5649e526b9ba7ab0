"""Learning-rate schedules as pure functions of the step, so that a resumed run needs nothing but its step."""

import math
from abc import ABC, abstractmethod

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class Schedule(ABC):
    """Share of the optimiser's own learning rate at each step.

    Attributes:
        depends_on_length: whether another number of epochs changes the rates of the steps already made.
    """

    depends_on_length = True

    @abstractmethod
    def factor(self, step: int, steps: int, epoch: float) -> float:
        """The share at a step.

        Args:
            step: from 0.
            steps: of the whole run.
            epoch: how many passes over the data are behind.
        """

    def scheduler(self, optimizer: Optimizer, steps: int, epochs: int) -> LambdaLR:
        """PyTorch's scheduler that follows this schedule, to be stepped after every step of the optimiser."""
        per_epoch = steps / epochs
        return LambdaLR(optimizer, lambda step: self.factor(step, steps, step / per_epoch))


class ConstantSchedule(Schedule):
    """The optimiser's own rate throughout."""

    depends_on_length = False

    def factor(self, step: int, steps: int, epoch: float) -> float:
        return 1.0


class StepSchedule(Schedule):
    """The rate is multiplied by ``gamma`` at each of some epochs.

    Args:
        epochs: at whose beginning the rate falls, counted from 0.
        gamma: the factor.
    """

    depends_on_length = False

    def __init__(self, epochs: tuple[int, ...], gamma: float = 0.1) -> None:
        if not epochs or min(epochs) < 1 or gamma <= 0:
            raise ValueError(f"schedule: expected epochs from 1 and gamma > 0, got {epochs} and {gamma}")
        self.epochs, self.gamma = tuple(epochs), gamma

    def factor(self, step: int, steps: int, epoch: float) -> float:
        return self.gamma ** sum(epoch + 1e-9 >= limit for limit in self.epochs)


class CosineSchedule(Schedule):
    """Half a cosine from the full rate to nothing, after a linear warm-up.

    Args:
        warmup: share of the run, in [0, 1), in which the rate rises.

    References:
        Loshchilov & Hutter, arXiv:1608.03983, without restarts.
    """

    def __init__(self, warmup: float = 0.0) -> None:
        if not 0 <= warmup < 1:
            raise ValueError(f"schedule: expected a warm-up of 0 up to below 1 of the run, got {warmup}")
        self.warmup = warmup

    def factor(self, step: int, steps: int, epoch: float) -> float:
        rising = self.warmup * steps
        if step < rising:
            return (step + 1) / (rising + 1)
        return (1 + math.cos(math.pi * min(1.0, (step - rising) / (steps - rising)))) / 2


class OneCycleSchedule(Schedule):
    """Half a cosine up from a 25th of the rate, then half a cosine down to almost nothing.

    Args:
        peak: share of the run, in (0, 1), after which the full rate is reached.
        start, end: shares of the full rate at the first and the last step.

    References:
        Smith & Topin, arXiv:1708.07120; shaped as ``torch.optim.lr_scheduler.OneCycleLR``.
    """

    def __init__(self, peak: float = 0.3, start: float = 1 / 25, end: float = 4e-6) -> None:
        if not 0 < peak < 1 or not 0 <= start <= 1 or not 0 <= end <= 1:
            raise ValueError(
                "schedule: expected a peak between 0 and 1, start and end from 0 to 1, "
                f"got peak={peak}, start={start}, end={end}"
            )
        self.peak, self.start, self.end = peak, start, end

    def factor(self, step: int, steps: int, epoch: float) -> float:
        top = self.peak * steps - 1
        if step <= top:
            return _anneal(self.start, 1.0, step / top)
        return _anneal(1.0, self.end, min(1.0, (step - top) / max(1e-9, steps - 1 - top)))


def _anneal(begin: float, end: float, share: float) -> float:
    return end + (begin - end) * (1 + math.cos(math.pi * share)) / 2
