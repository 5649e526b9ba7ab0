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

    Args:
        folder: where the pictures go.
        real: images in [-1, 1] shown in ``real.png``.
        count: samples in a grid.
        seed: of the fixed latents.
    """

    def __init__(self, folder: Path, real: Tensor, count: int = 64, seed: int = 0) -> None:
        self.folder, self.real, self.count, self.seed = folder, real[:count], count, seed

    def on_train_start(self, trainer: pl.Trainer, pl_module: GAN) -> None:
        if trainer.is_global_zero:
            save_grid(self.real, self.folder / "real.png")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: GAN) -> None:
        if not trainer.is_global_zero:
            return
        latents = pl_module.generator.draw_latents(self.count, torch.Generator().manual_seed(self.seed))
        images = pl_module.sample(latents).float().cpu()
        save_grid(images, self.folder / f"epoch_{trainer.current_epoch:04d}.png")
        if trainer.logger is not None:
            grid = make_grid(images, nrow=_columns(images), normalize=True, value_range=(-1, 1), padding=1)
            trainer.logger.experiment.add_image("samples", grid, trainer.global_step)


def save_grid(images: Tensor, path: Path, columns: int = 8) -> None:
    """Writes images in [-1, 1] as one PNG, so many a row, three times enlarged when they are small."""
    scale = max(1, 84 // images.shape[-1])
    images = images.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    with atomic_write(path) as temporary:
        save_image(
            images,
            temporary,
            nrow=min(columns, len(images)),
            normalize=True,
            value_range=(-1, 1),
            padding=scale,
        )


def _columns(images: Tensor) -> int:
    return min(8, len(images))
