"""How every command ends when something is wrong: one line, and a status; never a traceback for a mistype."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException, SIGTERMException

from eqgan.cli.together import INTERRUPTED, LOST, dismissed, lost
from eqgan.console import fail
from eqgan.memory import keep_freed_memory


@contextmanager
def preparing(stopped: str = "stopped before the first step") -> Iterator[None]:
    """Around everything that a command does before its first step: whatever was mistyped is one line and
    status 1.

    Args:
        stopped: what to say of an interrupt.
    """
    keep_freed_memory()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    try:
        yield
    except (ValueError, OSError, RuntimeError) as error:
        if lost(error):
            raise SystemExit(LOST) from error
        fail(" ".join(str(error).split()))
    except MemoryError as error:
        fail(f"out of memory ({' '.join(str(error).split()) or 'no more to be had'})")
    except KeyboardInterrupt:
        fail(stopped, status=130)


@contextmanager
def running(name: str, smaller: str) -> Iterator[None]:
    """Around the steps of a run.

    Args:
        name: of the run, to go on with.
        smaller: the settings that save memory.
    """
    try:
        yield
    except (KeyboardInterrupt, SIGTERMException, SystemExit):
        if not dismissed():
            sys.stderr.write(f"\nstopped; at most the epoch under way is lost. Go on with --resume {name}\n")
        raise SystemExit(LOST if dismissed() else INTERRUPTED) from None
    except (ValueError, OSError, MisconfigurationException) as error:
        fail(" ".join(str(error).split()))
    except torch.OutOfMemoryError:
        fail(f"out of memory on the device; use a smaller {smaller}")
    except RuntimeError as error:
        if lost(error):
            raise SystemExit(LOST) from error
        raise
