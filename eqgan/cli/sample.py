"""``eqgan sample``: images of a trained GAN, as an .npz file, a folder of PNG or JPEG files, or a grid."""

import argparse
import json
import os
import re
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import eqgan
from eqgan.cli.command import (
    CommandParser,
    as_json,
    device_option,
    group_option,
    named_run,
    run_command,
    whole,
)
from eqgan.data.loader import to_unit
from eqgan.files import atomic_write
from eqgan.groups import PlaneGroup
from eqgan.training.callbacks.grid import save_grid
from eqgan.training.load import find_checkpoint, load_gan
from eqgan.training.sampling import Samples, draw_samples, orbits, require_class, to_bytes

SAMPLE = re.compile(r"\d{6,}(_g\d+)?\.(png|jpg)")  # names of files in a folder of samples
EXAMPLES = """\
  eqgan sample logs/my-run -n 10000 --out samples.npz        from the best checkpoint of a run
  eqgan sample logs/my-run/checkpoints/last.ckpt -n 64 --out grid.png
  eqgan sample logs/my-run -n 500 --out folder/ --seed 1 --truncation 0.7
  eqgan sample logs/my-run -n 8 --orbit --out orbits.png     each sample under every element of the group
  eqgan sample logs/my-run -n 100 --class 3 --out threes/    of a conditional GAN
  eqgan sample logs/my-run -n 50000 --jpeg --out folder/     JPEG files, as some published scores are of
"""
MOST_IN_A_GRID = 4096


