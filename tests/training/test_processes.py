"""Several processes train one run to the numbers of one; if one of them dies, all end, with one message."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from eqgan.cli import runs
from eqgan.cli.together import INTERRUPTED, processes_to_start, together
from eqgan.training.callbacks import read_checkpoint
from eqgan.training.shared_batch import trainer_options
from tests.training import processes
from tests.training.runs import differences, refused, require_same_run

ROOT = Path(__file__).parents[2]
# Adam turns the rounding of a gradient that should be 0 into whole steps: in float64 those stay small
EXACT = {"precision": "64-true", "evaluation__samples": 300, "epochs": 3}


def require_close(ours, theirs, limit=1e-9):
    """Every tensor and number, clocks aside."""
    assert ours.keys() == theirs.keys()
    distances = {
        k: (ours[k].double() - theirs[k].double()).abs().max().item() for k in ours if ours[k].numel()
    }
    far = {k: v for k, v in distances.items() if v > limit}
    assert not far, far


def lines_of(capfd):
    return [line for line in capfd.readouterr().err.splitlines() if "error" in line or "stopped" in line]


@pytest.fixture
def heard(tmp_path_factory, monkeypatch):
    """The lines that the first of several processes writes to stderr, progress bars aside."""
    path = tmp_path_factory.mktemp("heard") / "stderr"
    monkeypatch.setenv("HEARD", str(path))
    return lambda: [line for line in path.read_text().splitlines() if "error" in line or "stopped" in line]


def test_two_processes_train_to_the_numbers_of_one(shared):
    two = together(processes.gan_with_digests, shared.argv("--name", "two", "--devices", "2", **EXACT), 2)
    one = shared.train("--name", "one", **EXACT)
    assert two["digests"][0] == two["digests"][1], "the processes hold different weights"
    ours, theirs = (read_checkpoint(shared.last(name)) for name in ("one", "two"))
    assert ours["global_step"] == theirs["global_step"] > 0
    require_close(ours["state_dict"], theirs["state_dict"])
    random = [checkpoint["eqgan"]["random_state"] for checkpoint in (ours, theirs)]
    assert differences(*random) == []
    rows = [[r["fid"] for r in shared.rows(name)] for name in ("one", "two")]
    assert [float(v) for v in rows[0]] == pytest.approx([float(v) for v in rows[1]], rel=1e-6)
    for row, other in zip(shared.rows("one"), shared.rows("two")):
        for key in ("d_loss", "g_loss", "score_real", "score_fake", "penalty", "gradient_norm_generator"):
            assert float(row[key] or 0) == pytest.approx(float(other[key] or 0), rel=1e-5), key
    assert one["fid_final"] == pytest.approx(two["fid_final"], rel=1e-6)
    assert one["at_minimum"]["fid"] == pytest.approx(two["at_minimum"]["fid"], rel=1e-6)
    assert json.loads((shared.logs("two") / "summary.json").read_text())["fid_final"] == two["fid_final"]
    assert not (shared.root / "logs" / ".two.lock").exists()


def test_a_killed_process_ends_the_run_which_then_goes_on(shared, capfd):
    """With numbers of each process's own, which the augmentation draws."""
    options = {"epochs": 3, "augment": "diff"}
    shared.train("--name", "undisturbed", "--devices", "2", **options)
    capfd.readouterr()
    with pytest.raises(SystemExit) as stop:
        together(processes.second_killed, shared.argv("--name", "one-killed", "--devices", "2", **options), 2)
    assert stop.value.code == 1
    assert lines_of(capfd) == [
        "eqgan: error: process 1 of 2 was killed (SIGKILL); the others were stopped, at most the epoch under "
        "way is lost. Go on with --resume one-killed"
    ]
    assert len(shared.rows("one-killed")) == 2
    assert not (shared.root / "logs" / ".killed.lock").exists()
    shared.resume("one-killed")
    require_same_run(shared, "one-killed", "undisturbed")


def test_what_only_another_process_complains_of_is_told(place, capfd):
    with pytest.raises(SystemExit) as stop:
        together(processes.second_out_of_memory, place.argv("--name", "large", "--devices", "2"), 2)
    assert stop.value.code == 1
    (line,) = lines_of(capfd)
    assert line.startswith("eqgan: error: process 1 of 2 failed (out of memory on the device; use a smaller")
    assert line.endswith("--resume large")


