"""The confusion matrix as a picture: of the validation images in TensorBoard, of test images in a file."""

from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from jaxtyping import UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from eqgan.files import atomic_write
from eqgan.training.callbacks.validation import Validation


class ConfusionPicture(pl.Callback):
    """Shows TensorBoard the confusion matrix of the validation images whenever an epoch was the best so far.

    Args:
        judge: whose scores are drawn.
        class_names: of the axes.
    """

    def __init__(self, judge: Validation, class_names: tuple[str, ...]) -> None:
        self.judge, self.class_names = judge, class_names

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.judge.improved or trainer.logger is None or not trainer.is_global_zero:
            return
        picture = confusion_image(self.judge.latest.confusion, self.class_names, "validation images")
        trainer.logger.experiment.add_image("confusion", picture, trainer.global_step)


def confusion_figure(confusion: list[list[int]], class_names: tuple[str, ...], title: str) -> Figure:
    """The matrix with its counts, shaded by the share of each true class; drawn, without a window."""
    counts = np.array(confusion)
    classes = len(counts)
    side = 2.4 + 0.42 * min(classes, 40)
    figure = Figure(figsize=(side, side), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.add_subplot()
    axis.imshow(counts / np.maximum(1, counts.sum(1, keepdims=True)), cmap="Blues", vmin=0, vmax=1)
    ticks = range(classes) if classes <= 40 else ()
    axis.set_xticks(
        ticks, [class_names[i] for i in ticks], rotation=90 if max(map(len, class_names)) > 3 else 0
    )
    axis.set_yticks(ticks, [class_names[i] for i in ticks])
    for row, column in np.argwhere(counts > 0) if classes <= 20 else ():
        dark = counts[row, column] > 0.5 * counts[row].sum()
        axis.text(
            *(column, row, str(counts[row, column])),
            **{"ha": "center", "va": "center", "fontsize": 7, "color": "white" if dark else "black"},
        )
    errors = counts.sum() - counts.trace()
    axis.set(xlabel="predicted", ylabel="true", title=f"{title}:\n{errors:,} of {counts.sum():,} missed")
    figure.canvas.draw()
    return figure


def confusion_image(
    confusion: list[list[int]], class_names: tuple[str, ...], title: str
) -> UInt8[torch.Tensor, "3 height width"]:
    """The picture as pixels."""
    pixels = np.asarray(confusion_figure(confusion, class_names, title).canvas.buffer_rgba())[..., :3]
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def save_confusion(confusion: list[list[int]], class_names: tuple[str, ...], title: str, path: Path) -> None:
    """Writes the picture as a PNG."""
    with atomic_write(path) as temporary:
        confusion_figure(confusion, class_names, title).savefig(temporary)
