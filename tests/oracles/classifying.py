"""The training of a classifier, written out: no Lightning, no schedule object, no averaging class."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def trained_by_hand(
    network: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor]],
    rates: list[float],
    decay: float,
    smoothing: float,
    ema: float,
) -> dict[str, Tensor]:
    """Adam on the smoothed cross entropy, one step for each rate; trains ``network``, returns the average.

    Args:
        decay: L2 penalty of the parameters with more than one dimension.
        smoothing: share of the target spread over all classes.
        ema: of the averaged weights; for step n it is at most (1 + n) / (10 + n).
    """
    filters = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim == 1]
    groups = [{"params": filters, "weight_decay": decay}, {"params": others}]
    optimizer = torch.optim.Adam(groups, fused=True)
    average: dict[str, Tensor] = {}
    step = epoch = 0
    network.train()
    while step < len(rates):
        loader.set_epoch(epoch)
        for images, labels in loader:
            for group in optimizer.param_groups:
                group["lr"] = rates[step]
            loss = nn.functional.cross_entropy(network(images), labels, label_smoothing=smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            average = averaged(average, network.state_dict(), step, ema)
            step += 1
        epoch += 1
    return average


def averaged(
    average: dict[str, Tensor], current: dict[str, Tensor], step: int, ema: float
) -> dict[str, Tensor]:
    """w <- d w + (1 - d) v; the first call only copies, and step counters are copied always."""
    keep = min(ema, (1 + step) / (10 + step)) if average else 0.0
    return {
        name: value.clone()
        if not value.is_floating_point() or not average
        else keep * average[name] + (1 - keep) * value
        for name, value in current.items()
    }
