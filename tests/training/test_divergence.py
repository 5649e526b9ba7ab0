"""A run that diverges goes back to a good state with lower rates, a few times, and then explains itself."""

import json
import logging
import math

import pytest
import torch

from eqgan.training.callbacks import read_checkpoint
from eqgan.training.callbacks.divergence import DivergenceGuard
from eqgan.training.module import GAN
from tests.training.runs import TINY, differences

RATE = TINY["gan.lr_generator"]


def train(place, *words, **options):
    """Four small steps an epoch."""
    return place.train(*words, **{"batch_size": 16, "fraction": 0.05, "evaluation__samples": 16, **options})


@pytest.fixture
def poisoned(monkeypatch):
    """Weights become NaN in one epoch as long as the generator's rate is above some bound."""

    def poison(epoch, above, value=math.nan):
        step = GAN.training_step

        def training_step(self, batch, batch_idx):
            step(self, batch, batch_idx)
            rate = self.optimizers()[0].param_groups[0]["lr"]
            if self.current_epoch == epoch and batch_idx == 2 and rate > above:
                next(self.generator.parameters()).data.fill_(value)

        monkeypatch.setattr(GAN, "training_step", training_step)

    return poison


def test_it_goes_back_one_epoch_with_half_the_rates(place, poisoned, caplog, capsys):
    """Bit for bit what a run is that had its rates halved by hand after the last good epoch."""
    train(place, "--name", "by-hand", "--epochs", "1")
    last = place.last("by-hand")
    checkpoint = read_checkpoint(last)
    for state in checkpoint["optimizer_states"]:
        for group in state["param_groups"]:
            group["lr"] *= 0.5
    torch.save(checkpoint, last)
    place.resume("by-hand", "--epochs", "3")

    poisoned(epoch=1, above=0.9 * RATE)
    with caplog.at_level(logging.WARNING):
        summary = train(place, "--name", "mended", "--epochs", "3")
    told = [r.getMessage() for r in caplog.records if "diverged" in r.getMessage()]
    assert len(told) == 1
    assert "back to the end of epoch 0 with halved learning rates (rollback 1 of 3)" in told[0]
    assert [r["back_to_epoch"] for r in summary["rollbacks"]] == [0]
    assert "nan" in summary["rollbacks"][0]["why"]
    assert "rolled back" in capsys.readouterr().out
    ours, theirs = (read_checkpoint(place.last(name)) for name in ("mended", "by-hand"))
    for part in ("state_dict", "optimizer_states", "epoch", "global_step"):
        assert not differences(ours[part], theirs[part])
    assert [row["epoch"] for row in place.rows("mended")] == ["0", "1", "2"]
    assert (
        json.loads((place.logs("mended") / "summary.json").read_text())["rollbacks"] == summary["rollbacks"]
    )


def test_before_the_first_checkpoint_it_goes_back_to_the_start(place, poisoned):
    poisoned(epoch=0, above=0.9 * RATE)
    summary = train(place, "--name", "mended", "--epochs", "1")
    assert [r["back_to_epoch"] for r in summary["rollbacks"]] == [None]
    halved = {"gan.lr_generator": RATE / 2, "gan.lr_discriminator": TINY["gan.lr_discriminator"] / 2}
    train(place, "--name", "plain", "--epochs", "1", **halved)
    ours, theirs = (read_checkpoint(place.last(name)) for name in ("mended", "plain"))
    assert not differences(ours["state_dict"], theirs["state_dict"])


@pytest.mark.parametrize(
    ("rollbacks", "told"), [(1, "after 1 rollback(s), each with halved"), (0, "diverged: ")]
)
def test_in_the_end_it_stops_and_says_why(rollbacks, told, place, poisoned, capsys):
    poisoned(epoch=1, above=0.0)
    with pytest.raises(SystemExit) as stop:
        train(place, "--name", "lost", "--epochs", "3", "--rollbacks", str(rollbacks))
    line = next(line for line in capsys.readouterr().err.splitlines() if "eqgan: error: " in line)
    assert stop.value.code == 1
    assert told in line
    assert "Lower --gan.lr_generator" in line
    assert "best-fid.ckpt holds the best epoch so far" in line
    kept = read_checkpoint(place.last("lost"))
    assert kept["epoch"] == 0, "no bad state was ever saved"
    assert all(t.isfinite().all() for t in kept["state_dict"].values() if t.is_floating_point())


def test_a_loss_without_bounds_is_divergence_too(place, monkeypatch, capsys):
    record = GAN.record
    monkeypatch.setattr(GAN, "record", lambda self, **v: record(self, **{k: t - 2e6 for k, t in v.items()}))
    with pytest.raises(SystemExit):
        train(place, "--epochs", "1", "--rollbacks", "0")
    assert "d_loss is -2e+06 in epoch 0" in capsys.readouterr().err
    with pytest.raises(ValueError, match="above 0"):
        DivergenceGuard(limit=0.0)


def test_weights_are_looked_at_before_they_are_saved(place, monkeypatch):
    """A batch statistic that no loss shows."""
    step = GAN.training_step
    bad = []

    def training_step(self, batch, batch_idx):
        step(self, batch, batch_idx)
        if self.current_epoch == 1 and not bad:
            bad.append(True)
            dict(self.generator.named_buffers())["base.layers.0.running_var"].fill_(math.inf)

    monkeypatch.setattr(GAN, "training_step", training_step)
    summary = train(place, "--name", "mended", "--epochs", "2")
    assert "running_var is not finite at the end of epoch 1" in summary["rollbacks"][0]["why"]


def test_negative_rollbacks_are_refused(place, capsys):
    with pytest.raises(SystemExit):
        train(place, "--name", "x", "--rollbacks", "-1")
    assert "--rollbacks: expected at least 0, got -1" in capsys.readouterr().err


# --- deterministic mode -----------------------------------------------------------------------------------


def test_deterministic_mode_is_on_while_training_only(place, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    step, seen = GAN.training_step, []

    def training_step(self, batch, batch_idx):
        seen.append(torch.are_deterministic_algorithms_enabled())
        step(self, batch, batch_idx)

    monkeypatch.setattr(GAN, "training_step", training_step)
    train(place, "--name", "on", "--epochs", "1", "--deterministic")
    assert set(seen) == {True}
    assert not torch.are_deterministic_algorithms_enabled()
    seen.clear()
    place.resume("on", "--epochs", "2", "--deterministic", "false")
    assert set(seen) == {False}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_two_deterministic_runs_on_a_gpu_are_the_same(place):
    for name in ("one", "two"):
        train(place, "--name", name, "--epochs", "2", "--deterministic", "--trainer.accelerator", "gpu")
    ours, theirs = (read_checkpoint(place.last(name)) for name in ("one", "two"))
    assert not differences(ours["state_dict"], theirs["state_dict"])
