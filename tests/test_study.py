"""The study of groups, images and generators: what it plans, tells and does not repeat."""

import dataclasses
import importlib
import itertools
import json

import matplotlib.pyplot as plt
import numpy as np
import pytest

from eqgan.cli import parse_gan, prepare, train_gan
from eqgan.cli.runs import plain_settings
from eqgan.training.lock import RunLock
from tests.programs import BENCHMARKS


@pytest.fixture(scope="module")
def study(beside_each_other):
    return importlib.import_module("study")


def test_the_study_is_made_of_commands_that_parse(study, tmp_path):
    for form in (study.FULL, study.WHOLE_QUICK, study.CHECK):
        planned = list(study.cells(form))
        assert len({cell.name for cell in planned}) == len(planned)
        for cell in planned:
            _, config = parse_gan(study.words(cell, form, []))
            each = config.dataset.passes * round(form.images * cell.share)
            assert each >= form.steps // study.EPOCHS * form.batch, "an epoch ends before its steps are made"
    assert set(study.cells(study.FULL)) == set(study.cells(study.WHOLE_QUICK)) > set(study.cells(study.QUICK))
    assert len(list(study.cells(study.FULL))) == 5 * 4 * 3 * 3


def test_the_networks_of_the_study_have_equal_parameters(study):
    """Whatever the group and the kind of the generator."""
    for form in (study.FULL, study.WHOLE_QUICK):
        counts = {}
        for cell in study.cells(dataclasses.replace(form, shares=(1.0,), seeds=(0,))):
            run, _ = prepare(*parse_gan([*study.words(cell, form, []), "--data", "digits"]))
            for role in ("generator", "discriminator"):
                network = getattr(run.gan, role)
                counts.setdefault(role, []).append(sum(p.numel() for p in network.parameters()))
        for role, found in counts.items():
            assert max(found) < 1.2 * min(found), (role, found)


def test_the_study_is_told_from_what_is_finished(study, tmp_path):
    form, work = study.QUICK, tmp_path / "work"
    fids = {"z2": 40.0, "z2+rotation": 30.0, "p4": 10.0, "p4m": 12.0}
    grid = np.zeros((8, 8, 3))
    for cell in study.cells(form):
        if cell.share == 0.1:
            study.write(
                work / "results" / f"{cell.name}.json", made_up_cell(cell, fids[cell.disc] + cell.seed)
            )
            (work / "samples" / cell.name).mkdir(parents=True)
            for name in ("real.png", "epoch_0005.png"):
                plt.imsave(work / "samples" / cell.name / name, grid)
    study.report(form, "quick", work, tmp_path / "study.json", tmp_path / "docs")
    result = json.loads((tmp_path / "study.json").read_text())
    assert (result["finished"], result["planned"]) == (24, 48)
    row = next(r for r in result["table"] if (r["generator"], r["discriminator"]) == ("conv", "p4"))
    assert row["fid"] == {"mean": 11.0, "min": 10.0, "max": 12.0}
    page = (tmp_path / "docs" / "study.md").read_text()
    told = "10 %, conv generator, over z2: p4 0.27 (0.25); p4m 0.32 (0.30); z2+rotation 0.76 (0.75)."
    assert f"{told} At most half: met by the means, met by the least." in page
    pictures = {p.name for p in (tmp_path / "docs" / "images").iterdir()}
    assert pictures == {"study.png", "study_samples.png"}
    assert all(f"(images/{name})" in page for name in pictures), "a picture that no page shows"


def test_the_study_goes_on_from_its_results_file(study, tmp_path):
    """What another machine finished is told again and not repeated, if its settings are those of now."""
    work, out, docs = tmp_path / "work", tmp_path / "study.json", tmp_path / "docs"
    first, second = itertools.islice(study.cells(study.QUICK), 2)
    study.write(work / "results" / f"{first.name}.json", made_up_cell(first, 50.0))
    study.report(study.QUICK, "quick", work, out, docs)
    study.write(tmp_path / "other" / "results" / f"{second.name}.json", made_up_cell(second, 60.0))
    study.report(study.WHOLE_QUICK, "quick", tmp_path / "other", out, docs)
    assert [run["fid"] for run in json.loads(out.read_text())["runs"]] == [50.0, 60.0]
    assert set(study.recorded(study.WHOLE_QUICK, out)) == {first.name, second.name}
    for changed in (
        dataclasses.replace(study.QUICK, steps=600),
        dataclasses.replace(study.QUICK, settings=()),
        dataclasses.replace(study.QUICK, generators={**study.QUICK.generators, first.gen: ("--x", "1")}),
        study.FULL,
    ):
        assert study.recorded(changed, out) == {}
    out.write_text("{}")
    with pytest.raises(ValueError, match="no results file of the study: give another --out"):
        study.recorded(study.QUICK, out)


