"""A classifier's run that was stopped goes on to the numbers of one that never was."""

import signal

import pytest
import torch
import yaml

from eqgan.training.callbacks import read_checkpoint
from eqgan.training.classification import Classification
from tests.complaints import complaint_of
from tests.training.runs import differences, refused, require_same_run


def test_after_two_of_four_epochs(classifiers, classified):
    classifiers.train("--name", "halved", "--epochs", "2")
    assert differences(
        read_checkpoint(classifiers.last("halved")), read_checkpoint(classifiers.last(classified))
    )
    classifiers.resume("halved", "--epochs", "4")
    require_same_run(classifiers, "halved", classified)
    best = [read_checkpoint(classifiers.best(name)) for name in ("halved", classified)]
    assert differences(*best) == []


def test_after_an_interrupt(classifiers, classified, monkeypatch, capsys):
    original = Classification.training_step

    def training_step(self, batch, batch_idx):
        if self.trainer.global_step == 7:
            signal.raise_signal(signal.SIGINT)
        return original(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Classification, "training_step", training_step)
        with pytest.raises(SystemExit) as stop:
            classifiers.train("--name", "stopped", "--epochs", "4")
    assert stop.value.code == 130
    assert "Go on with --resume stopped" in capsys.readouterr().err
    classifiers.resume("stopped")
    require_same_run(classifiers, "stopped", classified)


def test_a_setting_that_came_with_an_update_is_no_difference(small_place, capsys):
    """But another value than its default is, and a setting in the place of none."""
    small_place.train("--name", "run", "--epochs", "1", "--trainer.limit_train_batches", "1")
    kept = small_place.logs("run") / "config.yaml"
    settings = yaml.safe_load(kept.read_text())
    del settings["fit"]["turns"]
    kept.write_text(yaml.safe_dump(settings))
    assert small_place.resume("run")["epochs"] == 1
    told = complaint_of(lambda: small_place.resume("run", "--preprocess", "zca"), capsys, told=True)
    assert "preprocess.class_path was None, now eqgan.data.preprocess.ZCAWhitening" in told
    told = complaint_of(lambda: small_place.resume("run", "--fit.turns", "8"), capsys, told=True)
    assert "fit.turns was 1, now 8" in told


def test_how_it_is_tested_may_change(small_place):
    """What cannot be rotated, or is too large for a batch, need not be trained again."""
    small_place.train("--name", "run", "--epochs", "1", "--trainer.limit_train_batches", "1")
    changed = small_place.resume("run", "--judging.rotated", "false", "--judging.batch_size", "7")
    assert list(changed["test"]) == ["squares"]


def test_in_double_precision(small_place):
    small_place.train("--name", "whole", "--epochs", "2", precision="64-true")
    small_place.train("--name", "halved", "--epochs", "1", precision="64-true")
    small_place.resume("halved", "--epochs", "2")
    require_same_run(small_place, "halved", "whole")


@pytest.mark.parametrize("settings", [{"optimizer": "sgd"}, {"optimizer": "adamw", "fit__ema_decay": 0}])
def test_with_a_schedule_that_knows_the_end(settings, small_place, monkeypatch):
    """The rate falls towards the last step, so a run that was stopped must know the same last step."""
    settings |= {"schedule": "one-cycle", "augment": "none"}
    small_place.train("--name", "whole", "--epochs", "3", **settings)
    original = Classification.training_step

    def training_step(self, batch, batch_idx):
        if self.trainer.global_step == 4:
            raise KeyboardInterrupt
        return original(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Classification, "training_step", training_step)
        with pytest.raises(SystemExit):
            small_place.train("--name", "stopped", "--epochs", "3", **settings)
    small_place.resume("stopped")
    require_same_run(small_place, "stopped", "whole")


def test_other_epochs_under_such_a_schedule_are_refused(small_place, capsys):
    small_place.train("--name", "cycle", "--epochs", "1", schedule="one-cycle")
    line = refused(small_place, lambda: small_place.resume("cycle", "--epochs", "2"), capsys)
    assert "OneCycleSchedule" in line
    assert "--epochs 1" in line


def test_other_settings_are_refused_by_name(classifiers, classified, capsys):
    line = refused(classifiers, lambda: classifiers.resume(classified, "--group", "p4m"), capsys)
    assert "network.init_args.group was p4, now p4m" in line


def test_a_checkpoint_of_a_gan_is_refused(classifiers, classified, small_place, capsys):
    small_place.train("--name", "mine", "--epochs", "1")
    checkpoint = read_checkpoint(small_place.last("mine"))
    checkpoint["eqgan"]["config"] = "generator: {class_path: G}\ndiscriminator: {class_path: D}\n"
    torch.save(checkpoint, small_place.last("mine"))
    line = refused(small_place, lambda: small_place.resume("mine", "--epochs", "2"), capsys)
    assert "belongs to another run: its network is None" in line
