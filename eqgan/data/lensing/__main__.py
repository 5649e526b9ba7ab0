"""`python -m eqgan.data.lensing PICTURE.png`: examples of every class, as in docs/lensing.md."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from eqgan.data.lensing.priors import TASKS
from eqgan.data.lensing.simulator import SIDE, simulate
from eqgan.data.lensing.source import SEED
from eqgan.files import atomic_write

COLUMNS, ZOOM, MARGIN = 10, 2, 64  # examples of a class, enlargement, pixels for its name


def rows() -> dict[str, np.ndarray]:
    """Return the first examples of every class, (COLUMNS, SIDE, SIDE) each."""
    found = {}
    for task in TASKS.values():
        images, labels = next(simulate(task, COLUMNS * len(task.classes), SEED))
        for label, name in enumerate(task.classes):
            found[f"{task.name}:\n{name}"] = images[labels == label][:, 0].numpy()
    return found


def picture() -> Image.Image:
    """Return the examples, a row for each class, with its name before it."""
    examples, tile = rows(), SIDE * ZOOM
    sheet = Image.new("L", (MARGIN + COLUMNS * tile, len(examples) * tile), 255)
    for row, (name, images) in enumerate(examples.items()):
        strip = Image.fromarray(np.concatenate(list(images), axis=1))
        enlarged = strip.resize((COLUMNS * tile, tile), Image.Resampling.NEAREST)
        sheet.paste(enlarged, (MARGIN, row * tile))
        ImageDraw.Draw(sheet).text((4, row * tile + tile // 2 - 12), name, fill=0)
    return sheet


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].endswith(".png"):
        raise SystemExit("usage: python -m eqgan.data.lensing PICTURE.png")
    with atomic_write(Path(sys.argv[1])) as temporary:
        picture().save(temporary, optimize=True)
