import hashlib
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from eqgan.data.lensing import simulator, source
from eqgan.data.lensing.priors import TASKS
from eqgan.data.lensing.simulator import simulate
from eqgan.data.sources import open_source
from eqgan.files import cache_folder


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine training and five test lenses, whose hash passes for the published one."""
    monkeypatch.setattr(simulator, "BLOCK", 4)
    monkeypatch.setattr(source, "COUNTS", {"train": 9, "test": 5})
    monkeypatch.setitem(source.LENS_SHA256, "lens3", source._make(TASKS["lens3"]).sha256)


def _cached() -> Path:
    (path,) = cache_folder().iterdir()
    return path


@pytest.mark.usefixtures("small")
def test_made_once_then_read(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    with caplog.at_level(logging.WARNING, "eqgan"):
        made = open_source("lens3")
    assert [record.getMessage() for record in caplog.records] == ["Simulating 14 lenses for 'lens3', once."]
    monkeypatch.setattr(source, "simulate", None)
    read = open_source("lens3")
    assert len(caplog.records) == 1
    assert (read.sha256, read.name) == (made.sha256, "lens3")
    for split, count in (("train", 9), ("test", 5)):
        assert len(read.split(split)) == count
        assert torch.equal(read.split(split).images, made.split(split).images)
        assert read.split(split).class_names == ("no", "sphere", "vortex")
    assert list(read.test_sets()) == ["lens3", "lens3-rotated"]
    assert open_source("lens3", size=33).split("test").images.shape == (5, 1, 33, 33)


@pytest.mark.usefixtures("small")
def test_train_and_test_are_different_lenses() -> None:
    opened = open_source("lens3")
    images = torch.cat([images for images, _ in simulate(TASKS["lens3"], 14, source.SEED)])
    assert torch.equal(torch.cat([opened.split("train").images, opened.split("test").images]), images)
    assert opened.split("test").labels.tolist() == [0, 1, 2, 0, 1]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("damage", ["truncated", "another value", "no labels"])
def test_a_damaged_cache_is_made_again(damage: str, caplog: pytest.LogCaptureFixture) -> None:
    expected = open_source("lens3").sha256
    path = _cached()
    arrays = dict(np.load(path))
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "another value":
        arrays["x_test"][0, 0, 3, 3] ^= 1
        np.savez(path, **arrays)
    else:
        del arrays["y_train"]
        np.savez(path, **arrays)
    with caplog.at_level(logging.WARNING, "eqgan"):
        assert open_source("lens3").sha256 == expected
    assert "damaged, making them again" in caplog.text
    assert str(np.load(path)["sha256"]) == expected


@pytest.mark.usefixtures("small")
def test_other_bits_are_told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(source.LENS_SHA256, "lens3", "0" * 64)
    with caplog.at_level(logging.WARNING, "eqgan"):
        made = open_source("lens3")
    assert f"SHA-256 {made.sha256}, expected {'0' * 64}" in caplog.text


@pytest.mark.usefixtures("small")
def test_a_run_goes_on_without_a_cache(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EQGAN_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING, "eqgan"):
        assert len(open_source("lens3").split("train")) == 9
    assert "not cached" in caplog.text


FIRST_SHA256 = {
    "lens": "7f89964c5db80c406ee5bd0b4e46f8e5b6489cd2dcf76b526076d3b64975ad16",
    "lens3": "78e3e56168f169e5157f08e5abb44eb6e9e2dd14b36a19d2c684a9877d400816",
}


@pytest.mark.parametrize("task", TASKS)
def test_the_first_lenses_are_those_of_the_published_sets(task: str) -> None:
    """Whoever changes the simulator has to publish new sets, under new hashes."""
    images, labels = next(simulate(TASKS[task], 16, source.SEED))
    assert (
        hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes()).hexdigest() == FIRST_SHA256[task]
    )
