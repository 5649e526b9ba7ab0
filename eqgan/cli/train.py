"""``eqgan train``: a GAN from command-line words."""

import sys
from collections.abc import Sequence
from typing import Any

from eqgan.cli.building import prepare
from eqgan.cli.parsing import parse_gan
from eqgan.cli.runs import train
from eqgan.training.report import show_start, show_summary


def train_gan(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Trains a GAN from command-line words; the summary of the run is returned and printed."""
    return train(
        train_gan,
        sys.argv[1:] if argv is None else argv,
        parse=parse_gan,
        prepare=prepare,
        show_start=lambda run, told: show_start(run.gan, run.data, run.folder, told),
        show_summary=show_summary,
        length="{} epoch(s)",
        smaller="--batch-size or --discriminator.width",
    )