def test_an_interrupt_ends_all_with_one_line(place, heard, capfd):
    with pytest.raises(SystemExit) as stop:
        together(
            processes.both_interrupted, place.argv("--name", "told", "--devices", "2", "--epochs", "3"), 2
        )
    assert stop.value.code == INTERRUPTED
    assert lines_of(capfd) == []
    assert heard() == ["stopped; at most the epoch under way is lost. Go on with --resume told"]
    assert len(place.rows("told")) == 1


def test_torchrun_starts_the_processes_too(place):
    words = place.argv("--name", "elastic", "--epochs", "1")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = subprocess.run(
        [*command, str(ROOT / "train_gan.py"), *words], capture_output=True, env=os.environ, text=True
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("run elastic") == 2, "one line at the start, one table at the end"
    assert len(place.rows("elastic")) == 1


def test_two_processes_train_a_classifier_to_the_numbers_of_one(classifiers):
    """48 images in batches of 20: the last one is smaller. Plain SGD: Adam would enlarge what is rounding."""
    exact = {"augment": "none", "net": "p4cnn", "optimizer": "sgd", "lr": 0.05, "epochs": 3}
    exact |= {"batch-size": 20, "validation-fraction": 0.2}
    words = classifiers.argv("--name", "pair", "--devices", "2", **exact)
    two = together(processes.classifier_with_digests, words, 2)
    one = classifiers.train("--name", "single", **exact)
    assert two["digests"][0] == two["digests"][1]
    ours, theirs = (read_checkpoint(classifiers.last(name)) for name in ("single", "pair"))
    require_close(ours["state_dict"], theirs["state_dict"], 1e-5)
    assert one["validation_error"] == two["validation_error"]
    for name, scores in one["test"].items():
        assert scores["error"] == two["test"][name]["error"]
        assert scores["confusion"] == two["test"][name]["confusion"]


def test_every_image_is_validated_once_whatever_the_shares(classifiers):
    """15 validation images: one process goes through 8, the other through 7 and the first once more."""
    words = classifiers.argv("--name", "odd", "--devices", "2", epochs=1)
    two = together(processes.classifier_with_digests, words, 2)
    assert two["digests"][0] == two["digests"][1], "with augmentation, dropout and statistics computed anew"
    assert two["validation_images"] == 15
    assert 15 * two["validation_error"] == pytest.approx(round(15 * two["validation_error"]))


def test_batch_norm_sees_the_whole_batch():
    alone, shared = processes.norms([]), together(processes.norms, [], 2)
    assert alone.keys() == shared.keys()
    for key, values in alone.items():
        assert values == pytest.approx(shared[key], abs=1e-12), key


def test_each_process_draws_numbers_of_its_own_and_all_share_a_stream():
    alone, shared = processes.numbers([]), together(processes.numbers, [], 2)
    assert shared["common"][0] == shared["common"][1]
    assert shared["common"][0][:2] == alone["common"][0][:2]
    drawn = [tuple(numbers) for own in shared["own"] for numbers in own]
    assert len(set(drawn)) == 4, "two processes, two turns"


def test_shares_must_be_equal(place, heard, capfd):
    with pytest.raises(SystemExit) as stop:
        together(processes.heard, place.argv("--devices", "3"), 3)
    assert stop.value.code == 1
    assert lines_of(capfd) == []
    (line,) = heard()
    assert "--batch-size 128: expected a multiple of 3, for equal shares" in line
    assert line.endswith("Use 129")
    assert place.content() == {}


def test_unequal_shares_are_told_before_a_process_is_started(place, monkeypatch, capsys):
    monkeypatch.setattr(runs, "together", lambda *_: pytest.fail("processes were started"))
    line = refused(place, lambda: place.train("--devices", "99"), capsys)
    assert "--batch-size 128: expected a multiple of 99, for equal shares of 99 process(es)" in line


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--devices", "0"), "--devices: expected a number from 1"),
        (("--trainer.strategy", "fsdp"), "trainer.strategy: expected ddp or auto, got fsdp"),
        (("--trainer.num_nodes", "2"), "torchrun"),
        (("--trainer.accumulate_grad_batches", "2"), "--accumulate N does it"),
    ],
)
def test_settings_that_cannot_be_are_one_line(words, told, place, capsys):
    assert told in refused(place, lambda: place.train(*words), capsys)


def test_how_many_processes_are_started():
    assert processes_to_start({}) == processes_to_start({"devices": 1}) == 0
    assert processes_to_start({"devices": 3}) == 3
    assert processes_to_start({"devices": [0, 2]}) == 2
    assert processes_to_start({"devices": "auto", "accelerator": "cpu"}) == 0
    assert trainer_options({"log_every_n_steps": 2}) == {"devices": 1, "log_every_n_steps": 2}
    assert torch.distributed.is_initialized() is False
