"""The simulated lenses as sources of images: made once, then read from the cache."""

import logging
from pathlib import Path

import numpy as np
import torch

from eqgan.data.imageset import ImageSet, Source
from eqgan.data.lensing.priors import TASKS, Task
from eqgan.data.lensing.simulator import simulate
from eqgan.data.rotated import with_rotated_test
from eqgan.files import atomic_write, cache_folder, read_arrays

log = logging.getLogger("eqgan")

SEED = 1994
"""Of both sets: the year of the paper on the isothermal ellipsoid."""

COUNTS = {"train": 10_000, "test": 5_000}
"""Lenses in each split; those of test have the numbers after those of train."""

LENS_SHA256 = {
    "lens": "b699509eb0cc9309dc4647fc6083fc1745966c45b7e2a28f2d6d828a4071be76",
    "lens3": "e80c472a2bd9abbd07750b2672a37f8d8a51e969e93fbf679758f5c954816906",
}
"""SHA-256 of each source (see `Source.of`)."""


def read_lenses(name: str, size: int | None = None) -> Source:
    """Return simulated lenses, from the cache or (about two minutes on one core, once) from the simulator.

    Args:
        name: "lens" (lens or no lens) or "lens3" (no substructure, subhaloes, or a vortex).
        size: pixels a side of `Source.split`.
    """
    path = cache_folder() / f"{name}-{LENS_SHA256[name][:12]}.npz"
    source = _read_cache(path, TASKS[name])
    if source is None:
        log.warning("Simulating %s lenses for %r, once.", f"{sum(COUNTS.values()):,}", name)
        source = _make(TASKS[name])
        _write_cache(path, source)
    if source.sha256 != LENS_SHA256[name]:
        log.warning(
            "The lenses of %r came out with SHA-256 %s, expected %s: this installation rounds some functions "
            "differently. Scores are comparable, bits are not; records carry the hash.",
            name,
            source.sha256,
            LENS_SHA256[name],
        )
    return with_rotated_test(Source(source.name, source.sets, source.sha256, size))


def _make(task: Task) -> Source:
    sets, start = {}, 0
    for split, count in COUNTS.items():
        images, labels = zip(*simulate(task, count, SEED, start))
        sets[split] = ImageSet.of(task.name, torch.cat(images), torch.cat(labels), None, task.classes)
        start += count
    return Source.of(task.name, sets)


def _read_cache(path: Path, task: Task) -> Source | None:
    """Return the source from the cache, or None where there is none or it is damaged."""
    if not path.is_file():
        return None
    try:
        arrays = read_arrays(path)
        sets = {
            split: ImageSet.of(
                task.name,
                torch.from_numpy(arrays[f"x_{split}"]),
                torch.from_numpy(arrays[f"y_{split}"]),
                None,
                task.classes,
            )
            for split in COUNTS
        }
        source = Source.of(task.name, sets)
        if source.sha256 == str(arrays["sha256"]):
            return source
        reason = "its content has another hash than it should."
    except (KeyError, ValueError, TypeError) as error:
        reason = str(error)
    log.warning("The cached lenses %s are damaged, making them again: %s", path, reason)
    return None


def _write_cache(path: Path, source: Source) -> None:
    """Keep the images for the next run; a run goes on without, if that is impossible."""
    arrays = {"sha256": np.array(source.sha256)}
    for split, images in source.sets.items():
        arrays |= {f"x_{split}": images.images.numpy(), f"y_{split}": images.labels.numpy()}
    try:
        with atomic_write(path) as temporary:
            np.savez(temporary, **arrays)
    except OSError as error:
        log.warning("The lenses are not cached: %s. The next run will make them again.", error.strerror)
