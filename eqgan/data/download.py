"""Downloads by torchvision that leave whole files or none."""

import http.client
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_TIMEOUT = 10.0  # seconds without an answer until a download counts as failed


def download(root: Path, dataset: str, names: Sequence[str]) -> str:
    """Try to download a data set of torchvision.

    Downloaded to a temporary folder first: an interrupted download must not leave half a file to be found.

    Args:
        root: the data root, made if need be.
        dataset: name of the class in torchvision.datasets.
        names: files and folders, relative to the root, that the download makes and that are kept.

    Returns:
        What went wrong, or an empty string.
    """
    from torchvision import datasets  # slow to import, needed once in a lifetime

    existed = root.exists()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as folder, _socket_timeout(_TIMEOUT):
            getattr(datasets, dataset)(folder, download=True)
            for name in names:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(Path(folder) / name, root / name)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        if not existed:
            with suppress(OSError):
                root.rmdir()
        return f"the download by torchvision failed ({' '.join(str(error).split())})"
    return ""


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
