"""The command line; nothing imports it but the doors."""

from eqgan.cli.building import prepare, set_lengths
from eqgan.cli.parsing import expand, gan_parser, parse_gan
from eqgan.cli.train import train_gan

__all__ = ["expand", "gan_parser", "parse_gan", "prepare", "set_lengths", "train_gan"]
