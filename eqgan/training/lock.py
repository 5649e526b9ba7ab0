"""One process writes a run: a lock that the system itself lets go when its holder dies."""

import fcntl
import json
import logging
import os
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from eqgan.files import make_folder

log = logging.getLogger("eqgan")


class RunLock:
    """The right to write one run, held by one process at a time; a context that takes it and lets go.

    The file holds who took it. The lock itself is the system's (flock): it ends with its process, however
    that ends, so that a file which is left behind by a killed process stands in nobody's way.

    Args:
        path: of the lock file; its folder is made if need be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def acquire(self) -> "RunLock":
        """Takes the lock, with a line in the log if a dead process left it behind; nothing if it is held.

        Raises:
            BlockingIOError: if another process holds it; the message says which.
            OSError: if its folder cannot be made.
        """
        while not self.held:
            make_folder(self.path.parent, "Choose another --log_dir.")
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                self._take(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            if _is_still(self.path, descriptor):
                self._descriptor = descriptor
            else:
                os.close(descriptor)  # its holder let go, and removed the file, just now
        return self

    def _take(self, descriptor: int) -> None:
        holder = _read(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(
                f"another process writes this run: {_told(holder)} ({self.path}). "
                "Wait for it to end, stop it, or choose another --name"
            ) from None
        holder = _read(descriptor)
        if holder and _is_still(self.path, descriptor):
            log.warning(
                "%s left this run behind without ending it: taking over (%s)", _told(holder), self.path
            )
        mine = {"process": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T")}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(mine).encode(), 0)

    def release(self) -> None:
        """Lets go and removes the file; nothing if the lock is not held."""
        if self._descriptor is not None:
            self.path.unlink(missing_ok=True)  # first: whoever opens it now waits in vain, and looks again
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> "RunLock":
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class NoLock:
    """The lock of a process that trains a run with others: the first of them holds the real one."""

    held = True

    def acquire(self) -> "NoLock":
        """Nothing."""
        return self

    def release(self) -> None:
        """Nothing."""

    def __enter__(self) -> "NoLock":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether the file that was opened is the one that lies there now."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _read(descriptor: int) -> dict[str, Any]:
    try:
        return dict(json.loads(os.pread(descriptor, 10_000, 0)))
    except (ValueError, TypeError):
        return {}


def _told(holder: dict[str, Any]) -> str:
    if not holder:
        return "one that has only just begun"
    return f"process {holder.get('process')} on {holder.get('host')}, since {holder.get('since')}"
