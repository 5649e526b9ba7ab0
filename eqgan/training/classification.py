"""Learning to tell classes apart, as a Lightning module."""

from collections.abc import Callable, Iterable
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer

from eqgan.metrics.features import evaluating
from eqgan.networks import Classifier
from eqgan.training.compiling import compile_network, eager
from eqgan.training.ema import ema_generator
from eqgan.training.finetuning import FineTuning
from eqgan.training.ranks import gathered, mean, own_randomness, sum_gradients, world_size
from eqgan.training.schedules import ConstantSchedule, Schedule
from eqgan.training.statistics import recompute_statistics
from eqgan.training.turned import averaged_over_turns, distinct_turns

MakeOptimizer = Callable[[list[dict[str, Any]]], Optimizer]


def adam(parameters: list[dict[str, Any]]) -> Optimizer:
    """Adam with rate 1e-3, as Cohen & Welling trained."""
    return torch.optim.Adam(parameters, lr=1e-3, fused=True)


class Classification(pl.LightningModule):
    """A classifier trained by cross entropy.

    Labels are never moved by the augmentation; it acts on whole batches, on their device.

    Args:
        network: the classifier.
        optimizer: makes the optimiser from parameter groups.
        schedule: of the learning rate; constant by default.
        augment: from a batch of images to one of the same shape.
        label_smoothing: share of the target spread over all classes (arXiv:1512.00567, section 7).
        ema_decay: of an averaged copy of the network, which is then the one that is judged and kept; 0: none.
        finetuning: which part of the network learns, and how fast.
        statistics_batches: batches of (augmented) training images that batch-norm statistics are computed
            from anew before each evaluation; 0 keeps the running ones.
        turns: orientations of an image that the judged logits are the mean of (``TurnedClassifier``);
            training sees those of ``augment``.
        channels_last: memory format of the maps, of images with several channels (with one, torch's
            convolutions keep the usual one); changes the speed only.

    Raises:
        ValueError: for a number out of range.
    """

    def __init__(
        self,
        network: Classifier,
        optimizer: MakeOptimizer = adam,
        schedule: Schedule | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
        finetuning: FineTuning | None = None,
        label_smoothing: float = 0.0,
        ema_decay: float = 0.0,
        statistics_batches: int = 50,
        turns: int = 1,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1 or not 0 <= ema_decay < 1 or statistics_batches < 0:
            raise ValueError(
                "fit: expected label_smoothing and ema_decay in [0, 1) and statistics_batches of at least 0, "
                f"got {label_smoothing}, {ema_decay} and {statistics_batches}"
            )
        distinct_turns(network.group, turns)
        self.turns = turns
        self.finetuning = finetuning or FineTuning()
        self.finetuning.apply(network)
        self.network = network
        self.ema = ema_generator(network, ema_decay) if ema_decay else None
        self.make_optimizer, self.schedule = optimizer, schedule or ConstantSchedule()
        self.augment, self.label_smoothing = augment, label_smoothing
        self.statistics_batches, self.channels_last = statistics_batches, channels_last
        self.records: dict[str, Tensor] = {}
        self._loss = torch.zeros(())

    @property
    def latest_loss(self) -> float:
        """Cross entropy of the latest batch."""
        return self._loss.item()

    def compile_networks(self, backend: str) -> None:
        """Compiles the network for its training steps."""
        compile_network(self.network, backend)

    @property
    def judged(self) -> Classifier:
        """The network that is evaluated and kept: the averaged one if there is one."""
        return self.network if self.ema is None else self.ema.module

    def optimizer(self) -> torch.optim.Optimizer:
        """A new one, of what is to learn."""
        lr = self.make_optimizer([{"params": [torch.zeros(1)]}]).defaults["lr"]
        return self.make_optimizer(self.finetuning.groups(self.network, lr))

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = self.optimizer()
        steps, epochs = int(self.trainer.estimated_stepping_batches), self.trainer.max_epochs
        scheduler = self.schedule.scheduler(optimizer, steps, epochs)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        with own_randomness(self.device, turn=self.trainer.global_step):
            logits = self.network(self.prepared(images)).float()
        loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        accuracy = mean((logits.argmax(1) == labels).float().mean())
        rate = torch.tensor(self.trainer.optimizers[0].param_groups[0]["lr"])
        self._loss = mean(loss.detach())
        self.records.update(loss=self._loss, accuracy=accuracy, learning_rate=rate)
        return loss / world_size()

    def on_after_backward(self) -> None:
        sum_gradients(self.network.parameters())

    def optimizer_step(self, *args: Any, **options: Any) -> None:
        super().optimizer_step(*args, **options)
        if self.ema is not None:
            self.ema.update_parameters(self.network)

    def prepared(self, images: Tensor) -> Tensor:
        """A training batch as the network sees it: augmented."""
        if self.augment is not None:
            with torch.autocast(images.device.type, enabled=False):
                images = self.augment(images)
        images = images.to(self.dtype)
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else images

    def refresh_statistics(self, batches: Iterable[Tensor], seed: int) -> None:
        """Batch-norm statistics of the judged network from these batches, augmented from their own seed."""
        if not self.statistics_batches:
            return
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.no_grad():
            torch.manual_seed(seed)
            with own_randomness(self.device), eager(self.network):
                recompute_statistics(self.judged, (self.prepared(batch) for batch in batches))

    def predict_logits(
        self, batches: Iterable[tuple[Tensor, Tensor]], turns: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits of the judged network in float32, and labels, of every image, on the CPU.

        They are the mean over so many turns, by default those of this module. Of several processes each goes
        through batches of its own share, and all get all, in order; where the shares are filled up to be
        equal, the first images come once more at the end.
        """
        logits, labels = [], []
        network = averaged_over_turns(self.judged, self.turns if turns is None else turns)
        with evaluating(network), eager(self.network):
            for images, classes in batches:
                logits.append(network(images.to(self.dtype)).float().cpu())
                labels.append(classes.cpu())
        return gathered(torch.cat(logits)), gathered(torch.cat(labels))
