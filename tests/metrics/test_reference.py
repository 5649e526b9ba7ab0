"""Reference statistics: what they hold, what the cache is keyed by, and what becomes of damaged files."""

import errno
import json
import logging
import os
import re
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from torch import nn

import eqgan.metrics.reference as reference_module
from eqgan.metrics import FeatureExtractor, FeatureStatistics, reference_statistics

COUNT = 40


class Counting(nn.Module):
    """The pixels, and how often they were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return images.flatten(1)


def images(rows: int = COUNT) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (rows, 1, 3, 3), generator=generator, dtype=torch.uint8)


@pytest.fixture
def extractor() -> FeatureExtractor:
    return FeatureExtractor.from_module(Counting(), "pixels")


@pytest.fixture
def compute(extractor, tmp_path):
    def function(source=None, **changes):
        arguments = {
            "data_name": "noise",
            "data_hash": "abc",
            "split": "train",
            "count": COUNT,
            "cache_dir": tmp_path / "cache",
            "extractor": extractor,
        }
        return reference_statistics(images() if source is None else source, **(arguments | changes))

    return function


def same(a, b) -> bool:
    return (
        torch.equal(a.statistics.mean, b.statistics.mean)
        and torch.equal(a.statistics.covariance, b.statistics.covariance)
        and a.statistics.count == b.statistics.count
        and torch.equal(a.features, b.features)
        and a.provenance == b.provenance
    )


def only_file(tmp_path):
    (path,) = (tmp_path / "cache").iterdir()
    return path


# --- what it holds ---


def test_statistics_and_provenance_are_those_of_the_images(compute, extractor):
    reference = compute()
    features = extractor.extract(images())
    expected = FeatureStatistics.from_features(features)
    torch.testing.assert_close(reference.statistics.covariance, expected.covariance, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(reference.statistics.mean, expected.mean, rtol=1e-12, atol=1e-12)
    assert torch.equal(reference.features, features)
    assert reference.provenance == {
        "version": reference_module.METRIC_VERSION,
        "data": {"name": "noise", "hash": "abc", "split": "train", "count": COUNT},
        "features": extractor.describe(),
        "rows": COUNT,
    }


def test_floats_in_range_are_the_same_as_bytes(compute):
    assert same(compute(images().float() / 127.5 - 1, cache_dir=None), compute(cache_dir=None))


@pytest.mark.parametrize("size", [1, 7, 40])
def test_batches_from_an_iterable_give_the_same(compute, size):
    batches = ((batch, torch.zeros(len(batch))) for batch in images().split(size))  # as a loader yields them
    by_batches, whole = compute(batches, cache_dir=None), compute(cache_dir=None)
    assert torch.equal(by_batches.features, whole.features)
    torch.testing.assert_close(
        by_batches.statistics.covariance, whole.statistics.covariance, rtol=1e-12, atol=0
    )


def test_fewer_rows_are_a_fixed_draw_from_the_whole_set(compute, extractor):
    all_rows = extractor.extract(images())
    some = compute(neighbours=10)
    positions = [int((all_rows == row).all(dim=1).nonzero()) for row in some.features]
    assert len(set(positions)) == 10
    assert positions == sorted(positions)
    assert positions[-1] >= 10  # not simply the first ten
    assert same(some, compute(neighbours=10, cache_dir=None))
    part = compute(count=10, cache_dir=None)
    assert torch.equal(part.features, some.features)  # the same draw for a part of the images
    assert part.statistics.count == 10


# --- the cache ---


def test_the_second_time_nothing_is_computed(compute, extractor):
    first = compute()
    calls = extractor.module.calls

    def untouched():
        raise AssertionError("the images were read")
        yield

    assert same(compute(untouched()), first)
    assert extractor.module.calls == calls


def linear_extractor(seed: int, **attributes) -> FeatureExtractor:
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Flatten(), nn.Linear(9, 4))
    for name, value in attributes.items():
        setattr(module, name, value)
    return FeatureExtractor.from_module(module, "linear")


@pytest.mark.parametrize(
    "changes",
    [
        {"data_name": "other"},
        {"data_hash": "abd"},
        {"split": "test"},
        {"count": COUNT - 1},
        {"neighbours": 5},
        {"extractor": linear_extractor(1)},
        {"extractor": linear_extractor(0, in_channels=1)},
        {"extractor": linear_extractor(0, image_size=3)},
        {"extractor": replace(linear_extractor(0), name="renamed")},
    ],
    ids=["name", "hash", "split", "count", "rows", "weights", "channels", "resize", "network name"],
)
def test_whatever_it_depends_on_is_in_the_key(compute, tmp_path, changes):
    compute(extractor=linear_extractor(0))
    compute(extractor=linear_extractor(0))
    assert len(list((tmp_path / "cache").iterdir())) == 1
    compute(**({"extractor": linear_extractor(0)} | changes))
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_the_version_of_the_metric_is_in_the_key(compute, tmp_path, monkeypatch):
    compute()
    monkeypatch.setattr(reference_module, "METRIC_VERSION", 2)
    compute()
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_the_file_is_named_after_a_hash_and_says_what_it_holds(compute, tmp_path):
    reference = compute()
    path = only_file(tmp_path)
    assert re.fullmatch(r"reference-[0-9a-f]{64}\.safetensors", path.name)
    with safe_open(path, framework="pt") as file:
        record = json.loads(file.metadata()["provenance"])
    assert record.pop("content_sha256")
    assert record == reference.provenance


# --- files gone wrong ---


def truncate(path):
    path.write_bytes(path.read_bytes()[:-50])


def flip_a_bit_of_the_numbers(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


def other_provenance(path):
    rewrite(path, lambda tensors, metadata: metadata.update(provenance='{"data":"another"}'))


def no_metadata(path):
    rewrite(path, lambda tensors, metadata: metadata.clear())


def a_tensor_is_missing(path):
    rewrite(path, lambda tensors, metadata: tensors.pop("mean"))


def no_numbers(path):
    def change(tensors, metadata):
        tensors["covariance"].fill_(float("nan"))
        provenance = json.loads(metadata["provenance"])
        del provenance["content_sha256"]
        metadata.update(reference_module._metadata(provenance, tensors))  # hash and all

    rewrite(path, change)


def a_folder(path):
    path.unlink()
    path.mkdir()


def rewrite(path, change):
    with safe_open(path, framework="pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    tensors = {name: value.clone() for name, value in tensors.items()}
    change(tensors, metadata)
    path.write_bytes(safetensors.torch.save(tensors, metadata))


DAMAGE = [
    truncate,
    flip_a_bit_of_the_numbers,
    empty,
    other_provenance,
    no_metadata,
    a_tensor_is_missing,
    no_numbers,
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_computed_again_and_replaced(compute, extractor, tmp_path, caplog, damage):
    first = compute()
    path, calls = only_file(tmp_path), extractor.module.calls
    good = path.read_bytes()
    damage(path)
    assert path.read_bytes() != good
    with caplog.at_level(logging.WARNING, "eqgan"):
        again = compute()
    assert same(again, first)
    assert extractor.module.calls > calls
    (message,) = caplog.messages
    assert "computing them again" in message
    assert path.name in message
    assert path.read_bytes() == good
    caplog.clear()
    compute()
    assert not caplog.messages


def test_a_cache_that_cannot_even_be_replaced_is_only_reported(compute, tmp_path, caplog):
    first = compute()
    a_folder(only_file(tmp_path))
    assert same(compute(), first)
    assert len(caplog.messages) == 2  # cannot be read, cannot be kept


def test_a_full_disk_leaves_the_old_file_and_the_result(compute, tmp_path, monkeypatch, caplog):
    first = compute()
    path = only_file(tmp_path)
    empty(path)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    assert same(compute(), first)
    assert "No space left on device" in caplog.messages[-1]
    assert path.read_bytes() == b""  # what was there before, not half of something new
    assert only_file(tmp_path) == path  # and no leftovers
    monkeypatch.undo()
    compute()
    assert path.stat().st_size > 0


def test_a_cache_folder_that_is_a_file_is_only_reported(compute, tmp_path, caplog):
    (tmp_path / "cache").write_text("not a folder")
    assert compute().statistics.count == COUNT
    assert "going on without" in caplog.messages[-1]
    assert (tmp_path / "cache").read_text() == "not a folder"


def test_no_cache_folder_no_file(compute, tmp_path):
    compute(cache_dir=None)
    assert not list(tmp_path.iterdir())


# --- bad input ---


@pytest.mark.parametrize(
    ("source", "count", "message"),
    [
        (images(), 41, "there are 40 images. Pass count=40 or less"),
        (images(), 1, "count=1"),
        (list(images().split(10)), 39, "there are more images"),
        (list(images().split(10)), 41, "only 40 images"),
        ([], 10, "only 0 images"),
        (images().float(), 40, r"lie in \[.*255\], expected \[-1, 1\]"),
        (images().float() / 0, 40, "expected"),
        (images().long(), 40, "uint8"),
    ],
)
def test_images_that_do_not_fit_are_named_and_nothing_is_kept(compute, tmp_path, source, count, message):
    with pytest.raises(ValueError, match=message):
        compute(source, count=count)
    assert not (tmp_path / "cache").exists()
