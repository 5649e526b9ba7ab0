"""A trained GAN back from its checkpoint, to sample from, score, or go on with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from eqgan.networks import Discriminator, Generator, OrbitGenerator
from eqgan.training.callbacks.checkpoint import read_checkpoint
from eqgan.training.losses import GANLoss
from eqgan.training.module import GAN
from eqgan.training.penalties import R1Penalty
from eqgan.training.rebuild import rebuild


def gan_from_settings(settings: Mapping[str, Any], image_shape: tuple[int, int, int]) -> GAN:
    """The GAN of plain settings, as a config file or a checkpoint holds them, with fresh weights.

    Args:
        settings: ``generator``, ``discriminator`` and ``loss`` as constructor calls, ``penalty``, ``gan``,
            ``symmetrise``; others are passed over.
        image_shape: (channels, height, width).

    Raises:
        ValueError: for a class that is no generator, discriminator or loss, or arguments it does not take.
    """
    generator = rebuild(Generator, settings["generator"], image_shape=image_shape)
    discriminator = rebuild(Discriminator, settings["discriminator"], image_shape=image_shape)
    if settings["symmetrise"] and discriminator.group.order > 1:
        generator = OrbitGenerator(generator, discriminator.group)
    loss = rebuild(GANLoss, settings["loss"])
    options = {**settings["gan"], "betas": tuple(settings["gan"]["betas"])}
    return GAN(generator, discriminator, loss, R1Penalty(**settings["penalty"]), **options)


def load_gan(path: str | Path, device: torch.device | str = "cpu") -> GAN:
    """The GAN that a checkpoint holds: generator, its average and discriminator, in eval mode.

    The networks are built from the settings in the checkpoint, by classes that are installed here; nothing
    in the file is run.

    Args:
        path: a checkpoint, or the folder of a run (``logs/<run>``), whose best checkpoint is then taken.
        device: to put it on.

    Raises:
        FileNotFoundError: if there is no such file, or no checkpoint in the folder.
        ValueError: if it is damaged, wants to run code, is another program's or a classifier's, or if its
            weights do not fit its settings.
    """
    return open_gan(path, device)[0]


def open_gan(path: str | Path, device: torch.device | str = "cpu") -> tuple[GAN, dict[str, Any]]:
    """As ``load_gan``, with the settings of its run."""
    path = find_checkpoint(path)
    checkpoint = read_checkpoint(path)
    described = checkpoint["eqgan"]
    if described.get("kind", "GAN") != "GAN":
        raise ValueError(f"{path} holds a {described['kind']}, expected a GAN (eqgan train)")
    settings = _settings(described["config"], path)
    if not {"generator", "discriminator", "loss", "penalty", "gan", "symmetrise"} <= settings.keys():
        raise ValueError(
            f"{path} does not say how its networks were made: its run was not started by eqgan train. "
            "Build them yourself, and load its state_dict into a GAN"
        )
    gan = gan_from_settings(settings, tuple(described["image_shape"]))
    try:
        gan.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        told = " ".join(str(error).split())
        raise ValueError(f"{path}: its weights do not fit the networks of its settings ({told})") from error
    return gan.eval().to(device), settings


def _settings(text: str, path: Path) -> dict[str, Any]:
    try:
        return yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: its settings cannot be read ({error})") from error


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint meant: a file as it is; of the folder of a run the best one, else the last.

    Raises:
        FileNotFoundError: if there is none.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    found = [*sorted(folder.glob("best-*.ckpt")), *folder.glob("last.ckpt")]
    if not found:
        raise FileNotFoundError(f"no checkpoint in {folder}: expected best-fid.ckpt or last.ckpt")
    return found[0]
