"""Files that are either written whole or not at all, and where those that can be derived are kept."""

import os
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import platformdirs


def cache_folder() -> Path:
    """Return the cache folder: the environment variable EQGAN_CACHE, else the system's place for caches.

    The folder need not exist yet. Everything in it can be derived again, so it may be deleted at any time.

    >>> reference_statistics = cache_folder() / "fid"
    """
    return Path(os.environ.get("EQGAN_CACHE") or platformdirs.user_cache_dir("eqgan")).expanduser()


def make_folder(path: Path, remedy: str) -> None:
    """Make a folder, and those that it lies in, where they are not there yet.

    Raises:
        OSError: it cannot be made; says why not, and the remedy.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"expected a folder that can be made, got {error.strerror!r} for {error.filename}. {remedy}"
        ) from error


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed to the disk and takes its place.

    Whatever goes wrong before that removes the temporary file and leaves an earlier `path` as it was.

    Args:
        path: the file to write; missing parent folders are made.

    Yields:
        A path in the same folder with the same suffix, to be written (and closed) in the body.

    Raises:
        OSError: the disk is full, the folder cannot be written, ...; the message names `path`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_write(Path(folder) / "note.txt") as temporary:
    ...         _ = temporary.write_text("whole")
    ...     [(p.name, p.read_text()) for p in Path(folder).iterdir()]
    [('note.txt', 'whole')]
    """
    target = Path(path)
    temporary = target.with_name(f".{target.stem}.{uuid.uuid4().hex[:8]}.tmp{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        os.replace(temporary, target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(
            error.errno,
            f"could not write {target}: {reason}. An earlier file of that name is unchanged. "
            "Free some space, or choose a folder that can be written",
        ) from error
    finally:
        with suppress(OSError):  # gone already, or its folder was never there
            temporary.unlink()


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read every array of an .npz file, without unpickling anything.

    Raises:
        ValueError: whatever is wrong with the file; the message names it.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path}: expected an .npz file of plain arrays, got one that cannot be read ({error}). "
            "Write it again with numpy.savez, without object arrays."
        ) from error


def _flush(path: Path) -> None:
    """Wait until the content of `path` is on the disk: a rename before that may survive a crash alone."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
