import errno
import os
from pathlib import Path

import pytest

from eqgan.files import atomic_write


def _write(target: Path, text: str, error: BaseException | None = None) -> None:
    with atomic_write(target) as temporary:
        temporary.write_text(text)
        if error is not None:
            raise error


def test_replaces_the_earlier_file(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file.txt"
    for text in ("first", "second"):
        with atomic_write(target) as temporary:
            assert temporary.parent == target.parent
            assert temporary.suffix == ".txt"
            temporary.write_text(text)
        assert target.read_text() == text
        assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_disk_leaves_the_earlier_file(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "file.txt"
    target.write_text("earlier")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match=r"could not write .*file\.txt: No space left.*unchanged") as caught:
        _write(target, "new")
    assert caught.value.errno == errno.ENOSPC
    assert target.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [target]


def test_full_disk_during_the_writing_itself(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("earlier")
    with pytest.raises(OSError, match="could not write"):
        _write(target, "ne", OSError(errno.ENOSPC, "No space left on device"))
    assert target.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [target]


def test_other_errors_pass_through_and_leave_the_earlier_file(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("earlier")
    with pytest.raises(KeyboardInterrupt):
        _write(target, "ne", KeyboardInterrupt())
    assert target.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [target]


def test_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="could not write"):
        _write(tmp_path / "file" / "below", "")
