import hashlib
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from eqgan.cli.classify import classify
from eqgan.data import stored
from eqgan.data.imageset import ImageSet
from eqgan.data.loader import TensorLoader
from eqgan.data.module import ImageData
from eqgan.data.sources import open_source
from eqgan.data.store import Stream, read_store, verify_store, write_store
from eqgan.data.stored import StoredSet, StoreLoader
from tests.complaints import complaint_of

COUNT = 50
PIXELS = np.random.RandomState(0).randint(0, 256, (COUNT, 1, 4, 4)).astype(np.uint8)
PIXELS[:, 0, 0, 0] = np.arange(COUNT)  # so that images tell who they are
LABELS = np.arange(COUNT) % 3


def _stream(count: int = COUNT, labelled: bool = True, step: int = 7) -> Stream:
    starts = range(0, count, step)
    blocks = [(PIXELS[i : i + step], LABELS[i : i + step] if labelled else None) for i in starts]
    return Stream(count, (1, 4, 4), blocks, labelled)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    streams = {"train": _stream(), "test": Stream(9, (1, 4, 4), [(PIXELS[:9], LABELS[:9])], True)}
    write_store(tmp_path / "cells.store", "cells", streams, ("a", "b", "c"))
    return tmp_path / "cells.store"


def _numbers(loader: object) -> list[int]:
    return [n for image, _ in loader for n in ((image[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()]


def test_what_is_written_is_read(path: Path) -> None:
    source = open_source(str(path))
    train = source.split("train")
    assert (source.name, source.splits) == ("cells", ("train", "test"))
    assert isinstance(train, ImageSet)
    assert np.array_equal(train.images, PIXELS)
    assert train.labels.tolist() == LABELS.tolist()
    assert (train.class_names, train.angles, len(train)) == (("a", "b", "c"), None, COUNT)
    same = ImageSet.of("cells", torch.from_numpy(PIXELS), torch.from_numpy(LABELS))
    assert train.sha256 == same.sha256  # the hash of the data, wherever they lie
    assert {file.name for file in path.iterdir()} == {
        "index.json",
        *(f"{split}-{kind}.npy" for split in ("train", "test") for kind in ("images", "labels")),
    }
    verify_store(path)


def test_without_labels(tmp_path: Path) -> None:
    write_store(tmp_path / "x.store", "x", {"train": _stream(labelled=False)}, ())
    train = read_store(tmp_path / "x.store").split("train")
    assert train.labels is None
    assert train.subset(torch.tensor([1, 2])).labels is None
    assert all(not label.any() for _, label in train.loader(8))
    verify_store(tmp_path / "x.store")


def test_some_rows_are_kept_as_indices(path: Path) -> None:
    train = read_store(path).split("train")
    some = train.subset(torch.tensor([5, 3, 40])).subset(torch.tensor([2, 0]))
    assert isinstance(some, StoredSet)
    assert some.images[:, 0, 0, 0].tolist() == some.head(9)[:, 0, 0, 0].tolist() == [40, 5]
    assert some.head(1)[:, 0, 0, 0].tolist() == [40]
    assert (some.labels.tolist(), len(some), some.image_shape) == ([1, 2], 2, (1, 4, 4))
    assert len({train.sha256, some.sha256, train.subset(torch.tensor([40, 3])).sha256}) == 3
    assert _numbers(some.loader(1, shuffle=False)) == [40, 5]


def test_a_run_takes_a_store_like_any_other_source(path: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "cells.npz", x_train=PIXELS, y_train=LABELS, x_test=PIXELS[:9], y_test=LABELS[:9])
    options = {"batch_size": 4, "fraction": 0.5, "validation_fraction": 0.2, "seed": 3}
    disk, memory = ImageData(str(path), **options), ImageData(str(tmp_path / "cells.npz"), **options)
    disk.setup()
    memory.setup()
    assert (disk.name, disk.image_shape, disk.num_classes) == (memory.name, memory.image_shape, 3)
    for part in ("train", "validation"):
        assert torch.equal(getattr(disk, part).images, getattr(memory, part).images)
    assert isinstance(disk.train, StoredSet)
    assert isinstance(disk.train_dataloader(), StoreLoader)
    assert sorted(_numbers(disk.train_dataloader())) == sorted(set(_numbers(disk.train_dataloader())))
    assert set(_numbers(disk.train_dataloader())) <= set(disk.train.images[:, 0, 0, 0].tolist())
    assert disk.sha256 == memory.sha256
    assert list(disk.test_sets()) == ["cells"]


@pytest.mark.parametrize("kind", ["whole", "rows"])
def test_batches_are_those_of_a_set_in_memory(kind: str, path: Path) -> None:
    images = read_store(path).split("train")
    if kind == "rows":
        images = images.subset(torch.arange(0, COUNT, 2))
    for options in ({"shuffle": False}, {"shuffle": False, "drop_last": False}):
        expected = list(TensorLoader(images.images.clone(), images.labels, 8, **options))
        got = list(images.loader(8, **options))
        assert len(got) == len(images.loader(8, **options)) == len(expected)
        for (image, label), (image2, label2) in zip(got, expected):
            assert torch.equal(image, image2)
            assert torch.equal(label, label2)


def test_blocks_are_all_rows_in_order(path: Path) -> None:
    train = read_store(path).split("train")
    for images in (train, train.subset(torch.tensor([5, 0, 3]))):
        blocks = list(images.blocks(2))
        assert max(map(len, blocks)) == 2
        assert torch.equal(torch.cat(blocks), images.images)


def test_labels_stay_with_their_images(path: Path) -> None:
    for image, label in read_store(path).split("train").loader(8):
        numbers = ((image[:, 0, 0, 0] + 1) * 127.5).round().long()
        assert (numbers % 3).tolist() == label.tolist()


def test_an_epoch_is_a_permutation_that_depends_on_seed_and_epoch_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "_RUN", 4 * 16)
    monkeypatch.setattr(stored, "_WINDOW", 3 * 4 * 16)  # runs of 4 images, windows of 3 runs
    images = read_store(path).split("train")
    loader = images.loader(5, seed=1)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    orders = []
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        orders.append(_numbers(loader))
        assert _numbers(loader) == orders[-1]
        assert sorted(orders[-1]) == list(range(COUNT))
    assert torch.equal(torch.get_rng_state(), state)
    assert orders[0] != orders[1] != orders[2] != orders[0]
    again = images.loader(5, seed=1)
    again.set_epoch(2)
    assert _numbers(again) == orders[2]
    assert _numbers(images.loader(5, seed=2)) != orders[0]
    for start in range(0, 48, 12):  # each window: three whole runs, mixed
        window = orders[0][start : start + 12]
        assert len({number // 4 for number in window}) <= 5
        assert window != sorted(window)


def test_every_order_is_as_likely_within_a_window(path: Path) -> None:
    images = read_store(path).split("train").subset(torch.arange(3))
    loader, counts = images.loader(3), {}
    for epoch in range(600):
        loader.set_epoch(epoch)
        order = tuple(loader.order().tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    assert 65 < min(counts.values()) <= max(counts.values()) < 135


def test_ranks_share_an_epoch(path: Path) -> None:
    train = read_store(path).split("train")
    shares = [_numbers(train.loader(5, rank=rank, world_size=2)) for rank in range(2)]
    assert sorted(shares[0] + shares[1]) == list(range(COUNT))


def test_leaving_an_epoch_early_and_errors_of_the_reading_thread(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = read_store(path).split("train").loader(2)
    for image, _ in loader:
        assert len(image) == 2
        break
    assert len(_numbers(loader)) == COUNT

    def broken(self: StoreLoader, indices: torch.Tensor) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(StoreLoader, "_read", broken)
    with pytest.raises(OSError, match="the disk is gone"):
        list(loader)


def test_sizes(path: Path) -> None:
    assert open_source(str(path), size=4).split("train").image_shape == (1, 4, 4)
    with pytest.raises(ValueError, match=r"--size 8: a store is not resized.*images of 4 x 4.*--size 8"):
        open_source(str(path), size=8).split("train")


@pytest.mark.parametrize("name", ["index.json", "train-images.npy", "test-labels.npy"])
def test_missing_file(name: str, path: Path) -> None:
    (path / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{path}.*expected .*got no.*eqgan convert"):
        open_source(str(path))


def test_no_such_store(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.store: expected a store with an index\.json"):
        open_source(str(tmp_path / "none.store"))


@pytest.mark.parametrize("name", ["train-images.npy", "test-labels.npy"])
@pytest.mark.parametrize("left", [0, 40, 140])
def test_truncated_array(name: str, left: int, path: Path) -> None:
    (path / name).write_bytes((path / name).read_bytes()[:left])
    with pytest.raises(
        ValueError, match=rf"{name}: expected \w+ of shape \(.*\), got a file that cannot be read"
    ):
        open_source(str(path))


def test_more_bytes_than_the_index_says(path: Path) -> None:
    with (path / "train-images.npy").open("ab") as file:
        file.write(b"more")
    with pytest.raises(ValueError, match=r"train-images.npy: expected [\d,]+ bytes, got [\d,]+"):
        read_store(path)


def test_wrong_shape_or_type(path: Path) -> None:
    np.save(path / "train-images.npy", PIXELS[:-1])
    with pytest.raises(
        ValueError, match=r"expected uint8 of shape \(50, 1, 4, 4\), got uint8 of shape \(49, 1"
    ):
        open_source(str(path))
    np.save(path / "train-images.npy", PIXELS.astype(np.float32))
    with pytest.raises(ValueError, match="got float32 of shape"):
        open_source(str(path))


def _rewrite(path: Path, **changes: object) -> None:
    index = {**json.loads((path / "index.json").read_text()), **changes}
    (path / "index.json").write_text(json.dumps({k: v for k, v in index.items() if v is not None}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, r"expected format 'eqgan-store', version 1, got 'other', 1"),
        ({"version": 2}, "got 'eqgan-store', 2"),
        ({"splits": None}, "expected an index, got one without 'splits'"),
        ({"splits": {"train": {}}}, "got one without 'shape'"),
        ({"splits": [1]}, "expected an index, got one without"),
        ({"sha256": "0" * 64}, "expected hashes that belong to 0000"),
    ],
)
def test_wrong_index(changes: dict[str, object], message: str, path: Path) -> None:
    _rewrite(path, **changes)
    with pytest.raises(ValueError, match=message):
        open_source(str(path))


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_broken_index(text: str, path: Path) -> None:
    (path / "index.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"index\.json: expected"):
        open_source(str(path))


def test_wrong_content_is_found_when_asked(path: Path) -> None:
    content = bytearray((path / "train-images.npy").read_bytes())
    content[-1] ^= 1
    (path / "train-images.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"expected the train split to have SHA-256 \w{64}, got \w{64}"):
        verify_store(path)


def _failing_stream() -> Stream:
    def blocks():
        yield PIXELS[:7], LABELS[:7]
        raise KeyboardInterrupt

    return Stream(COUNT, (1, 4, 4), blocks(), True)


def test_whole_or_not_at_all(tmp_path: Path, path: Path) -> None:
    before = {file: file.read_bytes() for file in path.iterdir()}
    for target, overwrite in ((tmp_path / "new.store", False), (path, True)):
        with pytest.raises(KeyboardInterrupt):
            write_store(target, "x", {"train": _failing_stream()}, (), overwrite)
    assert {file.name for file in tmp_path.iterdir()} == {path.name}
    assert {file: file.read_bytes() for file in path.iterdir()} == before


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (
            Stream(COUNT + 1, (1, 4, 4), [(PIXELS, LABELS)], True),
            "expected 51 images and 51 labels, got 50 and 50",
        ),
        (Stream(COUNT, (1, 4, 4), [(PIXELS, LABELS[1:])], True), "got 50 and 49"),
        (Stream(COUNT, (1, 4, 5), [(PIXELS, LABELS)], True), r"expected images of shape \(1, 4, 5\)"),
        (Stream(COUNT, (1, 4, 4), [(PIXELS, None)], True), "labelled: True, got .* labelled: False"),
    ],
)
def test_streams_that_do_not_keep_their_word(stream: Stream, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        write_store(tmp_path / "x.store", "x", {"train": stream}, ())
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten_unasked(path: Path, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match=r"expected no such folder, got one.*--overwrite"):
        write_store(path, "x", {"train": _stream(9)}, ())
    write_store(path, "x", {"train": _stream(14)}, (), overwrite=True)
    assert len(read_store(path).split("train")) == 14
    assert {file.name for file in tmp_path.iterdir()} == {path.name}
    (tmp_path / "photos").mkdir()
    with pytest.raises(FileExistsError, match=r"no store, and is not replaced"):
        write_store(tmp_path / "photos", "x", {"train": _stream(9)}, (), overwrite=True)


def test_the_hash_of_the_index_is_that_of_the_source(path: Path) -> None:
    source = read_store(path)
    text = " ".join(f"{split} {images.sha256}" for split, images in source.sets.items())
    assert source.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert json.loads((path / "index.json").read_text())["sha256"] == source.sha256


def test_a_set_that_does_not_fit_is_told_what_to_do(monkeypatch, tmp_path, capsys) -> None:
    def full(*_: object) -> None:
        raise MemoryError("Unable to allocate 2.50 GiB")

    np.savez(tmp_path / "large.npz", images=np.zeros((4, 8, 8), np.uint8))
    monkeypatch.setattr("eqgan.data.npz.read_arrays", full)
    words = ["--data", str(tmp_path / "large.npz"), "--log_dir", str(tmp_path / "logs")]
    told = complaint_of(lambda: classify(words), capsys)
    assert "out of memory (Unable to allocate 2.50 GiB); images that do not fit" in told


LIMITED = """
    import resource, sys
    import numpy as np
    from eqgan.data.module import ImageData

    def data_bytes():
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmData"))

    data = ImageData(sys.argv[1], batch_size=256)
    data.setup()
    loader = data.train_dataloader()
    next(iter(loader))  # threads, code and buffers are there before the limit is
    size = data.train.images.numel()
    limit = data_bytes() + size // 2
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    total = sum(int(label.sum()) for image, label in loader)
    print("read", total)
    try:
        np.load(sys.argv[1] + "/train-images.npy")
    except MemoryError:
        print("too large")
    """


@pytest.mark.skipif(sys.platform != "linux", reason="the limit that counts what is allocated is Linux's")
def test_a_set_larger_than_the_memory_that_may_be_used(tmp_path: Path) -> None:
    """An epoch of 192 MiB of images with half of that to spare; the same limit forbids loading them."""
    side, block, blocks = 64, 1024, 48
    stream = (
        (np.full((block, 1, side, side), i, np.uint8), np.full(block, i % 2, np.int64)) for i in range(blocks)
    )
    count = block * blocks
    write_store(
        tmp_path / "big.store", "big", {"train": Stream(count, (1, side, side), stream, True)}, ("a", "b")
    )
    command = [sys.executable, "-c", textwrap.dedent(LIMITED), str(tmp_path / "big.store")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == [f"read {count // 2}", "too large"]
