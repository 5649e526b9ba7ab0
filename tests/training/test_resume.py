"""A run that was stopped, however it was stopped, goes on to the numbers of one that never was."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml

from eqgan.training.callbacks import read_checkpoint
from eqgan.training.module import GAN
from tests.training.runs import differences, refused, require_same_run

ROOT = Path(__file__).parents[2]


def at_step(monkeypatch, step, action):
    """Does something in the middle of an epoch, before the batch that ends this discriminator step."""
    original = GAN.training_step

    def training_step(self, batch, batch_idx):
        if int(self.discriminator_step) == step:
            action()
        original(self, batch, batch_idx)

    monkeypatch.setattr(GAN, "training_step", training_step)


def test_after_two_of_four_epochs(shared, whole):
    shared.train("--name", "halved", "--epochs", "2")
    half = read_checkpoint(shared.last("halved"))
    assert differences(half, read_checkpoint(shared.last(whole))), "the comparison sees a difference"
    shared.resume("halved", "--epochs", "4")
    require_same_run(shared, "halved", whole)


def test_in_double_precision(shared):
    """What Lightning restores before it converts the networks is rounded to float32."""
    shared.train("--name", "double", "--epochs", "2", precision="64-true")
    shared.train("--name", "double-halved", "--epochs", "1", precision="64-true")
    shared.resume("double-halved", "--epochs", "2")
    require_same_run(shared, "double-halved", "double")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_after_a_signal(number, shared, whole, monkeypatch, capsys):
    """Five batches an epoch: the signal comes in the middle of the third."""
    name = f"stopped-by-{number.name}"
    with monkeypatch.context() as patch:
        at_step(patch, 12, lambda: signal.raise_signal(number))
        with pytest.raises(SystemExit) as stop:
            shared.train("--name", name, "--epochs", "4")
    assert stop.value.code not in (0, None)
    told = [line for line in capsys.readouterr().err.splitlines() if "--resume" in line]
    assert told == [f"stopped; at most the epoch under way is lost. Go on with --resume {name}"]
    assert len(shared.rows(name)) == 2
    shared.resume(name)
    require_same_run(shared, name, whole)


KILLED = """
import os, signal, sys
import pytest
from eqgan.training.module import GAN
sys.path.insert(0, {root!r})
from tests.training.test_resume import at_step
at_step(pytest.MonkeyPatch(), 12, lambda: os.kill(os.getpid(), signal.SIGKILL))
from eqgan.cli import train_gan
train_gan(sys.argv[1:])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no kill -9")
def test_after_a_kill_that_cannot_be_caught(shared, whole):
    argv = shared.argv("--name", "killed", "--epochs", "4")
    script = KILLED.format(root=str(ROOT))
    process = subprocess.run([sys.executable, "-c", script, *argv], capture_output=True, env=os.environ)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    assert len(shared.rows("killed")) == 2
    shared.resume("killed")
    require_same_run(shared, "killed", whole)


def test_before_the_first_checkpoint(shared, whole, monkeypatch):
    """Stopped in the first epoch: nothing to go on from, so it begins again."""
    with monkeypatch.context() as patch:
        at_step(patch, 1, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(SystemExit):
            shared.train("--name", "stopped-early", "--epochs", "4")
    assert not shared.last("stopped-early").exists()
    shared.resume("stopped-early")
    require_same_run(shared, "stopped-early", whole)


def test_without_a_name_the_newest_run_of_these_settings(place, capsys):
    """It was named after its settings; the second one of the same settings got a number."""
    settings = {"evaluation__every": 4, "discriminator__spectral": "null"}  # a null is a setting too
    for _ in range(2):
        place.train("--epochs", "1", **settings)
    names = sorted(p.name for p in (place.root / "logs").iterdir())
    assert names == ["digits-50pct-conv-conv_p4-ra-s3", "digits-50pct-conv-conv_p4-ra-s3-2"]
    before = place.last(names[0]).read_bytes()
    place.train("--resume", "--epochs", "2", **settings)
    assert [len(place.rows(name)) for name in names] == [1, 2]
    assert place.last(names[0]).read_bytes() == before
    place.train("--resume", **settings)
    assert len(place.rows(names[1])) == 2, "as long as it was"
    place.resume(names[1])
    assert "digits-50pct-conv-conv_p4-ra-s3-2" in capsys.readouterr().out


def test_a_finished_run_is_reported_again_and_left_as_it_was(shared, whole):
    before = read_checkpoint(shared.last(whole))
    rows = shared.rows(whole)
    summary = shared.resume(whole)
    assert differences(before, read_checkpoint(shared.last(whole))) == []
    assert shared.rows(whole) == rows
    assert summary["epochs"] == 4


# --- refusals: nothing is touched ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "setting", "was", "now"),
    [
        (("--disc", "p4m"), "discriminator.init_args.group", "p4", "p4m"),
        (("--gan.lr_generator", "0.5"), "gan.lr_generator", "0.001", "0.5"),
        (("--loss", "hinge"), "loss.class_path", "RelativisticAverageLoss", "HingeLoss"),
        (("--seed", "4"), "seed", "3", "4"),
        (("--batch-size", "64"), "dataset.batch_size", "128", "64"),
        (("--discriminator.width", "5"), "discriminator.init_args.width", "4", "5"),
    ],
)
def test_other_settings_are_refused_by_name(words, setting, was, now, shared, whole, capsys):
    line = refused(shared, lambda: shared.resume(whole, *words), capsys)
    assert re.search(rf"{re.escape(setting)} was \S*{was}, now \S*{now}\b", line)
    assert f"--resume {whole}" in line


