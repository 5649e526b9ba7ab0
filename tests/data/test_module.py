import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from eqgan.data.mnist import load_mnist
from eqgan.data.module import ImageData
from eqgan.data.rotmnist import content_sha256, generate, permutation_and_angles


@pytest.fixture
def cells(tmp_path: Path) -> str:
    """Forty images whose first pixel is their number, two classes."""
    images = np.zeros((40, 4, 4), np.uint8)
    images[:, 0, 0] = np.arange(40)
    np.savez(
        tmp_path / "cells.npz", x_train=images, y_train=np.arange(40) % 2, x_test=images[:9], y_test=[1] * 9
    )
    return str(tmp_path / "cells.npz")


def _ready(cells: str, **options: object) -> ImageData:
    data = ImageData(cells, **{"batch_size": 4, **options})
    data.setup()
    return data


def _numbers(data: ImageData) -> list[int]:
    return data.train.images[:, 0, 0, 0].tolist()


def test_what_a_run_needs_to_know(cells: str) -> None:
    data = _ready(cells)
    assert (data.name, data.image_shape, data.num_classes) == ("cells", (1, 4, 4), 2)
    assert data.class_names == ("0", "1")
    assert _numbers(data) == list(range(40))
    assert len(data.sha256) == 64
    assert len(data.reference()) == len(data.reference("test")) == 9
    assert len(data.reference("train")) == 40
    with pytest.raises(ValueError, match="cells has no extra split, expected one of: train, test"):
        data.reference("extra")


def test_reference_is_the_training_set_where_there_is_no_other(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((8, 4, 4), np.uint8))
    data = _ready(str(tmp_path / "x.npz"), fraction=0.5)
    assert len(data.reference("auto")) == 8
    assert len(data.train) == 4
    assert data.num_classes == 1
    assert data.train_dataloader().labels.tolist() == [0] * 4


def test_shares_are_nested_drawn_once_and_named(cells: str) -> None:
    tenth, half = _ready(cells, fraction=0.1), _ready(cells, fraction=0.5)
    assert (tenth.name, half.name) == ("cells-10pct", "cells-50pct")
    assert len(set(_numbers(half))) == 20
    assert set(_numbers(tenth)) < set(_numbers(half))
    assert _numbers(half) == _numbers(_ready(cells, fraction=0.5))
    assert _numbers(half) != _numbers(_ready(cells, fraction=0.5, seed=1))
    assert _numbers(half) != list(range(20))
    assert half.train.labels.tolist() == [number % 2 for number in _numbers(half)]
    assert half.sha256 == tenth.sha256
    assert half.train.sha256 != tenth.train.sha256
    assert _ready(cells, fraction=0.125).name == "cells-12.5pct"


def test_setup_twice_reads_once(cells: str) -> None:
    data = ImageData(cells, batch_size=4)
    data.prepare_data()
    data.setup("fit")
    train = data.train
    data.setup("validate")
    assert data.train is train


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5, math.nan])
def test_fraction_out_of_range(fraction: float) -> None:
    with pytest.raises(ValueError, match="--fraction: expected a share above 0 and up to 1"):
        ImageData(fraction=fraction)


def test_batch_size_and_seed_out_of_range() -> None:
    with pytest.raises(ValueError, match="--batch-size: expected at least 1, got 0"):
        ImageData(batch_size=0)
    with pytest.raises(ValueError, match="--seed: expected 0 to"):
        ImageData(seed=-1)


def test_less_than_one_batch(cells: str) -> None:
    with pytest.raises(
        ValueError, match=r"one batch of 64 training images, got 40. Use --batch-size 40 or less"
    ):
        _ready(cells, batch_size=64)
    with pytest.raises(ValueError, match=r"one batch of 4 .*got 2 .a fraction 0.05 of 40"):
        _ready(cells, fraction=0.05)


def test_no_global_randomness(cells: str) -> None:
    torch.manual_seed(5)
    before, stream = torch.get_rng_state(), np.random.get_state()[1].copy()
    list(_ready(cells, fraction=0.5).train_dataloader())
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], stream)


