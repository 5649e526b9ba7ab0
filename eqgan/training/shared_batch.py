"""Lightning's part of a training by several processes."""

import os
from typing import Any

from pytorch_lightning.plugins.environments import TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities import rank_zero_only

from eqgan.training import ranks


class SharedBatch(DDPStrategy):
    """Lightning's DDP without the wrapper around the module.

    ``DistributedDataParallel`` sums gradients in hooks of one backward pass through one forward pass. A game
    has several of both in a step, and a gradient penalty differentiates a backward pass. So the training
    steps sum the gradients themselves, once before each step of an optimiser (``ranks.sum_gradients``).

    The processes have met already (``torch.distributed`` is initialised), with the names that torchrun gives
    them in the environment.
    """

    def setup_distributed(self) -> None:
        # not Lightning's: that one draws the seed again, and so sets the random numbers back
        rank_zero_only.rank = ranks.rank()

    def configure_ddp(self) -> None:
        ranks.send_weights(self.model)

    def barrier(self, *args: Any, **kwargs: Any) -> None:
        ranks.meet()


def trainer_options(given: dict[str, Any]) -> dict[str, Any]:
    """Arguments of Lightning's Trainer for as many processes as there are.

    Args:
        given: by the user.

    Raises:
        ValueError: for another strategy than DDP, or other processes than there are.
    """
    if given.get("strategy", "auto") not in ("auto", "ddp"):
        raise ValueError(
            f"trainer.strategy: expected ddp or auto, got {given['strategy']}: the processes of a run share "
            "each batch, and hold the whole networks"
        )
    if "accumulate_grad_batches" in given:
        raise ValueError("trainer: accumulate_grad_batches cannot be set; --accumulate N does it")
    if ranks.world_size() == 1:
        if given.get("num_nodes", 1) != 1:
            raise ValueError(
                f"trainer.num_nodes: got {given['num_nodes']}, but this is the only process. Start those of "
                "several machines with torchrun"
            )
        return {"devices": 1, **given}
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    devices = given.get("devices", here)
    if isinstance(devices, int) and devices not in (-1, here):
        raise ValueError(f"trainer.devices: got {devices}, but {here} processes were started on this machine")
    return {
        **given,
        "devices": devices if isinstance(devices, list) else here,
        "num_nodes": ranks.world_size() // here,
        "strategy": SharedBatch(),
    }


def require_equal_shares(batch_size: int, processes: int, micro_batches: int = 1) -> None:
    """Each process, and each micro-batch, has as many images of a batch as any other.

    Raises:
        ValueError: if it cannot have.
    """
    parts = processes * micro_batches
    if batch_size % parts:
        raise ValueError(
            f"--batch-size {batch_size}: expected a multiple of {parts}, for equal shares of {processes} "
            f"process(es) with {micro_batches} micro-batch(es) each. Use {-(-batch_size // parts) * parts}"
        )


def environments() -> list[TorchElasticEnvironment]:
    """The plugin that tells Lightning which process this is, if there are several."""
    return [TorchElasticEnvironment()] if ranks.world_size() > 1 else []
