"""What the tests of the commands share."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.complaints import complaint_of


@pytest.fixture(autouse=True)
def _own_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every path that is not given is inside a folder of the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EQGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EQGAN_DATA", raising=False)


@pytest.fixture
def complaint(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must fail; the one line it is answered with."""

    def run(command: Callable[[Sequence[str]], Any], *words: Any, status: int = 1) -> str:
        return complaint_of(lambda: command([str(word) for word in words]), capsys, status)

    return run


@pytest.fixture
def json_of(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs a command with ``--json``; what it prints, which is JSON and nothing else."""

    def run(command: Callable[[Sequence[str]], Any], *words: Any) -> Any:
        capsys.readouterr()
        command([*map(str, words), "--json"])
        return json.loads(capsys.readouterr().out, parse_constant=pytest.fail)

    return run


@pytest.fixture
def help_of(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The help of a command."""

    def run(command: Callable[[Sequence[str]], Any]) -> str:
        with pytest.raises(SystemExit) as stop:
            command(["--help"])
        assert not stop.value.code
        return capsys.readouterr().out

    return run
