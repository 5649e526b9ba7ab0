"""The tutorial runs, and prints what it says it prints."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.py"


def test_prints_what_it_says(tmp_path: Path) -> None:
    for needed in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(needed)
    path = os.pathsep.join([str(TUTORIAL.parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(TUTORIAL)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    promised = [line.removeprefix("# ") for line in TUTORIAL.read_text().rpartition("\n\n")[2].splitlines()]
    assert len(promised) == 6
    assert all(any(word in line for word in ("True", "p4", "logit", "files")) for line in promised)
    printed = done.stdout.splitlines()
    assert [line for line in printed if line in promised] == promised
