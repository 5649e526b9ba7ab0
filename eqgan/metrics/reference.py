"""Statistics of the real images, computed once per data set, split and feature network, and kept on disk."""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from eqgan.files import atomic_write

from .features import FeatureExtractor, signed_unit
from .frechet import FeatureStatistics, FeatureSums

METRIC_VERSION = 1
"""Raise it whenever the same images and network would give other statistics: it is part of the cache key."""

_BATCH = 500
log = logging.getLogger("eqgan")


@dataclass(frozen=True, eq=False)
class Reference:
    """What generated images are compared with.

    Args:
        statistics: mean and covariance of the features of all reference images.
        features: `(rows, d)` float32, the features of a fixed draw of them, for neighbours and kernels.
        provenance: data, feature network and version they come from, as JSON values.
    """

    statistics: FeatureStatistics
    features: Tensor
    provenance: dict[str, Any]


def reference_statistics(
    images: Tensor | Iterable[Any],
    extractor: FeatureExtractor,
    *,
    data_name: str,
    data_hash: str,
    split: str,
    count: int,
    cache_dir: str | os.PathLike[str] | None,
    neighbours: int = 10_000,
) -> Reference:
    """Features of real images, summed up; from the cache if exactly the same was computed before.

    The cache file is named after a SHA-256 over data name and hash, split, count, feature network (name,
    hash, resize, channels), rows kept and `METRIC_VERSION`. A file that is damaged, or holds something
    else, is computed again, with one line in the log "eqgan". A cache that cannot be written costs a line
    in the log and nothing else.

    Args:
        images: `(N, C, H, W)`, uint8 in 0..255 or floating in [-1, 1], of which a fixed draw of `count` is
            used; or an iterable of such batches (or of tuples that start with one) with `count` images in
            all, which is not touched when the cache holds the answer.
        extractor: the feature network.
        data_name: name of the data set.
        data_hash: hash over the images as they are passed in; whatever changes them must change it.
        split: which part of the data set it is.
        count: number of images.
        cache_dir: folder for the cache, made if need be; None keeps nothing.
        neighbours: most rows of features to keep.

    Returns:
        The reference, the same bit for bit whether it was computed or read.

    Raises:
        ValueError: Fewer than 2 images, another number of images than `count`, floats outside [-1, 1], or
            features that are not finite.
    """
    if count < 2 or neighbours < 1:
        raise ValueError(f"count={count}, neighbours={neighbours}: expected at least 2 and 1.")
    provenance = {
        "version": METRIC_VERSION,
        "data": {"name": data_name, "hash": data_hash, "split": split, "count": count},
        "features": extractor.describe(),
        "rows": min(neighbours, count),
    }
    path = None if cache_dir is None else Path(cache_dir) / f"reference-{_key(provenance)}.safetensors"
    cached = None if path is None else _read(path, provenance)
    if cached is not None:
        return cached
    reference = _computed(_batches(images, count), extractor, provenance)
    if path is not None:
        _write(path, reference)
    return reference


def _key(provenance: dict[str, Any]) -> str:
    return hashlib.sha256(_json(provenance).encode()).hexdigest()


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _draw(total: int, count: int) -> Tensor:
    """A fixed draw without replacement, in rising order; the first rows of a sorted set are no fair one."""
    return torch.from_numpy(np.sort(np.random.RandomState(0).permutation(total)[:count]))


def _batches(images: Tensor | Iterable[Any], count: int) -> Iterator[Tensor]:
    if not isinstance(images, Tensor):
        yield from (batch[0] if isinstance(batch, (tuple, list)) else batch for batch in images)
        return
    if len(images) < count:
        raise ValueError(
            f"count={count}, but there are {len(images)} images. Pass count={len(images)} or less."
        )
    for rows in _draw(len(images), count).split(_BATCH):
        yield images[rows.to(images.device)]


def _computed(
    batches: Iterable[Tensor], extractor: FeatureExtractor, provenance: dict[str, Any]
) -> Reference:
    count = provenance["data"]["count"]
    kept = torch.zeros(count, dtype=torch.bool)
    kept[_draw(count, provenance["rows"])] = True
    sums, rows, seen = None, [], 0
    for batch in batches:
        if seen + len(batch) > count:
            raise ValueError(f"count={count}, but there are more images. Pass their number as count.")
        features = extractor.extract(_in_range(batch), _BATCH)
        part = FeatureSums.from_features(features)
        sums = part if sums is None else sums + part
        rows.append(features.cpu()[kept[seen : seen + len(batch)]])
        seen += len(batch)
    if sums is None or seen < count:
        raise ValueError(f"count={count}, but there are only {seen} images. Pass their number as count.")
    return Reference(sums.statistics(), torch.cat(rows), provenance)


def _in_range(images: Tensor) -> Tensor:
    images = signed_unit(images)
    low, high = images.amin().item(), images.amax().item()
    if not (low >= -1.001 and high <= 1.001):
        raise ValueError(
            f"reference images lie in [{low:.4g}, {high:.4g}], expected [-1, 1]: scale them, or pass uint8."
        )
    return images


def _metadata(provenance: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, str]:
    """One entry: safetensors writes several in no fixed order. The format itself has no checksum."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(tensors[name].numpy().tobytes())
    return {"provenance": _json(provenance | {"content_sha256": digest.hexdigest()})}


def _read(path: Path, provenance: dict[str, Any]) -> Reference | None:
    """The reference in a cache file, or None: no file, or one not to be trusted, which the log then says."""
    try:
        if not path.exists():
            return None
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).clone() for name in ("mean", "covariance", "features")}
        if metadata != _metadata(provenance, tensors):
            raise ValueError("it is damaged, or was computed from something else")
        statistics = FeatureStatistics(tensors["mean"], tensors["covariance"], provenance["data"]["count"])
        return Reference(statistics, tensors["features"], provenance)
    except (SafetensorError, OSError, ValueError) as error:
        log.warning("Reference statistics %s cannot be used (%s): computing them again.", path, error)
        return None


def _write(path: Path, reference: Reference) -> None:
    """Replace the cache file in one step; on any failure of the disk leave what was there, and say so."""
    statistics = reference.statistics
    tensors = {"mean": statistics.mean, "covariance": statistics.covariance, "features": reference.features}
    tensors = {name: value.contiguous() for name, value in tensors.items()}
    content = safetensors.torch.save(tensors, _metadata(reference.provenance, tensors))
    try:
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        log.warning("Reference statistics could not be kept (%s): going on without.", error)
