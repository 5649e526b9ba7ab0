"""What is read of runs, whatever state they are in, and what of their pictures is kept."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from eqgan.training.callbacks.grid import save_grid
from eqgan.training.comparison import (
    RunRecord,
    compressed,
    differences,
    evenly,
    final_numbers,
    read_runs,
    scored_differently,
)
from tests.cli.made import made_run


def test_a_finished_run(tmp_path):
    (run,) = read_runs([made_run(tmp_path, "a", [50.0, 10.0, 12.0])])
    assert (run.label, run.finished, len(run.rows), sorted(run.grids)) == ("a", True, 3, [0, 1, 2])
    assert run.best()["epoch"] == 1
    numbers = final_numbers(run)
    assert numbers["fid_min"] == 9.87, "scored again"
    assert numbers["fid_final"] == 12.0
    assert numbers["training_seconds"] == 7.5
    assert numbers["discriminator_parameters"] == 4321


def test_a_run_in_progress_tells_what_it_has(tmp_path):
    (run,) = read_runs([made_run(tmp_path, "a", [50.0, None, 12.0, None], finished=False)])
    assert not run.finished
    numbers = final_numbers(run)
    assert (numbers["fid_min"], numbers["fid_min_epoch"], numbers["fid_final"]) == (12.0, 2, 12.0)
    assert numbers["epochs"] == 4


def test_a_resumed_run_is_in_progress_again(tmp_path):
    logs = made_run(tmp_path, "a", [3.0, 2.0])
    with (tmp_path / "samples" / "a" / "metrics.csv").open("a") as file:
        file.write("2,30,7.5,100,0.6,1.5,0.5,0.4,0.3,0.2,1.5\n")
    (run,) = read_runs([logs])
    assert not run.finished
    assert final_numbers(run)["fid_min"] == 1.5


def test_values_that_are_missing_or_not_finite_are_left_out(tmp_path):
    logs = made_run(tmp_path, "a", [3.0, math.nan, math.inf, None])
    (run,) = read_runs([logs])
    assert ["fid" in row for row in run.rows] == [True, False, False, False]


def test_runs_of_one_name_are_told_apart_and_none_is_shown_twice(tmp_path):
    first, second = (made_run(tmp_path / place, "a", [1.0]) for place in ("x", "y"))
    runs = read_runs([first, second, first])
    assert [run.label for run in runs] == ["x/logs/a", "y/logs/a"]


def test_samples_are_found_beside_logs_that_were_moved(tmp_path):
    logs = made_run(tmp_path / "there", "a", [1.0])
    (tmp_path / "there").rename(tmp_path / "here")
    moved = tmp_path / "here" / logs.relative_to(tmp_path / "there")
    assert len(read_runs([moved])[0].rows) == 1
    (tmp_path / "here" / "samples").rename(tmp_path / "pictures")
    with pytest.raises(ValueError, match="give --samples-dir"):
        read_runs([moved])
    assert len(read_runs([moved], tmp_path / "pictures")[0].rows) == 1


def test_what_is_no_run(tmp_path):
    made_run(tmp_path, "a", [1.0])
    with pytest.raises(FileNotFoundError, match=r"no run at .*b: expected the folder of a run.*logs: a\."):
        read_runs([tmp_path / "logs" / "b"])
    (tmp_path / "logs" / "c").mkdir()
    (tmp_path / "logs" / "c" / "config.yaml").write_text("network: {class_path: x}")
    with pytest.raises(ValueError, match="is the run of a classifier"):
        read_runs([tmp_path / "logs" / "c"])
    (tmp_path / "samples" / "a" / "metrics.csv").write_text("epoch,fid\n0,many\n")
    with pytest.raises(ValueError, match="expected a table of numbers"):
        read_runs([tmp_path / "logs" / "a"])


def test_only_differing_settings_are_told(tmp_path):
    folders = [made_run(tmp_path, "a", [1.0]), made_run(tmp_path, "b", [1.0], group="z2", seed=4)]
    assert differences(read_runs(folders)) == {
        "discriminator.init_args.group": ["p4", "z2"],
        "seed": [0, 4],
    }
    assert scored_differently(read_runs(folders)) == []
    assert differences(read_runs(folders[:1])) == {}


def test_a_setting_of_one_run_alone_differs():
    runs = [RunRecord("a", {"x": 1}, []), RunRecord("b", {}, [])]
    assert differences(runs) == {"x": [1, None]}


def test_runs_that_are_scored_differently(tmp_path):
    other = {"features": "inception", "reference": "auto", "samples": 100}
    folders = [made_run(tmp_path, "a", [1.0]), made_run(tmp_path, "b", [1.0], evaluation=other)]
    assert scored_differently(read_runs(folders)) == ["evaluation.features"]


@pytest.mark.parametrize(
    ("count", "kept"), [(1, [0]), (2, [0, 9]), (5, [0, 2, 4, 7, 9]), (10, list(range(10)))]
)
def test_grids_are_thinned_evenly(count, kept):
    assert evenly(range(10), count) == kept


def test_a_grid_is_kept_small_without_its_enlargement(tmp_path):
    images = torch.rand(64, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    save_grid(images, tmp_path / "grid.png")
    content, width, height = compressed(tmp_path / "grid.png")
    assert (width, height) == (8 * 29 + 1, 8 * 29 + 1)
    assert len(content) < (tmp_path / "grid.png").stat().st_size / 2
    kept = np.asarray(Image.open(io.BytesIO(content)).convert("L"), dtype=float)
    pixels = np.asarray(Image.open(tmp_path / "grid.png").convert("L"), dtype=float)[::3, ::3]
    assert np.abs(kept - pixels).mean() < 12, "noise, the worst there is"


def test_a_large_grid_is_made_smaller(tmp_path):
    save_grid(torch.zeros(9, 3, 128, 128), tmp_path / "grid.png")
    _, width, height = compressed(tmp_path / "grid.png")
    assert max(width, height) == 640


def test_a_broken_picture_is_named(tmp_path):
    (tmp_path / "grid.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"grid\.png: expected a picture"):
        compressed(tmp_path / "grid.png")
