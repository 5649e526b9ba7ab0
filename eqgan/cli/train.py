"""``eqgan train``: a GAN from command-line words."""

import sys
from collections.abc import Sequence
from typing import Any

from eqgan.cli.building import prepare
from eqgan.cli.guard import preparing, running
from eqgan.cli.parsing import parse_gan
from eqgan.training.report import show_start, show_summary, write_summary


def train_gan(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Trains a GAN from command-line words; the summary of the run is returned and printed."""
    with preparing():
        parser, config = parse_gan(sys.argv[1:] if argv is None else argv)
        run, resuming = prepare(parser, config)
    precision = run.trainer["precision"]
    told = ["resumed" if resuming else "new", f"{config.epochs} epoch(s)", f"seed {config.seed}", precision]
    show_start(run.gan, run.data, run.folder, told)
    with running(run.folder.name, smaller="--batch-size or --discriminator.width"):
        summary = run.fit(resume=resuming)
        write_summary(summary, run.folder.summary)
    show_summary(summary)
    return summary
