"""Where data sets are looked for, and where derived files (rotated images, ...) are kept between runs."""

import os
from pathlib import Path

from eqgan.files import cache_folder

__all__ = ["cache_folder", "data_root"]


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """Return the data root: the argument, else the environment variable EQGAN_DATA, else `data`."""
    return Path(root or os.environ.get("EQGAN_DATA") or "data").expanduser()