def test_records_and_runs_of_other_settings_are_not_taken_for_ours(study, monkeypatch, tmp_path):
    many_runs = importlib.import_module("many_runs")
    cell = next(study.cells(study.CHECK))
    monkeypatch.setattr(study, "trained", lambda *_: made_up_cell(cell, 3.0))
    assert study.run(cell, study.CHECK, tmp_path, ["--data-root", "here"])["fid"] == 3.0
    assert study.run(cell, study.CHECK, tmp_path, ["--data-root", "there"])["fid"] == 3.0
    longer = dataclasses.replace(study.CHECK, steps=12)
    with pytest.raises(
        RuntimeError, match=r"s0\.json is of a run with other settings: choose another --work"
    ):
        study.run(cell, longer, tmp_path, [])
    words = study.words(cell, study.CHECK, [])
    kept = {"settings": plain_settings(*parse_gan([*words, "--name", "x", "--precision", "32-true"]))}
    study.write(tmp_path / "logs" / cell.name / "summary.json", kept)
    assert many_runs.gan_summary(tmp_path, cell.name, [*words, "--data-root", "there"]) == kept
    with pytest.raises(RuntimeError, match=r"other settings \(trainer\.limit_train_batches\)"):
        many_runs.gan_summary(tmp_path, cell.name, study.words(cell, longer, []))


def test_a_check_replaces_no_result(study, tmp_path):
    """What it would write into the repository by default goes to where its runs are."""
    many_runs = importlib.import_module("many_runs")
    parser = many_runs.parser_of_forms("study", "", "quick")
    usual = parser.parse_args([])
    assert usual.out == BENCHMARKS / "results" / "study.json"
    checked = parser.parse_args(["--check", "--work", str(tmp_path)])
    assert checked.work == tmp_path
    assert checked.out == tmp_path / "benchmarks" / "results" / "study.json"
    assert checked.docs == tmp_path / "docs"
    assert parser.parse_args(["--check", "--out", str(tmp_path / "x.json")]).out == tmp_path / "x.json"


def test_a_cell_that_another_process_holds_is_left_to_it(study, monkeypatch, tmp_path):
    cell = next(study.cells(study.QUICK))
    monkeypatch.setattr(study, "trained", lambda *_: made_up_cell(cell, 3.0))
    with RunLock(tmp_path / "locks" / f"{cell.name}.lock"):
        assert study.run(cell, study.QUICK, tmp_path, []) is None
    assert study.run(cell, study.QUICK, tmp_path, [])["fid"] == 3.0
    monkeypatch.setattr(study, "trained", lambda *_: pytest.fail("a finished cell was repeated"))
    assert study.run(cell, study.QUICK, tmp_path, [])["fid"] == 3.0


def test_a_cell_of_the_study_that_was_interrupted_is_resumed(study, tmp_path, monkeypatch):
    """As after a kill in its second epoch: the rest is trained, and all that the study tells is scored."""
    many_runs = importlib.import_module("many_runs")
    monkeypatch.setenv("EQGAN_CACHE", str(tmp_path))
    cell = study.Cell(0.5, "z2+rotation", "equivariant", 0)
    words = study.words(cell, study.CHECK, [])
    train_gan([*words, *many_runs.places(tmp_path), "--name", cell.name, "--epochs", "1"])
    (tmp_path / "logs" / cell.name / "summary.json").unlink()
    before = (tmp_path / "samples" / cell.name / "epoch_0000.png").stat().st_mtime_ns
    found = study.run(cell, study.CHECK, tmp_path, [])
    assert found["steps"] == len(found["curve"]) == study.EPOCHS
    assert (tmp_path / "samples" / cell.name / "epoch_0000.png").stat().st_mtime_ns == before
    assert found["orientation"]["samples"] >= 0
    assert found["memorisation"]["ratio"] > 0
    assert study.run(cell, study.CHECK, tmp_path, []) == found


def made_up_cell(cell, fid):
    """The scores of a run of the study that never happened."""
    return {
        **vars(cell),
        **dict.fromkeys(("precision", "recall", "coverage"), 0.5),
        "fid": fid,
        "fid_final": fid + 1,
        "fid_without_group_element": None if cell.group == "z2" else 2 * fid,
        "fid_moved_by_p4": fid if cell.group == "z2" else None,
        "orientation": {"samples": 1.0, "real": 0.5},
        "memorisation": {"share": 0.01, "ratio": 1.0},
        "parameters": {"generator": 1, "discriminator": 2},
        "hardware": "none",
        "precision_of_numbers": "32-true",
        "curve": [{"step": 1, "fid": 2 * fid, "cpu_seconds": 1}, {"step": 2, "fid": fid, "cpu_seconds": 2}],
    }
