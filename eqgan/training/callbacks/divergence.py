"""Notices that training diverged, and starts again from a good state with lower learning rates."""

import math
from typing import Any

import pytorch_lightning as pl


class DivergedError(ValueError):
    """Training left the numbers that mean something; what was saved before is good."""


class DivergenceGuard(pl.Callback):
    """Raises ``DivergedError`` before a state that is no good can be scored or saved.

    The records of a step are looked at whenever they are logged, which costs no wait for the device that
    logging does not: NaN and infinity in the weights do not go away. All weights are looked at once an epoch.
    After a rollback the learning rates are halved for each one since the state that is gone back to.

    Args:
        rollbacks: of the run so far, each a plain dictionary; part of the checkpoint.
        limit: a loss beyond it, either way, counts as diverged.
    """

    def __init__(self, rollbacks: list[dict[str, Any]] | None = None, limit: float = 1e6) -> None:
        if not limit > 0:
            raise ValueError(f"expected a limit above 0, got {limit}")
        self.rollbacks = list(rollbacks or [])
        self.limit = limit
        self._before = 0  # rollbacks that the restored state has behind it already

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        scale_learning_rates(trainer, 0.5 ** (len(self.rollbacks) - self._before))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.log_every_n_steps and batch_idx + 1 != trainer.num_training_batches:
            return
        for name, value in pl_module.records.items():
            number = float(value)
            if not math.isfinite(number) or ("loss" in name and abs(number) > self.limit):
                raise DivergedError(f"{name} is {number:.4g} in epoch {trainer.current_epoch}")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for name, tensor in pl_module.state_dict().items():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise DivergedError(f"{name} is not finite at the end of epoch {trainer.current_epoch}")

    def state_dict(self) -> dict[str, Any]:
        return {"rollbacks": self.rollbacks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before = len(state_dict["rollbacks"])
        if self._before > len(self.rollbacks):  # resumed by another process
            self.rollbacks = list(state_dict["rollbacks"])


def scale_learning_rates(trainer: pl.Trainer, factor: float) -> None:
    """Multiplies the learning rates of all optimisers, and what schedules go by; checkpoints keep it."""
    if factor == 1:
        return
    for optimizer in trainer.optimizers:
        for group in optimizer.param_groups:
            group["lr"] *= factor
            if "initial_lr" in group:
                group["initial_lr"] *= factor
    for config in trainer.lr_scheduler_configs:
        config.scheduler.base_lrs = [rate * factor for rate in config.scheduler.base_lrs]
