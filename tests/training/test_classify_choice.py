"""What a classifier's run chooses by, when it stops, and what it starts from: never the test images."""

import json
from dataclasses import replace

import pytest
import torch

from eqgan.data.module import ImageData
from eqgan.training.callbacks import read_checkpoint
from eqgan.training.callbacks.validation import Validation
from tests.training.classifiers import squares
from tests.training.runs import differences, refused, require_same_run


@pytest.fixture(scope="module")
def summary(classifiers, classified):
    return json.loads((classifiers.logs(classified) / "summary.json").read_text())


def test_the_best_checkpoint_is_that_of_the_validation_images(classifiers, classified, summary):
    best = read_checkpoint(classifiers.best(classified))
    assert best["epoch"] == summary["chosen_epoch"]
    described = best["eqgan"]
    assert (described["kind"], described["group"]) == ("classifier", "p4")
    assert described["class_names"] == ["0", "1", "2"]


def test_test_images_choose_nothing(small_place, monkeypatch):
    """With other test images, even wrong ones, every epoch and every weight is the same."""
    small_place.train("--name", "right", "--epochs", "2")
    original = ImageData.test_sets

    def mislabelled(self):
        return {k: replace(s, labels=(s.labels + 1) % 3) for k, s in original(self).items()}

    asked = []
    monkeypatch.setattr(
        ImageData, "test_sets", lambda self: (asked.append(self.trainer.current_epoch), mislabelled(self))[1]
    )
    small_place.train("--name", "wrong", "--epochs", "2")
    assert asked == [2], "once, after the last epoch"
    right, wrong = (read_checkpoint(small_place.last(name)) for name in ("right", "wrong"))
    assert differences(right, wrong) == []


def test_ties_of_the_error_are_broken_by_the_loss(small_place, monkeypatch):
    given = iter([(0.5, 1.0), (0.5, 0.8), (0.5, 0.9), (0.6, 0.1)])
    original = Validation.score

    def score(self, module, images):
        scores = original(self, module, images)
        if images is not self.data.validation:
            return scores
        error, loss = next(given)
        return replace(scores, error=error, loss=loss)

    monkeypatch.setattr(Validation, "score", score)
    summary = small_place.train("--name", "tied", "--epochs", "4")
    assert summary["chosen_epoch"] == 1
    assert read_checkpoint(small_place.best("tied"))["epoch"] == 1


def test_without_validation_images_the_last_epoch_is_tested(small_place, capsys):
    summary = small_place.train("--name", "all", "--epochs", "2", validation_fraction=0)
    assert summary["validation_error"] is None
    assert (summary["chosen_epoch"], summary["chosen_by"]) == (1, "last epoch")
    assert not small_place.best("all").exists()
    assert "epoch 1 (from 0), the last: no validation" in " ".join(capsys.readouterr().out.split())


def test_a_run_that_ends_by_its_steps_has_its_statistics_too(small_place, monkeypatch):
    refreshed = []
    monkeypatch.setattr(Validation, "refresh_statistics", lambda self, module, epoch: refreshed.append(epoch))
    small_place.train("--name", "few", "--epochs", "3", "--trainer.max_steps", "5", validation_fraction=0)
    assert refreshed == [1], "four steps make an epoch"


def test_early_stopping(small_place, monkeypatch):
    """The error grows after the second epoch; two epochs later it is over, resumed or not."""
    errors = [0.5, 0.4, 0.6, 0.7, 0.1, 0.1]
    original = Validation.score

    def score(self, module, images):
        scores = original(self, module, images)
        epoch = module.trainer.current_epoch
        return replace(scores, error=errors[epoch]) if images is self.data.validation else scores

    monkeypatch.setattr(Validation, "score", score)
    summary = small_place.train("--name", "stops", "--epochs", "6", "--patience", "2")
    assert (summary["epochs"], summary["chosen_epoch"]) == (4, 1)
    again = small_place.resume("stops")
    assert (again["epochs"], again["chosen_epoch"]) == (4, 1)
    small_place.train("--name", "halved", "--epochs", "3", "--patience", "2")
    small_place.resume("halved", "--epochs", "6")
    require_same_run(small_place, "halved", "stops")


# --- starting from another run ---------------------------------------------------------------------------


def test_weights_of_another_run_but_for_the_head(small_place):
    """Two classes instead of three: the body starts where the other run ended, the head anew."""
    small_place.train("--name", "first", "--epochs", "1")
    two = squares(small_place.root / "two.npz", classes=2)
    words = ["--name", "second", "--epochs", "1", "--init", "first"]  # by its name: the best epoch
    small_place.train(*words, data=two, lr=0, fit__ema_decay=0)
    before, after = (
        read_checkpoint(p)["state_dict"] for p in (small_place.best("first"), small_place.last("second"))
    )
    trained = {k.removeprefix("ema.module."): v for k, v in before.items() if k.startswith("ema.module.")}
    learnt = {k.removeprefix("network."): v for k, v in after.items() if k.endswith(".weight")}
    same = [torch.equal(trained[name], value) for name, value in learnt.items()]
    assert same == [True] * (len(same) - 1) + [False]


def test_weights_of_another_network_are_refused(small_place, capsys):
    small_place.train("--name", "first", "--epochs", "1", "--trainer.limit_train_batches", "1")
    words = ["--name", "second", "--init", str(small_place.best("first"))]
    line = refused(small_place, lambda: small_place.train(*words, net="p4mcnn"), capsys)
    assert "holds a p4 network, expected p4m" in line
    line = refused(small_place, lambda: small_place.train(*words, network__width=6), capsys)
    assert "best-validation.ckpt: " in line
