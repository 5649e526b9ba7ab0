"""Epoch times of a set on the disk against the same set in memory, and a set larger than a process may hold.

    python benchmarks/store.py --out benchmarks/results/store.json
    python benchmarks/store.py --limit 2 --side 129 --out benchmarks/results/store_limited.json

With --limit both forms of a set of 1.25 times as many GiB are trained on by `eqgan classify`, in processes
that may allocate no more than the limit (RLIMIT_DATA, which counts what is allocated and not what is mapped
from files): the store, and the same images as an .npz, which have to be loaded. Then the .npz without the
limit, for the ratio of their times of training.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speed import write
from torch import nn
from torch.nn import functional as F

from eqgan.data.loader import Loader, TensorLoader
from eqgan.data.store import Stream, read_store, write_store
from eqgan.training.report import versions

BATCH = 128
BLOCK = 1024
WORDS = ["--net", "resnet18", "--network.group", "p4", "--network.width", "4", "--precision", "32-true"]
WORDS += ["--epochs", "1", "--batch-size", "32", "--judging.batch_size", "32", "--overwrite"]


def main() -> None:
    """Measures both loaders in turns, and writes medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=65)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit", type=float, help="GiB that a process may allocate")
    parser.add_argument("--out", type=Path, default=None, help="results file (JSON)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.limit is not None:
        keep(limited(options.limit, options.side, options.threads), options.out)
        return
    with tempfile.TemporaryDirectory() as folder:
        loaders = both(Path(folder) / "set.store", options.images, options.side)
        results = {
            "reading": compare(loaders, options.rounds, read),
            "training": compare(loaders, options.rounds, train),
        }
    settings = {key: value for key, value in vars(options).items() if key != "out"}
    settings |= {"batch": BATCH, "megabytes": options.images * options.side**2 / 1e6}
    keep({"settings": settings, **results}, options.out)


def keep(results: dict[str, Any], out: Path | None) -> None:
    """Prints the results and, if asked, writes them."""
    results = {"program": "benchmarks/store.py", "versions": versions(), **results}
    print(json.dumps(results, indent=2))
    if out is not None:
        write(out, results)


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


def limited(gib: float, side: int, threads: int) -> dict[str, Any]:
    """Trains for one epoch on 1.25 times as many images as fit, from a store and from an ``.npz``."""
    limit = int(gib * 2**30)
    count = int(1.25 * limit) // side**2
    settings = {"limit_bytes": limit, "images": count, "side": side, "threads": threads, "words": WORDS}
    with tempfile.TemporaryDirectory() as folder:
        store, archive = Path(folder) / "set.store", Path(folder) / "set.npz"
        stream = Stream(count, (1, side, side), blocks(count, side), True)
        write_store(store, "set", {"train": stream}, ("dark", "bright"))
        with zipfile.ZipFile(archive, "w") as file:  # of the very arrays of the store, without loading them
            file.write(store / "train-images.npy", "x_train.npy")
            file.write(store / "train-labels.npy", "y_train.npy")
        settings["bytes"] = sum(path.stat().st_size for path in store.iterdir())
        runs = {path.suffix[1:]: train_within(limit, path, threads) for path in (store, archive)}
        runs["npz_without_limit"] = train_within(None, archive, threads)
    mapped, loaded = (runs[name]["training_seconds"] for name in ("store", "npz_without_limit"))
    over_memory = round(mapped / loaded, 3) if mapped and loaded else None
    return {"settings": settings, **runs, "training_over_memory": over_memory}


def blocks(count: int, side: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Noise about one of two levels of grey, which a network can tell apart."""
    random = np.random.RandomState(0)
    for start in range(0, count, BLOCK):
        labels = random.randint(0, 2, min(BLOCK, count - start))
        noise = random.randint(0, 216, (len(labels), 1, side, side)).astype(np.uint8)
        yield noise + (40 * labels).astype(np.uint8)[:, None, None, None], labels


def train_within(limit: int | None, path: Path, threads: int) -> dict[str, Any]:
    """What `eqgan classify` does in a process that may allocate so much: its end, time and size."""
    most = resource.getrlimit(resource.RLIMIT_DATA) if limit is None else (limit, limit)
    words = ["--data", str(path), "--log_dir", str(path.parent / path.suffix), *WORDS]
    command = [sys.executable, "-m", "eqgan", "classify", *words]
    start, largest = time.perf_counter(), 0
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, most),
        )
        while process.poll() is None:
            largest = max(largest, allocated(process.pid))
            time.sleep(0.05)
        output.seek(0)
        text = output.read()
    seconds = time.perf_counter() - start
    said = [line for line in text.replace("\r", "\n").splitlines() if line.strip()]
    summary = next((path.parent / path.suffix).glob("*/summary.json"), None)
    trained = process.returncode == 0 and summary is not None
    return {
        "trained": trained,
        "seconds": round(seconds, 1),
        "training_seconds": json.loads(summary.read_text())["training_seconds"] if trained else None,
        "most_allocated_bytes": largest,
        "last_line": said[-1].replace(str(path.parent) + os.sep, "") if said else "",
    }


def allocated(process: int) -> int:
    """Bytes of the kind that RLIMIT_DATA counts; 0 of a process that has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData")), 0)


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
