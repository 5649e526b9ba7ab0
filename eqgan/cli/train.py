"""``eqgan train``: a GAN from command-line words."""

import sys
from collections.abc import Sequence
from typing import Any

from eqgan.cli.building import prepare
from eqgan.cli.guard import preparing, running
from eqgan.cli.parsing import parse_gan
from eqgan.cli.together import processes_to_start, together
from eqgan.training.ranks import rank
from eqgan.training.report import show_start, show_summary, write_summary


def train_gan(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Trains a GAN from command-line words; the summary of the run is returned and printed."""
    words = sys.argv[1:] if argv is None else argv
    with preparing():
        parser, config = parse_gan(words)
        count = processes_to_start(config.trainer)
    if count:
        return together(train_gan, words, count)
    with preparing():
        run, resuming = prepare(parser, config)
    precision = run.trainer["precision"]
    told = ["resumed" if resuming else "new", f"{config.epochs} epoch(s)", f"seed {config.seed}", precision]
    if rank() == 0:
        show_start(run.gan, run.data, run.folder, told)
    with running(run.folder.name, smaller="--batch-size or --discriminator.width"):
        summary = run.fit(resume=resuming)
        write_summary(summary, run.folder.summary)
    if rank() == 0:
        show_summary(summary)
    return summary
