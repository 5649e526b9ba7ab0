"""Two processes never write one run, and a dead one stands in nobody's way."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eqgan.training.folder import RunFolder
from eqgan.training.lock import RunLock
from tests.training.runs import TINY, refused

HOLD = """
import sys, time
from pathlib import Path
from eqgan.training.lock import RunLock
RunLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "logs" / ".mine.lock"


@pytest.fixture
def other(path):
    """Another process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_one_at_a_time(path, other):
    with pytest.raises(BlockingIOError, match=f"another process writes this run: process {other.pid} on"):
        RunLock(path).acquire()
    assert path.exists()


def test_a_killed_process_is_taken_over_from(path, other, caplog):
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    assert path.exists(), "nobody removed it"
    with caplog.at_level(logging.WARNING), RunLock(path) as lock:
        assert lock.held
    assert [r.getMessage() for r in caplog.records if f"process {other.pid} on" in r.getMessage()]
    assert "left this run behind without ending it: taking over" in caplog.text
    assert not path.exists()


def test_who_ends_leaves_nothing_behind(path, caplog):
    lock = RunLock(path)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            with lock, lock.acquire():  # taking it twice is taking it once
                assert path.exists()
            assert not lock.held
            assert not path.exists()
        lock.release()
    assert not caplog.records


def test_two_locks_of_one_process_exclude_each_other_too(path):
    with RunLock(path), pytest.raises(BlockingIOError, match=f"process {os.getpid()} on"):
        RunLock(path).acquire()


def test_a_file_that_was_removed_meanwhile_is_not_the_lock(path, monkeypatch):
    """Its holder lets go between our opening and our locking: what we locked lies nowhere, so look again."""
    first = RunLock(path).acquire()
    take, seen = RunLock._take, []

    def slow(self, descriptor):
        if not seen:
            first.release()
        seen.append(descriptor)
        take(self, descriptor)

    monkeypatch.setattr(RunLock, "_take", slow)
    with RunLock(path) as lock:
        assert len(seen) == 2
        assert os.path.samestat(os.stat(path), os.fstat(lock._descriptor))


def test_a_damaged_file_is_no_obstacle(path, caplog):
    path.parent.mkdir()
    path.write_bytes(b"\xff\x00 no JSON")
    with caplog.at_level(logging.WARNING), RunLock(path):
        pass
    assert not caplog.records


# --- with runs --------------------------------------------------------------------------------------------


@pytest.fixture
def training(place):
    """A run in another process, past its first epoch."""
    words = place.argv("--name", "mine", "--epochs", "500", evaluation__samples=16)
    code = "import sys; from eqgan.cli import train_gan; train_gan(sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not place.last("mine").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    yield process
    process.kill()
    process.wait()


def test_a_run_that_is_written_is_not_written_by_another(place, training, capsys, caplog):
    """Not resumed, not overwritten; after kill -9 it goes on where it was."""
    for act in (
        lambda: place.resume("mine", "--epochs", "600"),
        lambda: place.train("--name", "mine", "--epochs", "1", "--overwrite"),
    ):
        with pytest.raises(SystemExit):
            act()
        err = capsys.readouterr().err
        assert f"another process writes this run: process {training.pid}" in err
        assert err.count("\n") == 1
    assert training.poll() is None
    training.kill()
    training.wait()
    behind = len(place.rows("mine"))
    with caplog.at_level(logging.WARNING):
        summary = place.resume("mine", "--epochs", str(behind + 1))
    assert f"process {training.pid} on" in caplog.text
    assert summary["epochs"] == behind + 1
    assert not RunFolder("mine", place.root / "logs").lock.exists()


def test_what_cannot_start_leaves_no_lock(place, capsys):
    refused(place, lambda: place.train("--name", "mine", "--evaluation.reference", "nosplit"), capsys)
    assert not list(place.root.rglob(".*.lock"))
    place.train("--name", "mine", "--epochs", "1", "--trainer.limit_train_batches", "1")
    assert not list(place.root.rglob(".*.lock"))
    assert TINY["data"] == "digits"
    assert Path(place.logs("mine")).is_dir()
