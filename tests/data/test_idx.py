import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from eqgan.data.idx import parse_idx, read_idx
from tests.data.conftest import idx_bytes

ARRAY = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_reads_what_was_written(compress, tmp_path: Path) -> None:
    path = tmp_path / "name-says-nothing"
    path.write_bytes(compress(idx_bytes(ARRAY)))
    result = read_idx(path)
    assert result.dtype == np.uint8
    assert np.array_equal(result, ARRAY)
    result += 1  # a copy of its own, writable


@pytest.mark.parametrize(
    ("code", "kind"), [(0x08, "u1"), (0x09, "i1"), (0x0B, "i2"), (0x0C, "i4"), (0x0D, "f4"), (0x0E, "f8")]
)
def test_every_type_of_the_format(code: int, kind: str) -> None:
    values = np.array([1, 2, 100], dtype=">" + kind)
    result = parse_idx(bytes([0, 0, code, 1]) + struct.pack(">I", 3) + values.tobytes())
    assert result.dtype == np.dtype(kind)
    assert result.tolist() == [1, 2, 100]


CONTENT = idx_bytes(ARRAY)
COMPRESSED = gzip.compress(CONTENT)
FAULTS = {
    "truncated": (CONTENT[:-3], "truncated.*40 bytes, got 37"),
    "truncated-header": (CONTENT[:7], "truncated.*16 bytes, got 7"),
    "trailing": (CONTENT + b"!", "trailing.*40 bytes, got 41"),
    "empty": (b"", "not an IDX file.*an empty file"),
    "magic": (b"\x89PNG" + CONTENT, "not an IDX file.*89 50 4e 47"),
    "type": (b"\0\0\x07\x03" + CONTENT[4:], "not an IDX file.*00 00 07 03"),
    "no-axes": (b"\0\0\x08\0", "not an IDX file"),
    "gzip-truncated": (COMPRESSED[:-5], f"broken gzip file of {len(COMPRESSED) - 5} bytes"),
    "gzip-damaged": (COMPRESSED[:14] + b"\xff\xff\xff" + COMPRESSED[17:], "broken gzip file"),
    "gzip-checksum": (COMPRESSED[:-8] + b"\0\0\0\0" + COMPRESSED[-4:], "broken gzip file"),
    "gzip-inside-truncated": (gzip.compress(CONTENT[:-3]), "truncated.*40 bytes, got 37"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_broken_files_are_named(fault: str, tmp_path: Path) -> None:
    content, message = FAULTS[fault]
    path = tmp_path / "images.idx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"images\.idx: .*{message}.*Delete it"):
        read_idx(path)
