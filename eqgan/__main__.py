"""``eqgan COMMAND ...``, also as ``python -m eqgan``: the door, which opens at once.

PyTorch is imported when a command is called, not to list them.
"""

import sys
from collections.abc import Sequence
from importlib import import_module

from eqgan import __version__
from eqgan.console import fail

# command: where its function is, and what it does
COMMANDS = {
    "train": ("eqgan.cli.train:train_gan", "train a GAN (the same as python train_gan.py)"),
    "classify": ("eqgan.cli.classify:classify", "train a classifier; test it on upright and rotated images"),
    "evaluate": (
        "eqgan.cli.evaluate:evaluate",
        "all scores of a trained GAN, or of images, against any reference",
    ),
    "sample": ("eqgan.cli.sample:sample", "images of a trained GAN: an .npz, a folder, a grid; their orbits"),
    "predict": ("eqgan.cli.predict:predict", "class probabilities of images, by a trained classifier"),
    "audit": ("eqgan.cli.audit:audit_network", "how equivariant a network is, ours or your own"),
    "convert": ("eqgan.cli.convert:convert", "write images into a store that is larger than memory"),
    "compare": ("eqgan.cli.compare:compare", "curves, sample grids and settings of several runs on one page"),
    "sweep": ("eqgan.cli.sweep:sweep", "a grid of settings and seeds, by many workers; results in one table"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Finds the command and gives it the rest of the words."""
    words = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if words[0] in ("-h", "--help"):
        print(overview())
    elif words[0] == "--version":
        print(f"eqgan {__version__}")
    elif words[0] not in COMMANDS:
        fail(f"unknown command {words[0]!r}; known: {', '.join(COMMANDS)}", status=2)
    else:
        module, _, function = COMMANDS[words[0]][0].partition(":")
        try:
            getattr(import_module(module), function)(words[1:])
        except KeyboardInterrupt:  # while it is imported; what comes later has its own answer
            fail("stopped", status=130)


def overview() -> str:
    """Every command in one line."""
    lines = [f"  eqgan {name:<9} {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(["usage: eqgan COMMAND [options]", *lines, "eqgan COMMAND --help lists its options"])


if __name__ == "__main__":
    main()
