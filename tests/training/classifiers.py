"""Small runs of classifiers through the command line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eqgan.cli.classify import classify
from tests.training.runs import Place

# nothing is left to the defaults, which may change
SMALL = {
    "batch-size": 16,
    "validation-fraction": 0.25,
    "seed": 3,
    "precision": "32-true",
    "net": "p4cnn-drop",
    "network.width": 4,
    "optimizer": "adam",
    "lr": 0.01,
    "schedule": "constant",
    "augment": "rotation",
    "fit.label_smoothing": 0.1,
    "fit.ema_decay": 0.9,
    "fit.statistics_batches": 2,
    "trainer.log_every_n_steps": 1,
}


def squares(path: Path, classes: int = 3, side: int = 22, channels: int = 1, seed: int = 0) -> Path:
    """An .npz of noisy images with a bright square, the larger the higher the class: no up or down."""
    draw = np.random.RandomState(seed)
    arrays = {}
    for split, count in (("train", 60), ("test", 30)):
        labels = np.arange(count) % classes
        images = draw.randint(0, 120, (count, side, side, channels), dtype=np.uint8)
        for image, label in zip(images, labels):
            y, x = draw.randint(2, 7, 2)
            image[y : y + 4 + 4 * label, x : x + 4 + 4 * label] += 120
        arrays |= {f"{split}_images": images, f"{split}_labels": labels}
    np.savez(path, **arrays)
    return path


@dataclass(frozen=True)
class ClassifierPlace(Place):
    """Where the runs of one test, or of all, lie; the data beside them."""

    @property
    def words(self) -> list[str]:
        return ["--log-dir", str(self.root / "logs")]

    def argv(self, *words: str, **options: Any) -> list[str]:
        """The small settings with these over them; of options, double underscores are dots, one a dash."""
        given = {key.replace("__", "."): value for key, value in options.items()}
        given = {key if "." in key else key.replace("_", "-"): value for key, value in given.items()}
        data = self.root / "squares.npz"
        pairs = ({"data": data if data.is_file() else squares(data)} | SMALL | given).items()
        return [word for key, v in pairs for word in (f"--{key}", str(v))] + self.words + list(words)

    def train(self, *words: str, **options: Any) -> dict[str, Any]:
        return classify(self.argv(*words, **options))

    def resume(self, name: str, *words: str) -> dict[str, Any]:
        return classify(["--resume", name, *self.words, *words])

    def samples(self, name: str) -> Path:
        return self.logs(name)

    def best(self, name: str) -> Path:
        return self.logs(name) / "checkpoints" / "best-validation.ckpt"
