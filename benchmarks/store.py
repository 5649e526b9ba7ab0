"""Epoch times of a set on the disk against the same set in memory: reading alone, and training.

python benchmarks/store.py --out benchmarks/results/store.json
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from speed import write
from torch import nn
from torch.nn import functional as F

from eqgan.data.loader import Loader, TensorLoader
from eqgan.data.store import Stream, read_store, write_store
from eqgan.training.report import versions

BATCH = 128


def main() -> None:
    """Measures both loaders in turns, and writes medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=65)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=None, help="results file (JSON)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        loaders = both(Path(folder) / "set.store", options.images, options.side)
        results = {
            "reading": compare(loaders, options.rounds, read),
            "training": compare(loaders, options.rounds, train),
        }
    settings = {key: value for key, value in vars(options).items() if key != "out"}
    settings |= {"batch": BATCH, "megabytes": options.images * options.side**2 / 1e6}
    results = {"program": "benchmarks/store.py", "settings": settings, "versions": versions(), **results}
    print(json.dumps(results, indent=2))
    if options.out is not None:
        write(options.out, results)


def both(path: Path, count: int, side: int) -> dict[str, Loader]:
    """Return a loader of random images in memory and one of the same images on the disk."""
    images = np.random.RandomState(0).randint(0, 256, (count, 1, side, side)).astype(np.uint8)
    labels = np.arange(count) % 2
    write_store(path, "set", {"train": Stream(count, (1, side, side), [(images, labels)], True)}, ("a", "b"))
    memory = TensorLoader(torch.from_numpy(images), torch.from_numpy(labels), BATCH)
    return {"memory": memory, "store": read_store(path).split("train").loader(BATCH)}


def compare(
    loaders: dict[str, Loader], rounds: int, epoch: Callable[[Loader], None]
) -> dict[str, float | list[float]]:
    """Return the seconds of an epoch of each, measured in turns after one that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in loaders}
    for number in range(rounds + 1):
        for name, loader in loaders.items():
            loader.set_epoch(number)
            start = time.perf_counter()
            epoch(loader)
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    return {**medians, "ratio": medians["store"] / medians["memory"]}


def read(loader: Loader) -> None:
    """Goes through an epoch without using it."""
    for image, _ in loader:
        image.sum()


def train(loader: Loader) -> None:
    """Trains a small network for an epoch, the same one each time."""
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(1, 8, 5, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)),
    )
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    for image, label in loader:
        optimizer.zero_grad()
        F.cross_entropy(network(image), label).backward()
        optimizer.step()


if __name__ == "__main__":
    main()
