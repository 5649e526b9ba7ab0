"""The command that audits a network: of one's own, by its dotted path; readable, as JSON, and as a gate."""

import re
from pathlib import Path

import pytest

import eqgan
from eqgan.cli.audit import audit_network as command
from eqgan.groups import P4
from tests.cli.made import saved, tiny_gan

MINE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.pool = nn.Conv2d(1, 8, 3, padding=1), nn.AvgPool2d(2)

    def forward(self, x):
        turned = [torch.rot90(self.conv(torch.rot90(x, k, (2, 3))), -k, (2, 3)).relu() for k in range(4)]
        return self.pool(sum(turned)).mean((2, 3))

def colour():
    return nn.Sequential(nn.Conv2d(3, 3, 1), nn.Tanh())

def needs(arguments):
    return None

def number():
    return 3
"""


@pytest.fixture(autouse=True)
def _mine(tmp_path):
    """A module in the working directory; its name is new each time, as imports are remembered."""
    (tmp_path / "nets_of_mine.py").write_text(MINE)


def test_the_table_ends_in_a_verdict(capsys):
    command(["nets_of_mine.Net", "--shape", "1,9,9", "--group", "p4", "--angles", "45"])
    out = " ".join(capsys.readouterr().out.split())
    assert "Not invariant under p4" in out
    assert "lost in pool (AvgPool2d)" in out
    command(["nets_of_mine.Net", "--shape", "1x8x8", "--group", "p4", "--angles", "none"])
    assert "Exactly invariant under p4" in " ".join(capsys.readouterr().out.split())


def test_json(json_of):
    told = json_of(command, "nets_of_mine:colour", "--shape", "3,10,10", "--angles", "0,45")
    assert told["law"] == "equivariant"
    assert told["exact_groups"][-1] == "p4m"
    assert told["rotations"][0]["psnr"] is None, "infinite is no JSON"
    assert told["rotations"][1]["psnr"] > 30
    assert [layer["name"] for layer in told["layers"]] == ["0", "1"]
    assert told["breaks_in"] is None


def test_it_can_be_a_gate(capsys):
    words = ["nets_of_mine.Net", "--group", "p4", "--angles", "none", "--json", "--shape"]
    command([*words, "1,8,8", "--require", "p4"])
    with pytest.raises(SystemExit) as stop:
        command([*words, "1,9,9", "--require", "p4"])
    assert stop.value.code == 1
    assert capsys.readouterr().err == "eqgan: error: nets_of_mine.Net is not exactly invariant under p4\n"


def test_real_images(json_of):
    told = json_of(command, "nets_of_mine.Net", "--shape", "1,28,28", "--data", "digits", "--angles", "45")
    assert told["shape"] == [1, 28, 28]


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        ("nets_of_mine.Net", 1, "give the shape of its input"),
        ("nets_of_mine:Nett --shape 1,8,8", 1, "Nearest names: Net"),
        ("nets_of_mine:needs --shape 1,8,8", 1, "calling it without arguments failed"),
        ("nets_of_mine:number --shape 1,8,8", 1, "expected an nn.Module"),
        ("nosuch:thing --shape 1,8,8", 1, "cannot be imported"),
        ("nothing --shape 1,8,8", 1, 'expected "package.module:factory"'),
        ("nets_of_mine.Net --shape 3,8,8", 1, "fails on torch.float64 images (16, 3, 8, 8)"),
        ("nets_of_mine.Net --shape 1,8,8 --data digits", 0, ""),
        ("nets_of_mine.Net --shape 3,8,8 --data digits", 1, "its images are (1, 8, 8)"),
        ("nets_of_mine.Net --shape 1,8,8 --data nowhere", 1, "unknown source of images"),
        ("nets_of_mine.Net --shape 1,8", 2, "expected channels,height,width"),
        ("nets_of_mine.Net --shape 1,8,8 --group p44", 2, "did you mean 'p4'"),
        ("nets_of_mine.Net --shape 1,8,8 --group p6", 2, "hexagonal"),
        ("nets_of_mine.Net --shape 1,8,8 --angles x", 2, "expected degrees"),
        ("nets_of_mine.Net --shape 1,8,8 --count 3", 2, "at least 4"),
        ("nets_of_mine.Net --shape 1,8,8 --device abacus", 2, "no device 'abacus'"),
        ("nets_of_mine.Net --sape 1,8,8", 2, "did you mean '--shape'"),
        ("", 2, "required: NETWORK"),
    ],
)
def test_bad_input_is_one_line(words, status, told, complaint):
    if not status:
        command(words.split())
        return
    assert told in complaint(command, *words.split(), status=status)


def test_checkpoints_of_this_program(json_of, tmp_path, complaint):
    gan = tiny_gan(P4)
    path = saved(gan, tmp_path / "logs" / "run" / "checkpoints" / "best-fid.ckpt")
    for target in (path, tmp_path / "logs" / "run"):
        told = json_of(command, target, "--angles", "none", "--require", "p4")
        assert (told["group"], told["exact_groups"]) == ("p4", ["z2", "p2", "p4"])
    conditional = saved(tiny_gan(P4, num_classes=3), tmp_path / "conditional.ckpt")
    assert json_of(command, conditional, "--angles", "none")["group"] == "p4"
    path.write_bytes(b"no checkpoint")
    assert "damaged or no plain checkpoint" in complaint(command, path)
    assert "no checkpoint at" in complaint(command, tmp_path / "nowhere.ckpt")


def test_the_example_of_the_documentation(tmp_path, json_of):
    """Its code runs, and its output is what the command says."""
    text = (Path(eqgan.__file__).parents[1] / "docs" / "audit.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    (tmp_path / "mine_of_the_documentation.py").write_text(code)
    told = json_of(command, "mine_of_the_documentation.Net", "--shape", "1,29,29", "--group", "p4")
    assert "\n".join(told["verdict"]) in text
    json_of(
        command, "mine_of_the_documentation.Net", "--shape", "1,28,28", "--group", "p4", "--require", "p4"
    )


def test_help(help_of):
    assert "eqgan audit mypackage.models:make_network" in help_of(command)
    assert not list(Path().glob("*.html"))
