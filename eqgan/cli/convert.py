"""`eqgan convert SOURCE STORE`: a set of images on the disk, for training without loading it whole."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from eqgan.cli.command import CommandParser, as_json, run_command, whole
from eqgan.data import convert as streams
from eqgan.data.lensing import TASKS
from eqgan.data.lensing.source import SEED
from eqgan.data.sources import open_source
from eqgan.data.store import is_store, read_store, verify_store, write_store

EXAMPLES = """\
  eqgan convert images.npy images.store --labels labels.npy     an array, however large
  eqgan convert a.npy a.store --labels b.npy --test c.npy --test-labels d.npy
  eqgan convert photos/ photos.store --size 128                 a folder, classes as sub-folders
  eqgan convert lens lenses.store --count 200000                simulated lenses
  eqgan convert images.store --verify                           read it all and compare the hashes
  eqgan classify --data images.store                            use it"""


def convert(argv: Sequence[str] | None = None) -> None:
    """Writes a store, or verifies one."""
    run_command(_parser(), _convert, argv)


def _parser() -> CommandParser:
    parser = CommandParser(
        "convert",
        "Write images into one store on the disk that is trained on without loading it whole.",
        EXAMPLES,
    )
    add = parser.add_argument
    add(
        "source",
        help=f"an .npy file, a folder of images, {' or '.join(TASKS)}, or what --data takes elsewhere",
    )
    add("store", nargs="?", type=Path, help="the folder to make, such as images.store")
    add("--labels", type=Path, help="an .npy file of whole numbers, one per image of an .npy file")
    add("--test", type=Path, help="an .npy file of test images")
    add("--test-labels", type=Path, help="theirs")
    add("--size", type=whole(1), help="resize every image to N x N")
    add("--count", type=whole(1), help="simulated lenses for training; a fifth as many again for tests")
    add("--seed", type=whole(0), default=SEED, help=f"of simulated lenses (default {SEED})")
    add("--name", help="of the set in records; by default that of the store's folder")
    add("--data-root", help="where named sets lie; else EQGAN_DATA, else data/")
    add("--overwrite", action="store_true", help="replace a store")
    add("--verify", action="store_true", help="read a whole store and compare it with its hashes")
    return parser


def _convert(options: argparse.Namespace) -> None:
    if options.verify:
        path = options.store or Path(options.source)
        verify_store(path)
    else:
        path = _checked(options)
        split_streams, classes = streams.with_progress(_streams(options), _tell)
        write_store(path, options.name or path.stem, split_streams, classes, options.overwrite)
    source = read_store(path)
    sizes = {split: len(images) for split, images in source.sets.items()}
    if options.json:
        told = {"store": str(path), "name": source.name, "sha256": source.sha256, "images": sizes}
        print(as_json(told))
        return
    told = ", ".join(f"{count:,} {split}" for split, count in sizes.items())
    print(f"{path}: {told}; SHA-256 {source.sha256}{' (verified)' if options.verify else ''}")


def _checked(options: argparse.Namespace) -> Path:
    """The store to make, before anything is read.

    Raises:
        ValueError: for none, or options that do not go with the source.
    """
    if options.store is None:
        raise ValueError("expected SOURCE and STORE, got no STORE; try images.store")
    if options.count is not None and options.source not in TASKS:
        raise ValueError(f"--count goes with {' and '.join(TASKS)}, not with {options.source}")
    of_arrays = {"--labels": options.labels, "--test": options.test, "--test-labels": options.test_labels}
    given = [name for name, value in of_arrays.items() if value is not None]
    if given and Path(options.source).suffix != ".npy":
        raise ValueError(
            f"{given[0]} goes with an .npy file; a folder has its classes in the names of sub-folders, and "
            "its test images in test/"
        )
    if options.test_labels is not None and options.test is None:
        raise ValueError("--test-labels: there are no test images to label; name them with --test")
    if options.source in TASKS and options.size is not None:
        raise ValueError("--size: simulated lenses are not resized")
    return options.store


def _streams(options: argparse.Namespace) -> streams.Streams:
    path = Path(options.source).expanduser()
    if options.source in TASKS and options.count is not None:
        return streams.from_simulator(options.source, options.count, options.count // 5, options.seed)
    if path.suffix == ".npy":
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        files = {"train": (path, options.labels)}
        files |= {} if options.test is None else {"test": (options.test, options.test_labels)}
        return streams.from_arrays(files, options.size)
    if path.is_dir() and not is_store(path):
        return streams.from_folder(path, options.size)
    return streams.from_source(open_source(options.source, options.data_root, options.size))


def _tell(split: str, done: int, count: int) -> None:
    """How far it is, on one line of a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{split}: {done:,} of {count:,}{chr(10) if done == count else ''}")
