"""A command that must fail, and the one line that it is answered with."""

from collections.abc import Callable
from typing import Any

import pytest


def complaint_of(
    call: Callable[[], Any], capsys: pytest.CaptureFixture[str], status: int = 1, told: bool = False
) -> str:
    """The line, without what every such line begins with.

    Args:
        call: must end the process.
        status: the exit status that it must have.
        told: whether anything may be printed before.
    """
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        call()
    out, err = capsys.readouterr()
    assert told or out == ""
    assert stop.value.code == status
    assert err.count("\n") == 1, err
    assert err.startswith("eqgan: error: ")
    return err.removeprefix("eqgan: error: ").strip()
