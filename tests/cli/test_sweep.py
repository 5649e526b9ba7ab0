"""Sweeps: the runs of a grid, merged without loss although a worker is killed; what is refused, and how."""

import csv
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import yaml

import eqgan
from eqgan.cli import sweep as module
from eqgan.cli.sweep import sweep
from eqgan.cli.sweep_file import read_sweep
from eqgan.training.callbacks import read_checkpoint
from tests.complaints import complaint_of
from tests.training.runs import TINY, Place, differences

CONFIGS = Path(eqgan.__file__).parents[1] / "configs"
TINIEST = TINY | {"evaluation.samples": 32, "fraction": 0.2}


def without(*keys: str, **more) -> dict:
    return {key: value for key, value in TINIEST.items() if key not in (*keys, "seed")} | more


def write(path: Path, **content) -> Path:
    given = {"settings": without("disc", "loss"), "grid": {"disc": ["z2", "p4"]}, "seeds": [3]} | content
    path.write_text(yaml.safe_dump({key: value for key, value in given.items() if value is not None}))
    return path


def words(path: Path, *more: str) -> list[str]:
    return [str(path), "--out", str(path.parent / "sweeps"), *more]


def refusal(capsys, argv, code=1):
    return complaint_of(lambda: sweep(argv), capsys, code, told=True)


def kill_in_the_middle(folder: Path, run: str, killed: list[int], over: threading.Event) -> None:
    """As soon as the run has a checkpoint, the process that holds its lock is killed."""
    last, lock = folder / "logs" / run / "checkpoints" / "last.ckpt", folder / "logs" / f".{run}.lock"
    while not killed and not over.is_set():
        if last.exists() and lock.exists():
            killed.append(int(json.loads(lock.read_text())["process"]))
            os.kill(killed[0], signal.SIGKILL)
        time.sleep(0.01)


def test_a_worker_is_killed_and_the_results_are_whole(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module, "POLL", 0.1)
    path = write(tmp_path / "two.yaml", settings=without("disc", epochs=5))
    folder, killed, over = tmp_path / "sweeps" / "two", [], threading.Event()
    killer = threading.Thread(target=kill_in_the_middle, args=(folder, "disc_p4-s3", killed, over))
    killer.start()
    try:
        merged = sweep(words(path, "--workers", "2", "--json"))
    finally:
        over.set()
        killer.join()
    told = capsys.readouterr()
    assert killed, "no worker was killed"
    assert "the worker of disc_p4-s3 died: another one goes on with it" in told.err
    assert json.loads(told.out) == json.loads((folder / "results.json").read_text())
    assert [row["state"] for row in merged["table"]] == ["finished", "finished"]
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    told = [[row[key] for key in ("disc", "seed", "epochs")] for row in rows]
    assert told == [["z2", "3", "5"], ["p4", "3", "5"]]
    assert all(float(row["fid_min"]) > 0 for row in rows)
    alone = Place(tmp_path / "alone")
    alone.train("--name", "undisturbed", **TINIEST, epochs=5)
    ours = read_checkpoint(folder / "logs/disc_p4-s3/checkpoints/last.ckpt")
    assert differences(ours["state_dict"], read_checkpoint(alone.last("undisturbed"))["state_dict"]) == []
    before = (folder / "logs/disc_p4-s3/summary.json").stat().st_mtime_ns
    sweep(words(path))
    assert "finished" in capsys.readouterr().out
    assert (folder / "logs/disc_p4-s3/summary.json").stat().st_mtime_ns == before, "not repeated"


def test_a_run_that_fails_is_told_and_the_others_are_kept(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module, "POLL", 0.1)
    grid = {"batch-size": [128, 4096]}
    path = write(tmp_path / "one.yaml", settings=without("batch-size", epochs=1), grid=grid)
    with pytest.raises(SystemExit) as stop:
        sweep(words(path))
    assert stop.value.code == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "1 of 2 runs failed (batch-size_4096-s3: digits: expected at least one batch" in line
    merged = json.loads((tmp_path / "sweeps/one/results.json").read_text())
    assert [row["state"] for row in merged["table"]] == ["finished", "failed"]


def test_a_dry_run_lists_the_runs_and_starts_none(tmp_path, capsys):
    grid = {"disc": ["z2", "p4"], "gan.lr_generator": [1e-4, 1e-3]}
    path = write(tmp_path / "dry.yaml", grid=grid, seeds=2)
    listed = sweep(words(path, "--dry-run"))
    names = [run["run"] for run in listed["runs"]]
    assert names[:3] == [
        "disc_z2-lr_generator_0.0001-s0",
        "disc_z2-lr_generator_0.0001-s1",
        "disc_z2-lr_generator_0.001-s0",
    ]
    assert len(set(names)) == 8
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["new", f"{name}:"] for name in names]
    assert not (tmp_path / "sweeps").exists()
    sweep(words(path, "--dry-run", "--json"))
    assert json.loads(capsys.readouterr().out) == listed


