"""Image sets larger than memory: one folder on the disk, written once, read through the page cache.

A store is a folder with `index.json` and, for each split, `<split>-images.npy` (uint8, N x C x H x W) and, if
there are labels, `<split>-labels.npy` (int64). The index states shapes and SHA-256 of every split.
"""

import json
import shutil
import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from eqgan.data.imageset import SetDigest, Source, sha256_of_splits
from eqgan.data.stored import StoredSet
from eqgan.files import atomic_write

FORMAT = "eqgan-store"
VERSION = 1
INDEX = "index.json"

_BLOCK = 1 << 24  # bytes that are read at a time where all are read
_REMEDY = "Write the store again with eqgan convert"


@dataclass(frozen=True)
class Stream:
    """A split on its way into a store.

    Attributes:
        count: number of images.
        shape: (channels, height, width) of each.
        blocks: of images (n, channels, height, width), uint8, and labels (n,) or None.
        labelled: whether there are labels.
    """

    count: int
    shape: tuple[int, int, int]
    blocks: Iterable[tuple[np.ndarray, np.ndarray | None]]
    labelled: bool


def is_store(path: Path) -> bool:
    """Return whether a path is a store, or meant to be one."""
    return path.suffix == ".store" or (path / INDEX).is_file()


def read_store(path: Path, size: int | None = None) -> Source:
    """Open a store; nothing but the index and the labels is read.

    Args:
        path: the folder.
        size: must be the size of the images, if given.

    Raises:
        FileNotFoundError: there is no such folder, or files of it are missing.
        ValueError: it is damaged, of another version, or no store.
    """
    index = _read_index(path)
    try:
        names = tuple(index["class_names"])
        sets = {
            split: _open(path, index["name"], split, entry, names) for split, entry in index["splits"].items()
        }
        source = Source.of(index["name"], sets, size)
        sha256 = index["sha256"]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path / INDEX}: expected an index, got one without {error}. {_REMEDY}.") from error
    if source.sha256 != sha256:
        raise ValueError(
            f"{path / INDEX}: expected hashes that belong to {sha256}, got {source.sha256}. {_REMEDY}."
        )
    return source


