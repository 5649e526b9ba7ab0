"""Batch-norm statistics of the weights as they are, rather than of those of the last hundred steps."""

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from eqgan.metrics.features import evaluating


def recompute_statistics(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replaces the running means and variances by their averages over these batches.

    Everything but the batch norms is in eval mode meanwhile (no dropout); nothing else of the network
    changes. Batch norms that are frozen (``eqgan.networks.freeze``) keep what they have.

    Args:
        network: any module.
        batches: of images, (batch, channels, height, width) each, all of one size.

    References:
        Cohen & Welling, arXiv:1602.07576, recompute them so before testing; see also arXiv:1803.05407.
    """
    norms = [part for part in network.modules() if isinstance(part, _BatchNorm) and _learns(part)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    with evaluating(network):
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # PyTorch's word for the plain average over all batches
                norm.train()
            for batch in batches:
                network(batch)
        finally:
            for norm, momentum in zip(norms, momenta):
                norm.momentum = momentum


def _learns(norm: _BatchNorm) -> bool:
    # not by requires_grad: no parameter of an averaged network has one
    return norm.track_running_stats and not getattr(norm, "frozen", False)


def sample_batches(loader: Iterable[tuple[Tensor, Tensor]], count: int) -> Iterable[Tensor]:
    """The images of the first ``count`` batches."""
    for number, (images, _) in enumerate(loader):
        if number == count:
            return
        yield images
