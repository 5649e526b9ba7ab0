"""Where tables are printed."""

import os
import sys

from rich.console import Console

WIDE = 120  # columns of a file or a pipe, which has no width of its own


def console() -> Console:
    """As wide as the terminal, or as what ``COLUMNS`` says; else wide enough for our tables."""
    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDE)
