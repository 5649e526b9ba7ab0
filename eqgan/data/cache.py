"""Where data sets are looked for, and where derived files (rotated images, ...) are kept between runs."""

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Return the cache folder: the environment variable EQGAN_CACHE, else the system's place for caches.

    The folder need not exist yet. Everything in it can be derived again, so it may be deleted at any time.

    >>> reference_statistics = cache_folder() / "fid"
    """
    return Path(os.environ.get("EQGAN_CACHE") or platformdirs.user_cache_dir("eqgan")).expanduser()


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """Return the data root: the argument, else the environment variable EQGAN_DATA, else `data`."""
    return Path(root or os.environ.get("EQGAN_DATA") or "data").expanduser()
