"""The command line; nothing imports it."""

import sys
from importlib import import_module

from eqgan import __version__
from eqgan.cli.building import prepare, set_lengths
from eqgan.cli.options import fail
from eqgan.cli.parsing import expand, gan_parser, parse_gan
from eqgan.cli.train import train_gan

__all__ = ["expand", "gan_parser", "main", "parse_gan", "prepare", "set_lengths", "train_gan"]

# command: where its function is, and what it does; a module is loaded when its command is called
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


def main() -> None:
    """``eqgan COMMAND ...``: finds the command and gives it the rest of the words."""
    command = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if command in ("-h", "--help"):
        print(overview())
        return
    if command == "--version":
        print(f"eqgan {__version__}")
        return
    if command not in COMMANDS:
        fail(f"unknown command {command!r}; known: {', '.join(COMMANDS)}", status=2)
    module, _, function = COMMANDS[command][0].partition(":")
    getattr(import_module(module), function)(sys.argv[2:])


def overview() -> str:
    """Every command in one line."""
    lines = [f"  eqgan {name:<9} {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(["usage: eqgan COMMAND [options]", *lines, "eqgan COMMAND --help lists its options"])