@pytest.mark.parametrize("path", sorted((CONFIGS / "sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_sweeps_that_are_shipped_can_be_read(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # from wherever
    assert len(read_sweep(path, tmp_path).runs) == 27


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"girds": {"disc": ["p4"]}}, "unknown key 'girds'; did you mean 'grid'?"),
        ({"grid": {"dics": ["p4"]}}, "unknown setting 'dics'; did you mean 'disc'?"),
        ({"grid": {"disc": ["p4", "p5"]}}, "p5"),
        ({"settings": {"losss": "ra"}}, "unknown setting 'losss'; did you mean 'loss'?"),
        ({"grid": {"loss": ["ra", "hing"]}}, "did you mean 'hinge'?"),
        ({"grid": None}, "grid: expected at least one setting"),
        ({"grid": {"disc": []}}, "grid.disc: expected a list of values, got []"),
        ({"grid": {"disc": "p4"}}, "grid.disc: expected a list of values, got 'p4'"),
        ({"grid": {"disc": ["p4", "p4"]}}, "two runs would be named 'disc_p4-s3'"),
        ({"grid": {"seed": [1, 2]}}, "seed cannot be set"),
        ({"settings": {"log_dir": "x"}}, "log_dir cannot be set"),
        ({"settings": ["disc"]}, "settings: expected 'setting: value' lines"),
        ({"seeds": 0}, "seeds: expected their number"),
        ({"seeds": [-1]}, "seeds: expected their number"),
        ({"command": "trian"}, "unknown command 'trian'; did you mean 'train'?"),
        ({"name": "a/b"}, "--name 'a/b': expected letters"),
    ],
)
def test_what_cannot_be_is_one_line(content, told, tmp_path, capsys):
    path = write(tmp_path / "bad.yaml", **content)
    assert told in refusal(capsys, words(path))
    assert not (tmp_path / "sweeps").exists()


def test_files_that_are_none(tmp_path, capsys):
    assert "absent.yaml: expected a sweep" in refusal(capsys, words(tmp_path / "absent.yaml"))
    (tmp_path / "text.yaml").write_text("a: [")
    assert "text.yaml: expected YAML" in refusal(capsys, words(tmp_path / "text.yaml"))
    (tmp_path / "list.yaml").write_text("- 1")
    assert "known: name, command, settings" in refusal(capsys, words(tmp_path / "list.yaml"))


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    path = write(tmp_path / "good.yaml")
    (tmp_path / "sweeps").write_text("a file")
    assert "could not write" in refusal(capsys, words(path))


def test_config_files_are_looked_for_beside_the_sweep(tmp_path, monkeypatch):
    (tmp_path / "far" / "sweeps").mkdir(parents=True)
    (tmp_path / "far" / "run.yaml").write_text("epochs: 3\n")
    path = tmp_path / "far" / "sweeps" / "some.yaml"
    path.write_text("settings: {config: ../run.yaml}\ngrid: {disc: [p4]}\nseeds: 1\n")
    monkeypatch.chdir(tmp_path)
    (run,) = read_sweep(path, tmp_path / "out").runs
    assert Path(run.words[run.words.index("--config") + 1]).read_text() == "epochs: 3\n"
    (tmp_path / "here.yaml").write_text("epochs: 4\n")
    path.write_text("settings: {config: here.yaml}\ngrid: {disc: [p4]}\nseeds: 1\n")
    (run,) = read_sweep(path, tmp_path / "out").runs
    assert run.words[run.words.index("--config") + 1] == "here.yaml"


def test_other_settings_under_one_name_are_refused(tmp_path, capsys):
    path = write(tmp_path / "same.yaml")
    folder = tmp_path / "sweeps" / "same"
    for run in read_sweep(path, tmp_path / "sweeps").runs:
        run.folder.logs.mkdir(parents=True)
        run.folder.config.write_text("seed: 3")
    (folder / "runs.json").write_text(json.dumps({"disc_z2-s3": ["--disc", "pm"]}))
    assert "was begun as '--disc pm', the file now says" in refusal(capsys, words(path))


def test_without_submitit(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "submitit", None)
    assert "pip install -e '.[sweep]'" in refusal(capsys, words(write(tmp_path / "good.yaml")))


def test_help_has_examples_and_a_wrong_option_is_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        sweep(["--help"])
    assert stop.value.code == 0
    assert "eqgan sweep configs/sweeps/data_efficiency.yaml --dry-run" in capsys.readouterr().out
    assert "did you mean '--workers'?" in refusal(capsys, ["x.yaml", "--worker", "2"], code=2)
    assert "expected a whole number of at least 1" in refusal(capsys, ["x.yaml", "--workers", "0"], code=2)
