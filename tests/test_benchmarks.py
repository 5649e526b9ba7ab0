"""The committed programs: what they plan, skip and put into their tables. No training happens here."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from eqgan.cli.classify import parse_classify
from eqgan.cli.runs import plain_settings
from eqgan.training.rebuild import build


@pytest.fixture(scope="module")
def program(beside_each_other):
    return importlib.import_module("classify_rotmnist")


def made_up(task):
    """The summary of a training that never happened."""
    keys = ("parameters", "multiply_adds", "epochs", "steps", "training_seconds", "images_per_second")
    scores = {"error": 0.01 * (1 + task.seed) / task.fraction, "auc": 0.9, "count": 10}
    return {
        **dict.fromkeys(keys, 1),
        "group": "p4",
        "data": {"train": round(12_000 * task.fraction)},
        "test": {"rotmnist": scores, "mnist": scores},
        "invariance_error": 0.0,
        "training_error": 0.25,
        "settings": {
            **dict.fromkeys(("optimizer", "schedule", "network", "augment", "precision")),
            "dataset": {"batch_size": 128, "root": "a place"},
            "finetune": {"trainable": "head"},
            "init": "another place",
        },
        "convolution_paths": {"network": {"body.0": "bank", "body.1": "fourier", "body.2": "bank"}},
        "versions": {"hardware": "none"},
    }


@pytest.fixture
def trained(program, monkeypatch, tmp_path):
    """Runs the program with words, trainings being made up; its results, and the names of what it ran."""
    ran = []

    def run(task, work, epochs, source, extra):
        ran.append(task.name)
        if task.row in fails:
            raise RuntimeError(f"{task.name} ended with status 1; see its log")
        return made_up(task)

    monkeypatch.setattr(program, "run", run)
    fails: set[str] = set()

    def call(*words, failing=()):
        fails.clear(), fails.update(failing), ran.clear()
        out = tmp_path / "results.json"
        places = ["--out", str(out), "--pictures", str(tmp_path), "--work", str(tmp_path / "work")]
        monkeypatch.setattr(sys, "argv", ["program", *words, *places])
        program.main()
        return json.loads(out.read_text()), list(ran)

    return call


def test_every_row_has_a_config(program):
    for row in (*program.ROWS, *program.CURVE):
        words = program.Task(row, 1.0, 0).words(None, "rotmnist")
        assert Path(words[words.index("--config") + 1]).is_file()


def test_few_images_do_not_mean_few_steps(program):
    whole, part = (program.Task("p4cnn_max", share, 0).words(None, "rotmnist") for share in (1.0, 0.05))
    assert "--dataset.passes" not in whole
    assert part[part.index("--dataset.passes") + 1] == "20"
    assert all(words[words.index("--epochs") + 1] == "100" for words in (whole, part))
    assert program.Task("p4cnn_max+rotation", 1.0, 0).words(5, "rotmnist")[-2:] == ["--augment", "rotation"]


def test_the_table_and_the_pictures(trained, tmp_path):
    words = ["--rows", "p4cnn_max,z2cnn+rotation", "--curve", "p4cnn_max", "--fractions", "0.1,1"]
    result, ran = trained(*words, "--seeds", "0,1")
    assert len(ran) == 6
    rows = {(row["row"], row["fraction"]): row for row in result["table"]}
    full = rows["p4cnn_max", 1.0]
    assert full["error_rotmnist"]["mean"] == pytest.approx(0.015)
    assert full["error_rotmnist"]["min"] == 0.01
    assert (full["published"], full["reproduced_elsewhere"]) == (0.0228, 0.0279)
    assert rows["z2cnn+rotation", 1.0]["published"] == 0.0503
    assert "published" not in rows["p4cnn_max", 0.1]
    assert {p.name for p in tmp_path.glob("*.png")} == {"classify_rotmnist.png"}, "one share is no curve"
    trained(*words[:-1], "0.1,0.5,1", "--seeds", "0,1")
    assert (tmp_path / "data_efficiency.png").is_file()


def test_a_record_says_what_defines_the_run_and_no_place(trained):
    result, _ = trained("--rows", "p4cnn", "--fractions", "", "--seeds", "0")
    (record,) = result["runs"].values()
    assert record["settings"]["dataset"] == {"batch_size": 128}
    assert record["settings"]["finetune"] == {"trainable": "head"}
    assert record["convolutions"] == {"bank": 2, "fourier": 1}
    assert "place" not in json.dumps(record)


def test_what_is_finished_is_not_repeated(trained):
    words = ["--rows", "p4cnn_max", "--fractions", "", "--seeds"]
    trained(*words, "0")
    result, ran = trained(*words, "0,1")
    assert ran == ["p4cnn_max-s1"]
    assert sorted(result["runs"]) == ["p4cnn_max-s0", "p4cnn_max-s1"]
    with pytest.raises(
        SystemExit, match=r"another plan .form full, now custom; epochs None, now 3.: give another"
    ):
        trained(*words, "0", "--epochs", "3")
    assert trained(*words, "0")[0] == result, "nothing was lost"


def test_the_forms_say_which_they_are(trained, program, tmp_path):
    forms = {}
    for words in ((), ("--quick",), ("--quick", "--fit.turns", "2"), ("--lr", "0.1")):
        result, _ = trained("--rows", "z2cnn", "--fractions", "", "--seeds", "0", *words)
        forms[words] = result["form"], result["epochs"], result["options"]
        (tmp_path / "results.json").unlink()
    quick = program.QUICK[1]
    assert forms == {
        (): ("full", None, []),
        ("--quick",): ("quick", 8, quick),
        ("--quick", "--fit.turns", "2"): ("quick", 8, [*quick, "--fit.turns", "2"]),
        ("--lr", "0.1"): ("custom", None, ["--lr", "0.1"]),
    }


def test_every_row_and_form_is_a_command_that_parses(program):
    for row in program.ROWS:
        parse_classify(program.Task(row, 1.0, 0).words(None, "rotmnist"))
    for row in program.QUICK_ROWS:
        _, config = parse_classify([*program.Task(row, 0.1, 0).words(8, "rotmnist"), *program.QUICK[1]])
        assert (config.epochs, config.dataset.passes, config.optimizer.init_args.lr) == (8, 10, 0.004)


def test_one_that_fails_does_not_stop_the_others(trained, tmp_path, capsys):
    with pytest.raises(SystemExit, match="failed: z2cnn-s0"):
        trained("--rows", "z2cnn,p4cnn_max", "--fractions", "", "--seeds", "0", failing=["z2cnn"])
    assert "z2cnn-s0 ended with status 1" in capsys.readouterr().err
    assert list(json.loads((tmp_path / "results.json").read_text())["runs"]) == ["p4cnn_max-s0"]


def test_a_finished_run_of_other_settings_is_not_taken_for_this_one(program, tmp_path):
    folder = tmp_path / "logs" / "p4cnn_max-s0"
    folder.mkdir(parents=True)
    task = program.Task("p4cnn_max", 1.0, 0)
    settings = plain_settings(*parse_classify([*task.words(3, "rotmnist"), "--lr", "0.004"]))
    (folder / "summary.json").write_text(json.dumps({"settings": settings}))
    (folder / "metrics.csv").write_text("epoch,accuracy,loss\n0,0.5,2\n1,0.75,1\n")
    found = program.run(task, tmp_path, 3, "rotmnist", ["--lr", "0.004", "--data-root", "elsewhere"])
    assert (found["settings"], found["training_error"]) == (settings, 0.25)
    for epochs, words, told in ((None, ["--lr", "0.004"], "epochs"), (3, [], "optimizer.init_args.lr")):
        with pytest.raises(RuntimeError, match=rf"other settings \({told}\): choose another --work"):
            program.run(task, tmp_path, epochs, "rotmnist", words)


@pytest.fixture(scope="module")
def cifar(beside_each_other):
    return importlib.import_module("classify_cifar10")


def test_the_cifar_rows_have_every_setting_of_their_form(cifar, monkeypatch, tmp_path, capsys):
    ran = {}

    def run(task, work, epochs, source, extra):
        ran[task.name] = epochs, source, extra
        summary = made_up(task)
        return {**summary, "test": {"cifar10-17k": summary["test"]["mnist"]}}

    monkeypatch.setattr(cifar, "run", run)
    out = tmp_path / "out.json"
    places = ["--out", str(out), "--picture", str(tmp_path / "picture.png")]
    monkeypatch.setattr(sys, "argv", ["program", "--quick", "--seeds", "0,1", "--data-root", "D", *places])
    cifar.main()
    assert list(ran)[:4] == ["allcnn_z2-s0", "allcnn_p4-s0", "allcnn_p4m-s0", "allcnn_z2-s1"]
    assert len(ran) == 12
    epochs, source, words = ran["allcnn_p4m_plus-s1"]
    assert (epochs, source, words[-2:]) == (10, "cifar10", ["--data-root", "D"])
    for setting in (("--network.width", "16"), ("--batch-size", "64"), ("--network.dropout", "[0,0,0]")):
        assert words[words.index(setting[0]) + 1] == setting[1]
    result = json.loads(out.read_text())
    assert (result["form"], result["epochs"], result["data"]) == ("quick", 10, "cifar10")
    assert [row["row"] for row in result["table"]] == [*cifar.PLAIN, *cifar.PLUS]
    row = result["table"][2]
    assert (row[cifar.MARK], row["training_images"], row["training_error"]) == (0.0759, 12_000, 0.25)
    assert row["error_cifar10-17k"]["mean"] == pytest.approx(0.015)
    assert (tmp_path / "picture.png").is_file()
    ran.clear()
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--rows", "allcnn_z2,resnet44_p4m"])
    cifar.main()
    assert list(ran) == ["resnet44_p4m-s0", "resnet44_p4m-s1"], "what has its record is not repeated"
    assert "--network.dropout" not in ran["resnet44_p4m-s0"][2], "it has none"


def test_the_cifar_rows_are_commands_that_parse_and_have_equal_parameters(cifar):
    counts = {}
    for form in (cifar.FULL, cifar.QUICK, cifar.CHECK):
        for task in cifar.tasks(form.rows, [0], [1.0]):
            _, config = parse_classify([*task.words(form.epochs, form.data), *form.words_for(task.row)])
            network = build(config.network, image_shape=(3, 32, 32), num_classes=10)
            name = form.name, task.row.partition("_")[0]
            counts.setdefault(name, []).append(sum(p.numel() for p in network.parameters()))
    assert max(counts["quick", "allcnn"]) < 1.05 * min(counts["quick", "allcnn"])
    assert sorted({round(count, -4) for count in counts["full", "allcnn"]}) == [1_220_000, 1_370_000]
    assert round(counts["full", "resnet44"][0], -4) == 2_620_000


def test_transfer_starts_from_plain_networks(beside_each_other, monkeypatch, tmp_path, capsys):
    transfer = importlib.import_module("transfer")
    begun = {}

    def run(task, work, epochs, source, extra):
        begun[task.name] = source, task.init and task.init.relative_to(tmp_path / "work").as_posix()
        return made_up(task)

    monkeypatch.setattr(transfer, "run", run)
    places = ["--out", str(tmp_path / "out.json"), "--picture", str(tmp_path / "picture.png")]
    words = ["--rows", "p4,inflated", "--seeds", "1", "--fractions", "0.5"]
    monkeypatch.setattr(sys, "argv", ["program", *words, *places, "--work", str(tmp_path / "work")])
    transfer.main()
    assert begun == {
        "pretrain-s1": ("cifar10", None),
        "p4-50pct-s1": ("mirabest", None),
        "inflated-50pct-s1": ("mirabest", "cifar10/logs/pretrain-s1/checkpoints/last.ckpt"),
    }
    assert "inflated-50pct-s1 rotmnist AUC 0.9000 mnist AUC 0.9000" in capsys.readouterr().out
    assert [row["row"] for row in json.loads((tmp_path / "out.json").read_text())["table"]] == [
        "inflated",
        "p4",
    ]
    assert (tmp_path / "picture.png").is_file()
    (start,) = json.loads((tmp_path / "out.json").read_text())["started_from"].items()
    assert (start[0], start[1]["row"]) == ("seed 1", "pretrain")
    begun.clear()
    transfer.main()
    assert set(begun) == {"pretrain-s1"}, "what has its record is not repeated"


def test_an_option_of_transfer_changes_its_form_and_more_seeds_do_not(
    beside_each_other, monkeypatch, tmp_path
):
    transfer = importlib.import_module("transfer")
    ran = []

    def run(task, work, epochs, source, extra):
        ran.append((task.name, epochs, source, extra))
        return made_up(task)

    monkeypatch.setattr(transfer, "run", run)

    def call(*words, out="out.json"):
        ran.clear()
        places = ["--out", str(tmp_path / out), "--picture", str(tmp_path / "picture.png")]
        monkeypatch.setattr(sys, "argv", ["program", "--quick", "--rows", "p4", *places, *words])
        transfer.main()
        return list(ran)

    narrow = [*transfer.QUICK.words]
    assert call("--seeds", "0", "--fractions", "1") == [("p4-s0", 20, "mirabest", narrow)]
    assert [name for name, *_ in call("--seeds", "0,1", "--fractions", "1,0.5")] == [
        "p4-50pct-s0",
        "p4-s1",
        "p4-50pct-s1",
    ]
    longer = ["--seeds", "0", "--fractions", "1", "--epochs", "3"]
    with pytest.raises(SystemExit, match=r"another plan .epochs 20, now 3.: give another --out"):
        call(*longer)
    assert call(*longer, out="longer.json") == [("p4-s0", 3, "mirabest", narrow)]


def test_a_part_of_the_speed_that_is_measured_again_leaves_the_others(
    beside_each_other, monkeypatch, tmp_path
):
    speed = importlib.import_module("speed")
    out = tmp_path / "speed.json"
    for part, rounds in (("start_up", "5"), ("evaluation", "9")):
        monkeypatch.setattr(speed, part, lambda *_, part=part: {"seconds": len(part)})
        monkeypatch.setattr("sys.argv", ["speed.py", "--only", part, "--rounds", rounds, "--out", str(out)])
        speed.main()
    found = json.loads(out.read_text())
    assert (found["start_up"], found["evaluation"]) == ({"seconds": 8}, {"seconds": 10})
    assert {name: how["rounds"] for name, how in found["measured"].items()} == {
        "start_up": 5,
        "evaluation": 9,
    }


def test_a_run_that_fails_does_not_stop_the_others(beside_each_other, capsys):
    many_runs = importlib.import_module("many_runs")
    ends = {"a": RuntimeError("diverged"), "b": SystemExit(1), "c": SystemExit(130), "d": None}

    def make(name):
        if ends[name] is not None:
            raise ends[name]
        return {"fid": 2.0}

    assert many_runs.each("abd", make) == ["a", "b"]
    out, err = capsys.readouterr()
    assert (out, err) == ("d 2.0\n", "a: diverged\nb: 1\n")
    with pytest.raises(SystemExit):
        many_runs.each("cd", make)
