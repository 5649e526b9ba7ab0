"""``eqgan predict``: what a trained classifier says of images."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.table import Column, Table

from eqgan.cli.command import CommandParser, as_json, group_option, named_run, run_command, whole
from eqgan.console import console, fail
from eqgan.data.folder import read_images
from eqgan.data.loader import to_unit
from eqgan.training.load import load_classifier

EXAMPLES = """\
  eqgan predict logs/RUN photo.png                 the best checkpoint of a run
  eqgan predict last.ckpt photos/*.jpg --top 1
  eqgan predict last.ckpt galaxy.png --turns 16    the mean over 16 orientations
  eqgan predict last.ckpt scan.tif --json          every class with its probability
  eqgan predict last.ckpt scan.tif --group p4      refuse a network without this symmetry"""


def predict(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Class probabilities of images, from command-line words; what ``--json`` prints is returned."""
    return run_command(_parser(), _predict, argv)


def _parser() -> CommandParser:
    parser = CommandParser("predict", "Class probabilities of images, by a trained classifier.", EXAMPLES)
    parser.add_argument("checkpoint", type=named_run, help="of eqgan classify, or its run (folder or name)")
    parser.add_argument(
        "images", type=Path, nargs="+", help="of 8 or 16 bits, any size and format that Pillow reads"
    )
    parser.add_argument("--top", type=whole(1), default=3, help="classes shown for each image (default 3)")
    parser.add_argument(
        "--turns",
        type=whole(1),
        help="orientations of each image that the answer is the mean of (default: as its run was judged)",
    )
    group_option(parser, "that the network must have")
    return parser


def _predict(options: argparse.Namespace) -> list[dict[str, Any]]:
    network = load_classifier(options.checkpoint, options.group, options.turns)
    found: list[dict[str, Any]] = []
    refused: list[Exception] = []
    with torch.inference_mode():
        for start in range(0, len(options.images), 100):  # a folder of photographs need not fit into memory
            images = []
            for path in options.images[start : start + 100]:
                try:
                    images.append((path, read_images([path], network.image_shape)))
                except (OSError, ValueError) as error:  # the others are answered all the same
                    refused.append(error)
            if images:
                paths, pixels = zip(*images)
                probabilities = network(to_unit(torch.cat(pixels))).softmax(1)
                found += [_ranked(path, p, network.class_names) for path, p in zip(paths, probabilities)]
    if not found:
        raise refused[0]
    if options.json:
        print(as_json(found))
    else:
        console().print(_table(found, min(options.top, network.num_classes)))
    if refused:
        fail("eqgan predict: " + "; ".join(str(error) for error in refused))
    return found


def _ranked(path: Path, probabilities: torch.Tensor, names: tuple[str, ...]) -> dict[str, Any]:
    order = probabilities.argsort(descending=True, stable=True).tolist()
    ranked = {names[index]: probabilities[index].item() for index in order}
    return {"image": str(path), "class": names[order[0]], "probabilities": ranked}


def _table(found: list[dict[str, Any]], top: int) -> Table:
    table = Table(Column("image", overflow="fold"), "class", *["or"] * (top - 1))
    for one in found:
        best = list(one["probabilities"].items())[:top]
        table.add_row(one["image"], *[f"{name}  {100 * share:.1f} %" for name, share in best])
    return table
