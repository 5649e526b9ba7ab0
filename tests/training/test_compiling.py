"""Compiled networks train to the numbers of those that are not, keep their names, and resume."""

import pytest
import torch

from eqgan.groups import P4, Z2
from eqgan.networks import P4CNNClassifier
from eqgan.training import compiling
from eqgan.training.callbacks import read_checkpoint
from tests.training.runs import refused

pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # dynamo's own
# this backend traces forward and backward like any other, and needs no compiler
TRACED = ("--compile", "aot_eager")
# in float64: Adam makes whole steps of what is rounding in float32
SMALL = {
    "evaluation__samples": 32,
    "fraction": 0.3,
    "discriminator__spectral": "bank",
    "precision": "64-true",
}


@pytest.fixture
def eager_run(shared):
    if not shared.logs("as-written").exists():
        shared.train("--name", "as-written", "--epochs", "2", **SMALL)
    return read_checkpoint(shared.last("as-written"))


def furthest(ours, theirs):
    assert ours["state_dict"].keys() == theirs["state_dict"].keys()
    # the bias of the last layer does not change a relativistic loss: Adam enlarges what is rounding
    names = [name for name in ours["state_dict"] if name != "discriminator.head.bias"]
    states = (ours["state_dict"], theirs["state_dict"])
    return max((states[0][n].double() - states[1][n].double()).abs().max().item() for n in names)


@pytest.mark.usefixtures("without_shape_checks")
def test_a_compiled_run_has_the_same_numbers_and_resumes(shared, eager_run, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", _noting(torch.nn.Module.compile, compiled), raising=True)
    shared.train("--name", "traced", "--epochs", "1", *TRACED, **SMALL)
    assert compiled == ["aot_eager", "aot_eager"], "generator and discriminator"
    summary = shared.resume("traced", "--epochs", "2")
    assert compiled == ["aot_eager"] * 4, "a bare --resume compiles too"
    assert furthest(eager_run, read_checkpoint(shared.last("traced"))) < 1e-6
    assert summary["fid_final"] == pytest.approx(float(shared.rows("as-written")[-1]["fid"]), rel=0.05)


@pytest.mark.parametrize(
    ("group", "backend", "options"),
    [(P4, "inductor", {"layout_optimization": False}), (P4, "aot_eager", None), (Z2, "inductor", None)],
    ids=str,
)
def test_maps_whose_fields_are_normalised_keep_their_layout_on_a_cpu(monkeypatch, group, backend, options):
    called = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **given: called.append(given))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    compiling.compile_network(P4CNNClassifier((1, 22, 22), 3, group, width=4), backend)
    assert called == [{"backend": backend, "dynamic": False, "options": options}]


def _noting(compile_, compiled):
    def noted(self, *args, **options):
        compiled.append(options["backend"])
        return compile_(self, *args, **options)

    return noted


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # compilers look at everything that is imported
@pytest.mark.usefixtures("without_shape_checks")
def test_the_default_compiler(shared):
    for name, words in (("written", ()), ("inductor", ("--compile",))):
        shared.train("--name", name, "--epochs", "2", *words, **SMALL)
    ours, theirs = (read_checkpoint(shared.last(name)) for name in ("written", "inductor"))
    assert furthest(ours, theirs) < 1e-6


def test_without_a_compiler_there_is_one_line(place, capsys, monkeypatch):
    def broken(*args, **options):
        raise RuntimeError("backend='inductor' raised:\nNo working C++ compiler found\nmore")

    monkeypatch.setattr(torch, "compile", broken)
    line = refused(place, lambda: place.train("--compile"), capsys)
    told = "(backend='inductor' raised: No working C++ compiler found)"
    assert f"--compile: inductor does not work on this machine {told}" in line
    assert "leave out --compile" in line


def test_an_unknown_backend_names_the_nearest(place, capsys):
    line = refused(place, lambda: place.train("--compile", "inducter"), capsys)
    assert "no backend 'inducter'; did you mean 'inductor'?" in line


def test_eager_is_nothing_for_networks_that_are_not_compiled():
    with compiling.eager(torch.nn.Linear(1, 1)) as nothing:
        assert nothing is None
