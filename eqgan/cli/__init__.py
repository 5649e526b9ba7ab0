"""The command line; nothing imports it."""

import logging
import sys
from collections.abc import Sequence
from typing import Any

import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException, SIGTERMException
from rich.console import Console

from eqgan.cli.building import prepare, set_lengths
from eqgan.cli.parsing import expand, fail, gan_parser, parse_gan
from eqgan.training.report import show_start, show_summary, write_summary

__all__ = ["expand", "gan_parser", "main", "parse_gan", "prepare", "set_lengths", "train_gan"]


def train_gan(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Trains a GAN from command-line words; the summary of the run is returned and printed."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    try:
        parser, config = parse_gan(sys.argv[1:] if argv is None else argv)
        run, resuming = prepare(parser, config)
    except (ValueError, OSError, RuntimeError) as error:
        fail(" ".join(str(error).split()))
    except KeyboardInterrupt:
        fail("stopped before the first step", status=130)
    precision = run.trainer["precision"]
    told = ["resumed" if resuming else "new", f"{config.epochs} epoch(s)", f"seed {config.seed}", precision]
    show_start(run.gan, run.data, run.folder, told)
    try:
        summary = run.fit(resume=resuming)
        write_summary(summary, run.folder.summary)
    except (KeyboardInterrupt, SIGTERMException, SystemExit):
        sys.stderr.write(
            f"\nstopped; at most the epoch under way is lost. Go on with --resume {run.folder.name}\n"
        )
        raise SystemExit(130) from None
    except (ValueError, OSError, MisconfigurationException) as error:
        fail(" ".join(str(error).split()))
    except torch.OutOfMemoryError:
        fail("out of memory on the device; use a smaller --batch-size or --discriminator.width")
    show_summary(summary)
    return summary


COMMANDS = {"train": train_gan}


def main() -> None:
    """``eqgan COMMAND ...``: ``eqgan train`` is ``python train_gan.py``."""
    command = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if command in ("-h", "--help"):
        Console().print("usage: eqgan train [options]     train a GAN (eqgan train --help lists the options)")
        return
    if command not in COMMANDS:
        fail(f"unknown command {command!r}; known: {', '.join(COMMANDS)}", status=2)
    COMMANDS[command](sys.argv[2:])