def verify_store(path: Path) -> None:
    """Read a whole store and compare it with the hashes in its index.

    Raises:
        ValueError: another content; and what `read_store` raises.
    """
    for split, images in read_store(path).sets.items():
        digest = SetDigest(images.images.shape)
        for block in images.images.split(max(1, _BLOCK // prod(images.image_shape))):
            digest.update(block)
        if (found := digest.finish(images.labels)) != images.sha256:
            raise ValueError(
                f"{path}: expected the {split} split to have SHA-256 {images.sha256}, got {found}. {_REMEDY}."
            )


def write_store(
    path: Path,
    name: str,
    streams: Mapping[str, Stream],
    class_names: tuple[str, ...],
    overwrite: bool = False,
) -> None:
    """Write a store; it appears whole or not at all, whatever goes wrong.

    Only a process that is killed leaves something: a hidden folder beside `path` that ends in `.tmp`.

    Args:
        path: the folder to make.
        name: of the source.
        streams: split to its images; "train" is what runs are trained on.
        class_names: one per class.
        overwrite: replace a store that is there.

    Raises:
        FileExistsError: something is there.
        ValueError: a stream yields other images than it announces.
        OSError: the disk is full, the folder cannot be written, ...
    """
    if path.is_file():
        raise FileExistsError(
            f"{path}: expected no such file, or a store; got another file. Choose another name."
        )
    if path.exists() and not (overwrite and (path / INDEX).is_file()):
        is_store = (path / INDEX).is_file()
        remedy = ", or --overwrite." if is_store else ": it is no store, and is not replaced."
        raise FileExistsError(f"{path}: expected no such folder, got one. Choose another name{remedy}")
    with _whole_folder(path) as folder:
        splits = {split: _write_split(folder, split, stream) for split, stream in streams.items()}
        index = {"format": FORMAT, "version": VERSION, "name": name, "class_names": list(class_names)}
        whole = sha256_of_splits({split: entry["sha256"] for split, entry in splits.items()})
        index |= {"sha256": whole, "splits": splits}
        with atomic_write(folder / INDEX) as temporary:
            temporary.write_text(json.dumps(index, indent=1) + "\n")


@contextmanager
def _whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that takes the place of `path` if all goes well, and is removed if not."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        _replace(path, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(path: Path, new: Path) -> None:
    """Give a folder the name of another, which is put back if that fails and removed if not."""
    old = new.with_suffix(".old")
    if path.exists():
        path.rename(old)
    try:
        new.rename(path)
    except OSError:
        if old.exists():
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _write_split(folder: Path, split: str, stream: Stream) -> dict[str, Any]:
    """Write images and labels of one split, block by block, and return its entry in the index."""
    shape = (stream.count, *stream.shape)
    digest, labels, written = SetDigest(shape), [], 0
    with atomic_write(folder / f"{split}-images.npy") as temporary, open(temporary, "wb") as file:
        _write_header(file, shape)
        for images, classes in stream.blocks:
            if images.shape[1:] != stream.shape or (classes is None) == stream.labelled:
                raise ValueError(
                    f"{split}: expected images of shape {stream.shape}, labelled: {stream.labelled}, "
                    f"got {images.shape[1:]}, labelled: {classes is not None}."
                )
            content = np.ascontiguousarray(images, np.uint8)
            file.write(content)
            digest.update(content)
            labels += [] if classes is None else [np.asarray(classes, np.int64)]
            written += len(images)
    if written != stream.count or sum(map(len, labels)) != stream.count * stream.labelled:
        raise ValueError(
            f"{split}: expected {stream.count:,} images and {stream.count * stream.labelled:,} labels, "
            f"got {written:,} and {sum(map(len, labels)):,}."
        )
    classes = np.concatenate(labels) if stream.labelled else None
    if classes is not None:
        with atomic_write(folder / f"{split}-labels.npy") as temporary:
            np.save(temporary, classes)
    return {"shape": list(shape), "labels": stream.labelled, "sha256": digest.finish(classes)}


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _read_index(path: Path) -> dict[str, Any]:
    if not (path / INDEX).is_file():
        raise FileNotFoundError(
            f"{path}: expected a store with an {INDEX} in it, got none. Check the path, or make the store "
            "with eqgan convert SOURCE STORE."
        )
    try:
        index = json.loads((path / INDEX).read_text())
    except ValueError as error:  # of JSON, or of Unicode
        raise ValueError(
            f"{path / INDEX}: expected JSON, got something else ({error}). {_REMEDY}."
        ) from error
    found = (index.get("format"), index.get("version")) if isinstance(index, dict) else (None, None)
    if found != (FORMAT, VERSION):
        raise ValueError(
            f"{path / INDEX}: expected format {FORMAT!r}, version {VERSION}, got {found[0]!r}, {found[1]!r}. "
            f"{_REMEDY}."
        )
    return index


def _open(
    path: Path, name: str, split: str, entry: Mapping[str, Any], class_names: tuple[str, ...]
) -> StoredSet:
    """Map the images of a split and read its labels."""
    shape = tuple(entry["shape"])
    images = _array(path / f"{split}-images.npy", "uint8", shape, mapped=True)
    labels = _array(path / f"{split}-labels.npy", "int64", shape[:1]) if entry["labels"] else None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable.*")  # nobody writes to these
        pixels = torch.from_numpy(images)
    classes = None if labels is None else torch.from_numpy(labels)
    return StoredSet(name, pixels, classes, class_names, entry["sha256"])


def _array(path: Path, dtype: str, shape: tuple[int, ...], mapped: bool = False) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: expected an array of the store, got no such file. {_REMEDY}."
        ) from None
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(
            f"{path}: expected {dtype} of shape {shape}, got a file that cannot be read ({error}). {_REMEDY}."
        ) from error
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(
            f"{path}: expected {dtype} of shape {shape}, got {array.dtype} of shape {array.shape}. {_REMEDY}."
        )
    if isinstance(array, np.memmap) and (size := array.offset + array.nbytes) != path.stat().st_size:
        raise ValueError(f"{path}: expected {size:,} bytes, got {path.stat().st_size:,}. {_REMEDY}.")
    return array
