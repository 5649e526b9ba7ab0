"""``eqgan audit``: how equivariant is this network, ours or the user's?"""

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

from eqgan.cli.command import (
    CommandParser,
    as_json,
    device_option,
    group_option,
    named_run,
    run_command,
    whole,
)
from eqgan.console import console
from eqgan.data.loader import to_unit
from eqgan.data.sources import load_images
from eqgan.metrics.audit import ANGLES, Audit, audit
from eqgan.metrics.imported import module_from_path
from eqgan.networks import GivenLabel
from eqgan.training.callbacks import read_checkpoint
from eqgan.training.load import find_checkpoint, load_classifier, load_gan

EXAMPLES = """\
  eqgan audit mypackage.models:make_network --shape 3,64,64
  eqgan audit mypackage.models.Net --shape 1,28,28 --group p4 --require p4   exit 1 unless exact
  eqgan audit mypackage.models:denoiser --shape 1,64,64 --angles 0,5,10,45
  eqgan audit logs/rotmnist-conv-dcgan_p4-ra-s0                              the discriminator of a run
  eqgan audit mypackage.models.Net --data digits                             measured on real images
"""


def audit_network(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Audits a network from command-line words; what ``--json`` prints is returned."""
    return run_command(_parser(), _audit, argv)


def _parser() -> CommandParser:
    parser = CommandParser(
        "audit",
        "Measure how far a network is from respecting rotations and mirrors: every element of the group in "
        "float64, any angle, and the first layer that breaks the symmetry.",
        EXAMPLES,
    )
    add = parser.add_argument
    add(
        "target",
        metavar="NETWORK",
        help="module:factory or module.Class of yours; or a run or checkpoint, for its discriminator or net",
    )
    add("--shape", type=_shape, help="channels,height,width of its input; else its image_shape")
    group_option(parser, "that its layers are held to; else the network's own, else p4m")
    add("--angles", type=_angles, default=ANGLES, help="degrees (default 0,15,...,180); none: leave them out")
    add("--law", choices=("auto", "invariant", "equivariant"), default="auto", help="of its output")
    add("--fields", choices=("scalar", "regular"), default="scalar", help="what channels of output maps are")
    add("--data", help="real images to measure with: digits, a folder, an .npz (default: random images)")
    add("--data-root", help="where MNIST lies; else EQGAN_DATA, else data/")
    add("--count", type=whole(4), default=16, help="images to measure with (default 16)")
    add(
        "--seed",
        type=whole(0),
        default=0,
        help="of the random images, and of weights that are drawn (default 0)",
    )
    add("--dtype", choices=("float64", "float32"), default="float64", help="to compute in (default float64)")
    group_option(parser, "under which the law must hold exactly, else exit 1", "--require")
    device_option(parser)
    return parser


def _audit(options: argparse.Namespace) -> dict[str, Any]:
    torch.manual_seed(options.seed)
    network = _network(options.target)
    shape = options.shape or getattr(network, "image_shape", None)
    if shape is None:
        raise ValueError(f"{options.target}: give the shape of its input, such as --shape 1,28,28")
    result = audit(
        network,
        tuple(shape),
        options.group,
        images=_images(options, tuple(shape)),
        law=options.law,
        fields=options.fields,
        degrees=options.angles,
        dtype=getattr(torch, options.dtype),
        device=options.device,
        count=options.count,
        seed=options.seed,
    )
    told = {"network": options.target, "shape": list(shape), **result.as_dict()}
    print(as_json(told)) if options.json else _show(options.target, network, result)
    if options.require is not None and not result.holds(options.require):
        raise ValueError(f"{options.target} is not exactly {result.law} under {options.require}")
    return told


def _network(target: str) -> nn.Module:
    """The discriminator or classifier of a checkpoint, or what a dotted path makes."""
    path = named_run(target)
    if path.suffix != ".ckpt" and not path.exists():
        return module_from_path(target)
    path = find_checkpoint(path)
    if read_checkpoint(path)["eqgan"].get("kind", "GAN") == "GAN":
        discriminator = load_gan(path).discriminator
        if not discriminator.num_classes:
            return discriminator
        asked = GivenLabel(discriminator, 0)
        asked.image_shape, asked.group = discriminator.image_shape, discriminator.group
        return asked
    return load_classifier(path)


def _images(options: argparse.Namespace, shape: tuple[int, int, int]) -> Tensor | None:
    """A fixed choice of real images in [-1, 1], if they were asked for."""
    if options.data is None:
        return None
    size = shape[1] if shape[1] == shape[2] else None
    images = load_images(options.data, options.data_root, size).images
    if tuple(images.shape[1:]) != shape:
        raise ValueError(f"--data {options.data}: its images are {tuple(images.shape[1:])}, expected {shape}")
    draws = torch.Generator().manual_seed(options.seed)
    return to_unit(images[torch.randperm(len(images), generator=draws)[: options.count]])


def _show(target: str, network: nn.Module, result: Audit) -> None:
    shown = console()
    elements = Table(
        "element", "matrix", "error", "largest", title=f"{target}: {result.law}?", title_justify="left"
    )
    for e in result.elements:
        elements.add_row(
            str(e.element), str([list(row) for row in e.matrix]), f"{e.error:.2e}", f"{e.largest:.1e}"
        )
    shown.print(elements)
    if result.rotations:
        shown.print(_angle_table(result))
    layers = Table("layer", "kind", "output", "taken as", f"error under {result.group}", "of its input")
    for layer in result.layers:
        errors = ["-" if e is None else f"{e:.2e}" for e in (layer.error, layer.input_error)]
        layers.add_row(layer.name, layer.kind, "x".join(map(str, layer.shape)), layer.action, *errors)
    shown.print(layers)
    print("Errors are root mean squares over the spread between images; largest is over the largest output.")
    if result.rotations:
        print("Angles are measured on images that vanish near the border, where they would lose a part.")
    print("\n".join(result.verdict()))


def _angle_table(result: Audit) -> Table:
    maps = result.law == "equivariant"
    table = Table("degrees", "error", *(("EQ-R, dB", "there and back, dB") if maps else ()))
    for r, ceiling in zip(result.rotations, result.ceiling):
        psnr = () if r.psnr is None else (f"{r.psnr:.1f}", f"{ceiling:.1f}")
        table.add_row(f"{r.degrees:g}", f"{r.error:.2e}", *psnr)
    return table


def _shape(text: str) -> tuple[int, ...]:
    parts = text.replace("x", ",").split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"expected channels,height,width such as 1,28,28, got {text!r}")
    return tuple(int(part) for part in parts)


def _angles(text: str) -> tuple[float, ...]:
    if text == "none":
        return ()
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected degrees such as 0,5,45, got {text!r}") from None