def sample(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Samples from command-line words; what ``--json`` prints is returned."""
    return run_command(_parser(), _sample, argv)


def _parser() -> CommandParser:
    parser = CommandParser("sample", "Draw images from the averaged generator of a trained GAN.", EXAMPLES)
    add = parser.add_argument
    add("checkpoint", metavar="RUN", type=named_run, help="a checkpoint, or a run (folder or name): its best")
    add("-n", "--count", type=whole(1), default=64, help="how many (default 64)")
    add("--out", type=Path, required=True, help="samples.npz, grid.png, or a folder of PNG files")
    add("--seed", type=whole(0), default=0, help="of the latents (default 0)")
    add("--truncation", type=float, metavar="T", help="cut the normal law of the latents off at +-T")
    add("--class", dest="label", type=int, metavar="K", help="number of a class, if the GAN is conditional")
    add("--orbit", action="store_true", help="each sample moved by every element of the group, exactly")
    told = "a folder of JPEG files, of this quality (1 to 95; 75), instead of PNG"
    add("--jpeg", type=_quality, nargs="?", const=75, metavar="Q", help=told)
    group_option(parser, "of --orbit; else that of the discriminator")
    add("--overwrite", action="store_true", help="replace a file, or the samples in a folder")
    device_option(parser)
    return parser


def _quality(text: str) -> int:
    quality = whole(1)(text)
    if quality > 95:
        raise argparse.ArgumentTypeError(f"expected a quality from 1 to 95, got {text!r}")
    return quality


def _sample(options: argparse.Namespace) -> dict[str, Any]:
    path = find_checkpoint(options.checkpoint)
    _require_free(options)
    gan = load_gan(path, options.device)
    require_class(gan, options.label)
    group = (options.group or gan.discriminator.group) if options.orbit else None
    parts = list(draw_samples(gan, options.count, options.seed, options.truncation, options.label))
    about = {
        "checkpoint": str(path),
        "count": options.count,
        "seed": options.seed,
        "truncation": options.truncation,
        "class": options.label,
        "orbit": None if group is None else group.name,
        "jpeg": options.jpeg,
        "out": str(options.out),
        "eqgan": eqgan.__version__,
    }
    _write(options.out, parts, group, about, options.jpeg)
    if options.json:
        print(as_json(about))
    else:
        each = "" if group is None else f", each in {group.order} orientations ({group})"
        print(f"{options.count:,} samples of {path}{each}: {options.out}")
    return about


def _require_free(options: argparse.Namespace) -> None:
    """Looks before anything is computed."""
    out, kind = options.out, options.out.suffix.lower()
    if kind not in (".npz", ".png", ""):
        raise ValueError(f"--out {out}: expected a name ending in .npz or .png, or a folder, got {kind}")
    if options.jpeg is not None and kind:
        raise ValueError(f"--jpeg: expected a folder to write the files into, got --out {out}")
    if kind == ".png" and options.count > MOST_IN_A_GRID:
        raise ValueError(f"a grid holds at most {MOST_IN_A_GRID} samples, got {options.count}; use .npz")
    taken = any(out.iterdir()) if out.is_dir() else out.exists()
    if taken and not options.overwrite:
        raise FileExistsError(f"{out} is there already; choose another name, or give --overwrite")
    if out.is_dir() is not (kind == "") and out.exists():
        raise ValueError(f"--out {out}: expected {'a folder' if kind == '' else 'a file'}, got the other")
    if taken and kind == "" and (foreign := _foreign(out)) is not None:
        raise FileExistsError(
            f"--out {out}: expected a folder with nothing but samples in it, got {foreign} there; "
            "choose another name. Nothing was removed."
        )
    parent = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    if not os.access(parent, os.W_OK) or (parent != out.absolute() and not parent.is_dir()):
        raise PermissionError(f"--out {out}: {parent} cannot be written to; choose another folder")


def _foreign(folder: Path) -> Path | None:
    """Something in this folder that is not of its samples, if there is such."""
    for path in folder.iterdir():
        inside = path.iterdir() if path.is_dir() and path.name.isdecimal() else [path]
        for file in inside:
            if not file.is_file() or not SAMPLE.fullmatch(file.name):
                return file
    return None


def _write(
    out: Path, parts: list[Samples], group: PlaneGroup | None, about: dict[str, Any], jpeg: int | None
) -> None:
    images = torch.cat([to_bytes(part.images) for part in parts])
    moved = images[:, None] if group is None else orbits(images, group)
    if out.suffix.lower() == ".npz":
        _write_npz(out, moved, parts, group, about)
    elif out.suffix.lower() == ".png":
        save_grid(to_unit(moved.flatten(0, 1)), out, 8 if group is None else group.order)
    else:
        _write_folder(out, moved, parts, jpeg)


def _write_npz(
    out: Path, moved: Tensor, parts: list[Samples], group: PlaneGroup | None, about: dict[str, Any]
) -> None:
    """images (n, channels, height, width), latents, perhaps labels and orbit (sample, element)."""
    count, order = moved.shape[:2]
    arrays = {"images": moved.flatten(0, 1).numpy()}
    arrays["latents"] = torch.cat([part.latents for part in parts]).numpy()
    if parts[0].labels is not None:
        labels = torch.cat([part.labels for part in parts if part.labels is not None])
        arrays["labels"] = labels.repeat_interleave(order).numpy()
    if group is not None:
        arrays["orbit"] = np.stack(np.divmod(np.arange(count * order), order), 1)
    with atomic_write(out) as temporary, temporary.open("wb") as file:
        np.savez(file, about=np.array(json.dumps(about)), **arrays)  # type: ignore[arg-type]


def _write_folder(out: Path, moved: Tensor, parts: list[Samples], jpeg: int | None) -> None:
    """One PNG (or JPEG of this quality) an image, in a folder a class if there are classes; all or none."""
    suffix, options = (".png", {}) if jpeg is None else (".jpg", {"quality": jpeg})
    labels = None if parts[0].labels is None else torch.cat([p.labels for p in parts if p.labels is not None])
    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        for i, images in enumerate(moved.permute(0, 1, 3, 4, 2).numpy()):
            folder = temporary if labels is None else temporary / str(int(labels[i]))
            folder.mkdir(parents=True, exist_ok=True)
            for g, pixels in enumerate(images):
                name = f"{i:06d}{suffix}" if len(images) == 1 else f"{i:06d}_g{g}{suffix}"
                grey = pixels.shape[-1] == 1
                Image.fromarray(pixels[..., 0] if grey else pixels).save(folder / name, **options)
        if out.exists():
            shutil.rmtree(out)
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