def test_other_epochs_and_places_are_not_other_settings(shared, whole):
    """What does not change the numbers may change."""
    shared.resume(whole, "--data-root", "elsewhere", "--trainer.log_every_n_steps", "5")


def test_an_unknown_run_lists_those_there_are(shared, whole, capsys):
    line = refused(shared, lambda: shared.resume("whale"), capsys)
    assert "no such run" in line
    assert re.search(r"Runs there: .*\bwhole\b", line)


def test_an_unknown_run_where_there_are_none(place, capsys):
    assert refused(place, lambda: place.resume("whale"), capsys).endswith("Runs there: none.")
    line = refused(place, lambda: place.train("--resume"), capsys)
    assert "no run named 'digits-50pct-conv-conv_p4-ra-s3'" in line


class Malice:
    """Would leave a file behind if it were unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def truncated(path, _trap):
    path.write_bytes(path.read_bytes()[:-1000])


def empty(path, _trap):
    path.write_bytes(b"")


def malicious(path, trap):
    torch.save({"state_dict": Malice(trap)}, path)


def of_another_program(path, _trap):
    torch.save({"state_dict": {"weight": torch.zeros(3)}, "epoch": 3}, path)


def a_tensor(path, _trap):
    torch.save(torch.zeros(3), path)


def of_another_format(path, _trap):
    torch.save(read_checkpoint(path) | {"eqgan": {"format": 0}}, path)


DAMAGES = [truncated, empty, malicious, of_another_program, a_tensor, of_another_format]


@pytest.fixture(scope="session")
def to_damage(shared):
    """A run whose checkpoint each test may break: it is put back."""
    shared.train("--name", "damaged", "--epochs", "1")
    return "damaged", shared.last("damaged").read_bytes()


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__)
def test_a_damaged_checkpoint(damage, shared, to_damage, tmp_path, capsys):
    name, intact = to_damage
    path, trap = shared.last(name), tmp_path / "trap"
    path.write_bytes(intact)
    damage(path, trap)
    line = refused(shared, lambda: shared.resume(name, "--epochs", "2"), capsys)
    assert str(path) in line
    assert re.search("is damaged or no plain checkpoint|is not a checkpoint of eqgan", line)
    assert not trap.exists(), "code of the file was run"
    path.write_bytes(intact)
    torch.load(path, weights_only=True)


@pytest.mark.parametrize(
    ("role", "other"), [("discriminator", {"disc": "z2"}), ("generator", {"gen": "p4m"})]
)
def test_a_checkpoint_of_another_group(role, other, shared, to_damage, tmp_path, capsys):
    """Put in place by hand, where the settings cannot tell: its weights do not fit."""
    _, intact = to_damage
    place = type(shared)(tmp_path)
    place.train("--name", "other", "--epochs", "1", "--trainer.limit_train_batches", "2", **other)
    place.last("other").write_bytes(intact)
    line = refused(place, lambda: place.resume("other", "--epochs", "2"), capsys)
    assert f"last.ckpt belongs to another run: its {role} is " in line


def test_the_number_of_epochs_of_a_resumed_run_is_kept_and_cannot_shrink(shared, capsys):
    """What a bare --resume needs later, and what a shorter run would contradict."""
    shared.train("--name", "longer", "--epochs", "1")
    shared.resume("longer", "--epochs", "2")
    folder = shared.last("longer").parent.parent
    assert yaml.safe_load((folder / "config.yaml").read_text())["epochs"] == 2
    line = refused(shared, lambda: shared.resume("longer", "--epochs", "1"), capsys)
    assert "--epochs 1" in line
    assert "2" in line


def test_a_kill_between_the_two_checkpoints_leaves_a_best_that_fits(shared, monkeypatch, capsys):
    """best-fid.ckpt is written first: last.ckpt never speaks of a minimum that is not on the disk."""
    order = []
    save = pl.Trainer.save_checkpoint
    monkeypatch.setattr(
        pl.Trainer,
        "save_checkpoint",
        lambda self, path, *a, **k: (order.append(path.name), save(self, path))[1],
    )
    shared.train("--name", "order", "--epochs", "1")
    assert order == ["best-fid.ckpt", "last.ckpt"]
