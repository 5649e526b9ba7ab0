"""The IDX format of the MNIST files: a magic number, the sizes, then the values in big-endian order."""

import gzip
import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_REMEDY = "Delete it and fetch it again, or copy it from an intact source"


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an IDX file, plain or gzipped (recognised by its content, not by its name).

    Args:
        path: the file.

    Returns:
        The array, in the native byte order, of the shape and type that the file's header states.

    Raises:
        ValueError: wrong magic number, too few or too many bytes, or broken compression.
        OSError: the file cannot be read.
    """
    return parse_idx(read_bytes(path), path)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a file, uncompressed if it is gzipped.

    Raises:
        ValueError: the compressed data are broken or end early.
    """
    content = Path(path).read_bytes()
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(
            f"{path}: broken gzip file of {len(content):,} bytes ({error}); expected a whole one. {_REMEDY}."
        ) from error


def parse_idx(content: bytes, path: str | os.PathLike[str] = "IDX data") -> np.ndarray:
    """Turn the uncompressed content of an IDX file into an array; `path` is only named in errors.

    Raises:
        ValueError: wrong magic number, too few or too many bytes.

    >>> parse_idx(bytes([0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 3, 7, 8, 9]))
    array([[7, 8, 9]], dtype=uint8)
    """
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _DTYPES or content[3] == 0:
        raise ValueError(
            f"{path}: not an IDX file: expected the first four bytes 00 00, a type of "
            f"{sorted(f'{code:02x}' for code in _DTYPES)}, and the number of axes, "
            f"got {content[:4].hex(' ') or 'an empty file'}. {_REMEDY}."
        )
    dtype, axes = np.dtype(_DTYPES[content[2]]), content[3]
    header = 4 + 4 * axes
    if len(content) < header:
        raise _wrong_length(path, header, len(content))
    shape = struct.unpack(f">{axes}I", content[4:header])
    expected = header + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise _wrong_length(path, expected, len(content))
    return np.frombuffer(content, dtype, offset=header).reshape(shape).astype(dtype.newbyteorder("="))


def _wrong_length(path: str | os.PathLike[str], expected: int, got: int) -> ValueError:
    fault = "truncated" if got < expected else "trailing bytes"
    return ValueError(
        f"{path}: {fault}: its header announces {expected:,} bytes, got {got:,} (uncompressed). {_REMEDY}."
    )
