"""Where derived files (rotated images, reference statistics) are kept between runs."""

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Return the cache folder: the environment variable EQGAN_CACHE, else the system's place for caches.

    The folder need not exist yet. Everything in it can be derived again, so it may be deleted at any time.

    >>> reference_statistics = cache_folder() / "fid"
    """
    return Path(os.environ.get("EQGAN_CACHE") or platformdirs.user_cache_dir("eqgan")).expanduser()
