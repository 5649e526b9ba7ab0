"""The house: imports run one way, and nothing imports the command line."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import eqgan

ROOT = Path(eqgan.__file__).parents[1]
LINTER = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """The contracts of the pyproject.toml in this folder, for the package that lies there."""
    pytest.importorskip("importlinter", reason="import-linter comes with the dev extra")
    environment = os.environ | {"PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", LINTER]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> Path:
    """The sources alone, to break."""
    folder = tmp_path_factory.mktemp("house")
    shutil.copytree(
        ROOT / "eqgan",
        folder / "eqgan",
        ignore=lambda _, names: [n for n in names if "." in n[1:] and not n.endswith(".py")],
    )
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_imports_run_one_way(copied):
    result = lint(copied)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("groups/bad.py", "import torch"),
        ("nn/bad.py", "import eqgan.networks"),
        ("networks/bad.py", "import eqgan.metrics"),
        ("networks/bad.py", "import pytorch_lightning"),
        ("data/bad.py", "import eqgan.training.losses"),
        ("training/bad.py", "import eqgan.cli"),
    ],
    ids=lambda value: value.removesuffix("/bad.py"),
)
def test_an_import_the_other_way_is_caught(room, line, copied):
    bad = copied / "eqgan" / room
    bad.write_text(line + "\n")
    try:
        result = lint(copied)
    finally:
        bad.unlink()
    assert result.returncode != 0
    assert "BROKEN" in result.stdout


def imported(path: Path) -> set[str]:
    """Every module that a file names in an import, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_nothing_imports_the_command_line():
    """The door loads the command that is called."""
    importers = [
        str(path.relative_to(ROOT))
        for path in [*(ROOT / "eqgan").rglob("*.py"), *ROOT.glob("*.py")]
        if "eqgan.cli" in imported(path)
    ]
    assert importers == []


def test_the_commands_are_listed_without_torch():
    code = "import sys; sys.modules['torch'] = None; from eqgan.__main__ import main; main(['--help'])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.startswith("usage: eqgan COMMAND"), result.stderr


def test_groups_load_without_torch():
    """Exact algebra is there for whoever has NumPy only."""
    code = "import sys; sys.modules['torch'] = None; import eqgan.groups; print(eqgan.groups.P4M.order)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "8", result.stderr


def test_no_assertions_and_no_unsafe_loading_in_the_package():
    for path in (ROOT / "eqgan").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            assert not isinstance(node, ast.Assert), f"{path}:{node.lineno}: assert is for tests"
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                assert "weights_only=True" in ast.unparse(node), f"{path}:{node.lineno}"
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "np.load":
                assert "allow_pickle=False" in ast.unparse(node), f"{path}:{node.lineno}"
