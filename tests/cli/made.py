"""Folders of runs made in a moment, with the files that a training writes."""

import copy
import csv
import json
from pathlib import Path
from typing import Any

import torch
import yaml

from eqgan.groups import PlaneGroup
from eqgan.training.callbacks.checkpoint import FORMAT
from eqgan.training.callbacks.grid import save_grid
from eqgan.training.load import gan_from_settings
from eqgan.training.module import GAN

SETTINGS = {
    "seed": 0,
    "dataset": {"source": "digits", "size": None, "batch_size": 64},
    "discriminator": {"class_path": "eqgan.networks.ConvDiscriminator", "init_args": {"group": "p4"}},
    "gan": {"betas": [0.5, 0.9]},
    "evaluation": {"features": "default", "reference": "auto", "samples": 100},
}


def row(epoch: int, fid: float | None, share: float = 0.5) -> dict[str, Any]:
    """What one epoch records, without scores if the FID is None."""
    scores = {"fid": fid, "precision": share, "recall": 0.4, "density": 0.3, "coverage": 0.2, "fid_min": fid}
    clocks = {
        "epoch": epoch,
        "step": 10 * (epoch + 1),
        "seconds": 2.5 * (epoch + 1),
        "images_per_second": 100,
    }
    return {**clocks, "d_loss": 0.6, **(scores if fid is not None else {})}


GAN_SETTINGS = {
    "seed": 3,
    "symmetrise": True,
    "precision": "32-true",
    "dataset": {"source": "digits", "root": None, "size": None, "batch_size": 64, "fraction": 1.0},
    "generator": {
        "class_path": "eqgan.networks.ConvGenerator",
        "init_args": {"latent_dim": 8, "width": 2},
    },
    "discriminator": {
        "class_path": "eqgan.networks.ConvDiscriminator",
        "init_args": {"group": "p4", "width": 4},
    },
    "loss": {"class_path": "eqgan.training.losses.HingeLoss"},
    "penalty": {"gamma": 0.1, "every": 8},
    "gan": {"lr_generator": 1e-3, "betas": [0.5, 0.9]},
    "evaluation": {"features": "default", "reference": "auto", "samples": 200, "every": 1, "grid": 8},
}
"""Of the GANs that are made here and never trained."""


def tiny_gan(group: PlaneGroup, seed: int = 0, num_classes: int = 0) -> GAN:
    """A GAN of `GAN_SETTINGS` under this group, its average a little away from its generator."""
    torch.manual_seed(seed)
    gan = gan_from_settings(_settings_for(group), (1, 28, 28), num_classes)
    for weight in gan.ema.module.parameters():
        weight.data.mul_(1.1)
    return gan


def _settings_for(group: PlaneGroup) -> dict[str, Any]:
    settings = copy.deepcopy(GAN_SETTINGS)
    settings["discriminator"]["init_args"]["group"] = group.name
    return settings


def saved(gan: GAN, path: Path, **settings: Any) -> Path:
    """Writes the checkpoint that a run would."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump({**_settings_for(gan.discriminator.group), **settings})
    described = {"format": FORMAT, "config": text, "image_shape": list(gan.discriminator.image_shape)}
    described |= {"num_classes": gan.num_classes} if gan.num_classes else {}
    torch.save({"state_dict": gan.state_dict(), "eqgan": described, "epoch": 0}, path)
    return path


def made_run(
    root: Path,
    name: str,
    fids: list[float | None],
    finished: bool = True,
    group: str = "p4",
    skipped: tuple[int, ...] = (),
    **settings: Any,
) -> Path:
    """``logs/<name>`` of a run with these FIDs, None where an epoch was not scored.

    Args:
        finished: whether there is a summary.
        skipped: epochs without a grid and without a row.
        settings: over those of `SETTINGS`.
    """
    logs, samples = root / "logs" / name, root / "samples" / name
    logs.mkdir(parents=True)
    config = {"name": name, "log_dir": "logs", "samples_dir": str(root / "samples"), **SETTINGS, **settings}
    config["discriminator"] = {**SETTINGS["discriminator"], "init_args": {"group": group}}
    (logs / "config.yaml").write_text(yaml.safe_dump(config))
    rows = [row(epoch, fid) for epoch, fid in enumerate(fids) if epoch not in skipped]
    samples.mkdir(parents=True)
    with (samples / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row(0, 1.0)), restval="")
        writer.writeheader()
        writer.writerows(rows)
    draws = torch.Generator().manual_seed(len(name))
    for epoch in range(len(fids)):
        if epoch not in skipped:
            images = torch.rand(16, 1, 12, 12, generator=draws) * 2 - 1
            save_grid(images * epoch / len(fids), samples / f"epoch_{epoch:04d}.png")
    save_grid(torch.ones(16, 1, 12, 12), samples / "real.png")
    if finished:
        (logs / "summary.json").write_text(json.dumps(_summary(group, fids)))
    return logs


def _summary(group: str, fids: list[float | None]) -> dict[str, Any]:
    provenance = {
        "data": {"name": "digits", "hash": "0" * 64, "split": "test", "count": 360},
        "features": {"name": "eqgan-digits-64", "sha256": "1" * 64, "resize": None, "channels": "grey"},
        "samples": 100,
    }
    scores = {"fid": 9.87, "precision": 0.61, "recall": 0.41, "density": 0.31, "coverage": 0.21}
    return {
        "epochs": len(fids),
        "group": group,
        "generator": {"parameters": 1234},
        "discriminator": {"parameters": 4321},
        "fid_final": next((f for f in reversed(fids) if f is not None), None),
        "fid_min_epoch": 1,
        "at_minimum": {**scores, "provenance": provenance},
        "invariance_error": 1e-15,
        "peak_memory_mebibytes": 100.0,
    }
