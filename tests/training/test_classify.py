"""What a classifier's run leaves behind, says and records."""

import json
import re

import numpy as np
import pytest
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from eqgan.training.classification_report import show_summary
from tests.training.classifiers import squares

SCALARS = {
    *("loss", "accuracy", "learning_rate", "images_per_second", "epoch"),
    *("validation_error", "validation_loss", "validation_auc", "validation_error_min"),
}


@pytest.fixture(scope="module")
def summary(classifiers, classified):
    return json.loads((classifiers.logs(classified) / "summary.json").read_text())


def test_files(classifiers, classified):
    files = {p.name for p in classifiers.logs(classified).iterdir() if "tfevents" not in p.name}
    pictures = {"confusion_squares.png", "confusion_squares-rotated.png"}
    assert files >= {"config.yaml", "summary.json", "metrics.csv", "checkpoints", *pictures}
    folder = classifiers.logs(classified) / "checkpoints"
    assert {p.name for p in folder.iterdir()} == {"last.ckpt", "best-validation.ckpt"}
    assert np.asarray(Image.open(classifiers.logs(classified) / "confusion_squares.png")).std() > 10
    assert not (classifiers.root / "samples").exists()


def test_the_table_of_metrics(classifiers, classified):
    rows = classifiers.rows(classified)
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
    assert [int(row["step"]) for row in rows] == [3, 6, 9, 12], "45 images in batches of 16"
    numbers = {k: [float(row[k]) for row in rows] for k in rows[0]}
    assert numbers.keys() >= SCALARS
    assert numbers["validation_error_min"] == list(np.minimum.accumulate(numbers["validation_error"]))


def test_the_summary(classifiers, classified, summary):
    errors = [float(row["validation_error"]) for row in classifiers.rows(classified)]
    assert summary["validation_error"] == min(errors)
    assert errors[summary["chosen_epoch"]] == min(errors)
    assert (summary["group"], summary["classes"]) == ("p4", ["0", "1", "2"])
    assert (summary["epochs"], summary["steps"], summary["validation_images"]) == (4, 12, 15)
    assert summary["parameters"] > 0 < summary["multiply_adds"]
    for test in ("squares", "squares-rotated"):
        scores = summary["test"][test]
        assert scores["count"] == 30 == np.sum(scores["confusion"])
        assert 0 <= scores["error"] <= 1 >= scores["auc"]
    assert 0 <= summary["invariance_error"] < 1e-9


def test_tensorboard(classifiers, classified):
    board = EventAccumulator(str(classifiers.logs(classified)))
    board.Reload()
    told = {
        "test_error_squares",
        "test_auc_squares-rotated",
        "invariance_error",
        "parameters",
        "multiply_adds",
    }
    assert set(board.Tags()["scalars"]) >= SCALARS | told
    assert board.Images("confusion"), "of the best epochs"
    assert board.Images("test_confusion_squares"), "of the test"
    known = yaml.safe_load((classifiers.logs(classified) / "hparams.yaml").read_text())
    assert known["network.init_args.group"] == "p4"


def test_the_printed_table(summary, capsys):
    show_summary(summary)
    table = " ".join(capsys.readouterr().out.split())
    for told in (
        *("parameters", "multiply-adds", "images/s", "peak memory", "validation error", "AUC"),
        *("test error, squares", "squares-rotated", "invariance error", "under p4"),
        *("tensorboard --logdir", "checkpoints", "confusion"),
    ):
        assert told in table


def test_without_test_images_it_says_so_before_and_after(small_place, capsys):
    with np.load(squares(small_place.root / "all.npz")) as data:
        np.savez(small_place.root / "train.npz", **{k: v for k, v in data.items() if k.startswith("train")})
    summary = small_place.train("--name", "untested", "--epochs", "1", data=small_place.root / "train.npz")
    assert summary["test"] == {}
    before, after = (" ".join(t.split()) for t in capsys.readouterr().out.split("Training:", 1))
    assert "no test images: nothing will be tested" in before
    assert "no test images: nothing will be tested" in after


def test_what_is_about_to_happen_is_said_first(small_place, capsys):
    small_place.train("--name", "mine", "--epochs", "1", "--trainer.limit_train_batches", "1")
    told = capsys.readouterr().out.split("Training:")[0]
    assert re.search(r"run mine: new, up to 1 epoch\(s\), seed 3, 32-true", told)
    assert re.search(r"45 training and 15 validation images 1x22x22, 3 classes", told)
    assert re.search(r"network: P4CNNClassifier, p4, group order 4, [\d,]+ parameters", told)


def test_a_run_is_named_after_what_tells_it_apart(small_place):
    one = small_place.train("--epochs", "1", "--trainer.limit_train_batches", "1", net="p4mcnn")
    two = small_place.train("--epochs", "1", "--trainer.limit_train_batches", "1", net="z2cnn", fraction=0.5)
    assert (one["run"], two["run"]) == ("squares-p4mcnn_p4m-s3", "squares-50pct-z2cnn_z2-s3")
