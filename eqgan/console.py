"""Where tables are printed, and how a command ends when something is wrong."""

import os
import sys
from typing import NoReturn

from rich.console import Console

WIDE = 120  # columns of a file or a pipe, which has no width of its own


def console() -> Console:
    """As wide as the terminal, or as what ``COLUMNS`` says; else wide enough for our tables."""
    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDE)


def fail(message: str, status: int = 1) -> NoReturn:
    """One clear line, and out."""
    sys.stderr.write(f"eqgan: error: {message}\n")
    raise SystemExit(status)