class _Recorder(pl.LightningModule):
    """Keeps the labels that it is shown, epoch by epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.epochs: dict[int, list[int]] = {}

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> torch.Tensor:
        image, _ = batch
        numbers = ((image[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()
        self.epochs.setdefault(self.current_epoch, []).extend(numbers)
        return (self.weight * image.mean()).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def _trainer(epochs: int, folder: Path) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )


@pytest.mark.filterwarnings("ignore")
def test_lightning_drives_the_epochs_and_a_resumed_run_sees_what_it_would_have(
    cells: str, tmp_path: Path
) -> None:
    whole = _Recorder()
    _trainer(3, tmp_path).fit(whole, datamodule=ImageData(cells, batch_size=4))
    assert all(sorted(numbers) == list(range(40)) for numbers in whole.epochs.values())
    assert whole.epochs[0] != whole.epochs[1] != whole.epochs[2]
    trainer = _trainer(1, tmp_path)
    trainer.fit(_Recorder(), datamodule=ImageData(cells, batch_size=4))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    rest = _Recorder()
    data = ImageData(cells, batch_size=4)
    _trainer(3, tmp_path).fit(rest, datamodule=data, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert rest.epochs == {epoch: whole.epochs[epoch] for epoch in (1, 2)}


def _held(data: ImageData) -> set[int]:
    return set(data.validation.images[:, 0, 0, 0].tolist())


def test_validation_is_held_out_of_every_share_and_has_the_same_share_of_each_class(cells: str) -> None:
    whole = _ready(cells, validation_fraction=0.2)
    assert sorted([*_numbers(whole), *_held(whole)]) == list(range(40))
    assert whole.validation.labels.bincount().tolist() == [4, 4]
    for fraction in (0.25, 0.5):
        part = _ready(cells, validation_fraction=0.2, fraction=fraction)
        assert _held(part) == _held(whole)
        assert len(part.train) == round(fraction * 32)
        assert set(_numbers(part)) < set(_numbers(whole))
    assert set(_numbers(_ready(cells, validation_fraction=0.2, fraction=0.25))) < set(_numbers(part))
    assert _held(_ready(cells, validation_fraction=0.2, seed=1)) != _held(whole)
    ((image, label),) = _ready(cells, validation_fraction=0.2, batch_size=8).val_dataloader()
    assert ((image[:, 0, 0, 0] + 1) * 127.5).round().int().tolist() == sorted(_held(whole))
    assert label.tolist() == whole.validation.labels.tolist()


def test_nothing_is_held_out_unless_asked_for(cells: str) -> None:
    data = _ready(cells)
    assert len(data.validation) == 0
    assert data.val_dataloader() == []
    assert len(data.train) == 40
    assert data.train is data.reference("train")


def test_a_validation_split_of_the_source_is_taken_as_it_is(tmp_path: Path) -> None:
    images = np.arange(20, dtype=np.uint8).repeat(16).reshape(20, 4, 4)
    np.savez(tmp_path / "x.npz", x_train=images[:15], x_val=images[15:])
    for share in (0.0, 0.3):
        data = _ready(str(tmp_path / "x.npz"), validation_fraction=share, fraction=0.4)
        assert sorted(_held(data)) == [15, 16, 17, 18, 19]
        assert len(data.train) == 6
    assert data.test_sets() == {}


def test_rotated_mnist_holds_out_its_own_validation_images(
    small_mnist: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = small_mnist(60_000, 10_000, size=2)
    published = content_sha256(*generate(load_mnist(root)))
    for module in ("rotmnist", "sources"):
        monkeypatch.setattr(f"eqgan.data.{module}.ROTMNIST_SHA256", published)
    data = _ready("rotmnist", root=str(root), validation_fraction=0.1)
    everything = data.reference("train")
    assert torch.equal(data.train.images, everything.images[:10_000])
    assert torch.equal(data.validation.images, everything.images[10_000:])
    assert torch.equal(data.validation.images, data.reference("validation").images)
    assert len(_ready("rotmnist", root=str(root)).train) == 12_000
    sets = data.test_sets()
    assert list(sets) == ["rotmnist", "mnist"]
    assert len(sets["rotmnist"]) == 50_000
    trained = {int(row) - 60_000 for row in permutation_and_angles(70_000)[0][:12_000] if row >= 60_000}
    upright = load_mnist(root).test_images[[row for row in range(10_000) if row not in trained]]
    assert np.array_equal(sets["mnist"].images[:, 0], upright)
    assert sets["mnist"].name == "mnist"


def test_the_last_batch_can_be_kept(cells: str) -> None:
    loader = _ready(cells, batch_size=12, drop_last=False).train_dataloader()
    assert [len(image) for image, _ in loader] == [12, 12, 12, 4]
    assert len(_ready(cells, batch_size=64, drop_last=False).train_dataloader()) == 1
    assert [len(image) for image, _ in _ready(cells, batch_size=12).train_dataloader()] == [12, 12, 12]


@pytest.mark.parametrize("share", [-0.1, 1.0, math.nan])
def test_validation_share_out_of_range(share: float) -> None:
    with pytest.raises(ValueError, match="--validation-fraction: expected a share from 0 up to below 1"):
        ImageData(validation_fraction=share)
