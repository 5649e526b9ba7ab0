"""Compiles the engine once per machine and group, into the user's cache, where there is a C++ compiler."""

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from eqgan.files import atomic_write, cache_folder

log = logging.getLogger(__name__)

SOURCE = Path(__file__).parent / "source"
COMMON = (
    *("-std=c++17", "-O3", "-ffp-contract=fast", "-fPIC", "-pthread", "-Wno-psabi"),
    "-fno-tree-loop-distribute-patterns",  # rows are short: calls of memcpy would take longer than they do
)
ISAS = {
    "plain": (),
    "avx2": ("-mavx2", "-mfma"),
    "avx512": ("-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mavx2", "-mfma"),
}
ISAS["avx512_bf16"] = (*ISAS["avx512"], "-mavx512bf16")
_TIMEOUT = 600  # seconds; a minute on a loaded laptop
_lock = threading.Lock()


def load(header: str, extra: tuple[str, ...] = ()) -> ctypes.CDLL | None:
    """The engine for the group of this header, compiled if the cache does not hold it.

    Args:
        header: what ``emit.group_header`` wrote.
        extra: more flags, such as a sanitizer's.

    Returns:
        The library, or None (and one line in the log) where it cannot be had.
    """
    if sys.platform == "win32":
        return None  # written for pthreads
    try:
        with _lock:
            return ctypes.CDLL(str(_library(header, extra)))
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("no fast group convolution, filter banks serve instead: %s", _reason(error))
        return None


def _reason(error: Exception) -> str:
    output = getattr(error, "stderr", None)
    return f"{error}: {output.strip().splitlines()[-1]}" if output and output.strip() else str(error)


def isas() -> dict[str, tuple[str, ...]]:
    """The instruction sets compiled for this kind of machine, with their flags."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return ISAS if x86 else {"plain": ()}


def compiler() -> list[str]:
    """The C++ compiler: the environment variable CXX, perhaps with flags, else c++, g++ or clang++.

    Raises:
        FileNotFoundError: if there is none.
    """
    chosen = os.environ.get("CXX", "").strip()
    names = [chosen] if chosen else ["c++", "g++", "clang++"]
    for name in names:
        try:
            program, *flags = shlex.split(name)
        except ValueError as error:
            raise FileNotFoundError(
                f"expected a compiler and its flags in CXX, got {name} ({error})"
            ) from error
        if found := shutil.which(program):
            return [found, *flags]
    raise FileNotFoundError(f"expected a C++ compiler, found none of {', '.join(names)}; set CXX")


def _library(header: str, extra: tuple[str, ...]) -> Path:
    text = [header, *(path.read_text() for path in sorted(SOURCE.iterdir()) if path.suffix in (".h", ".cpp"))]
    text += [repr(COMMON), repr(isas()), repr(extra), platform.platform(), repr(platform.libc_ver())]
    key = hashlib.sha256("\0".join(text).encode()).hexdigest()[:16]
    target = cache_folder() / "engine" / f"group_convolution_{key}.so"
    if not _is_whole(target):
        command = compiler()
        target.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(target.with_suffix(".lock")):
            if not _is_whole(target):
                log.info("compiling the fast group convolution, once: %s", target)
                with atomic_write(target) as temporary:
                    _compile(command, header, extra, temporary)
                with atomic_write(_digest_of(target)) as temporary:
                    temporary.write_text(_digest(target))
    return target


def _is_whole(library: Path) -> bool:
    """Whether it is what was compiled: one that is damaged would end the process, not raise an error."""
    try:
        return _digest_of(library).read_text() == _digest(library)
    except (OSError, UnicodeDecodeError):
        return False


def _digest_of(library: Path) -> Path:
    return library.with_suffix(".sha256")


def _digest(library: Path) -> str:
    return hashlib.sha256(library.read_bytes()).hexdigest()


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Other processes wait; the lock falls with the process that holds it."""
    import fcntl

    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _compile(command: list[str], header: str, extra: tuple[str, ...], target: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "group.h").write_text(header)
        known = {name: flags for name, flags in isas().items() if _accepts(command, flags)}
        jobs = {"engine": [f"-DWITH_{name.upper()}" for name in known]}
        jobs |= {name: [f"-DKERNEL=kernel_{name}", *flags] for name, flags in known.items()}
        include = [f"-I{SOURCE}", f"-I{work}"]
        commands = [
            [*command, *COMMON, *extra, *flags, *include, "-c", _source(name), "-o", str(work / f"{name}.o")]
            for name, flags in jobs.items()
        ]
        with ThreadPoolExecutor() as pool:
            list(pool.map(_execute, commands))
        objects = [str(work / f"{name}.o") for name in jobs]
        _execute([*command, "-shared", "-pthread", *extra, *objects, "-o", str(target)])


def _accepts(command: list[str], flags: tuple[str, ...]) -> bool:
    """Whether this compiler knows the instruction set; an older one may not."""
    words = [*command, *flags, "-E", "-x", "c++", os.devnull]
    return subprocess.run(words, capture_output=True, timeout=_TIMEOUT).returncode == 0


def _source(job: str) -> str:
    return str(SOURCE / ("engine.cpp" if job == "engine" else "kernel.cpp"))


def _execute(words: list[str]) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT)
