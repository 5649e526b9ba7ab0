"""Where data sets are looked for."""

import os
from pathlib import Path


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """Return the data root: the argument, else the environment variable EQGAN_DATA, else `data`."""
    return Path(root or os.environ.get("EQGAN_DATA") or "data").expanduser()
