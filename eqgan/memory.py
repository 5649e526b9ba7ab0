"""What a program can ask of the C library's allocator at its start."""

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # malloc.h
_LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Asks glibc to keep freed memory for the next allocation instead of giving it back to the system.

    By default every block above 32 MiB, and many a smaller one, is mapped afresh, and the first touch of each
    of its pages is a fault that the kernel answers with zeros: for the large, short-lived activations of a
    convolution on the CPU that costs as much as the convolution. The price is that the process stays as large
    as it once was. ``EQGAN_MALLOC=default`` leaves the allocator alone; so does another C library than glibc.

    Returns:
        Whether the allocator took it.
    """
    if sys.platform != "linux" or os.environ.get("EQGAN_MALLOC") == "default":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, _LARGEST_INT))
