"""A grid of samples each epoch, always from the same latents, beside one of real images."""

from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor
from torchvision.utils import make_grid, save_image

from eqgan.files import atomic_write
from eqgan.training.module import GAN


class SampleGrid(pl.Callback):
    """Writes ``epoch_0007.png`` for every epoch, and ``real.png`` once.

    Of a conditional GAN every row is a class, and every column a latent.

    Args:
        folder: where the pictures go.
        real: images in [-1, 1] shown in ``real.png``; of a conditional GAN as many of each class, in order.
        count: samples in a grid, of all classes together.
        seed: of the fixed latents.
        num_classes: 0 for a GAN without labels.
    """

    def __init__(
        self, folder: Path, real: Tensor, count: int = 64, seed: int = 0, num_classes: int = 0
    ) -> None:
        self.folder, self.real, self.seed, self.num_classes = folder, real[:count], seed, num_classes
        self.columns = columns_of(count, num_classes)
        self.count = self.columns * num_classes if num_classes else count

    def on_train_start(self, trainer: pl.Trainer, pl_module: GAN) -> None:
        if trainer.is_global_zero:
            save_grid(self.real, self.folder / "real.png", self.columns)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: GAN) -> None:
        if not trainer.is_global_zero:
            return
        images = self.samples(pl_module).float().cpu()
        save_grid(images, self.folder / f"epoch_{trainer.current_epoch:04d}.png", self.columns)
        if trainer.logger is not None:
            grid = make_grid(images, nrow=self.columns, normalize=True, value_range=(-1, 1), padding=1)
            trainer.logger.experiment.add_image("samples", grid, trainer.global_step)

    def samples(self, gan: GAN) -> Tensor:
        """The images of the fixed latents, row by row."""
        draws = torch.Generator().manual_seed(self.seed)
        if not self.num_classes:
            return gan.sample(gan.generator.draw_latents(self.count, draws))
        latents = gan.generator.draw_latents(self.columns, draws).repeat(self.num_classes, 1)
        labels = torch.arange(self.num_classes, device=latents.device).repeat_interleave(self.columns)
        return gan.sample(latents, labels)


def columns_of(count: int, num_classes: int = 0) -> int:
    """Images in a row of a grid of ``count``: at most eight; a row is a class if there are classes."""
    return max(1, min(8, count if not num_classes else count // num_classes))


def save_grid(images: Tensor, path: Path, columns: int = 8) -> None:
    """Writes images in [-1, 1] as one PNG, three times enlarged when they are small."""
    scale = max(1, 84 // images.shape[-1])
    images = images.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    with atomic_write(path) as temporary:
        rows = {"nrow": min(columns, len(images)), "padding": scale}
        save_image(images, temporary, normalize=True, value_range=(-1, 1), **rows)
