"""A trained GAN or classifier back from its checkpoint, to sample from, score, ask, or go on with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from eqgan.data.augment import Augmentation
from eqgan.data.preprocess import Preprocessing
from eqgan.groups import PlaneGroup
from eqgan.networks import Classifier, Discriminator, Generator, freeze, symmetrised
from eqgan.training.callbacks.checkpoint import read_checkpoint
from eqgan.training.losses import GANLoss
from eqgan.training.module import GAN
from eqgan.training.penalties import Penalty, R1Penalty
from eqgan.training.preprocessed import PreprocessedClassifier
from eqgan.training.rebuild import rebuild
from eqgan.training.turned import averaged_over_turns


def gan_from_settings(
    settings: Mapping[str, Any], image_shape: tuple[int, int, int], num_classes: int = 0
) -> GAN:
    """The GAN of plain settings, as a config file or a checkpoint holds them, with fresh weights.

    Args:
        settings: ``generator``, ``discriminator``, ``loss``, ``penalty`` and ``augment`` as constructor
            calls, ``gan``, ``symmetrise``; others are passed over.
        image_shape: (channels, height, width).
        num_classes: of conditional networks; 0 for others.

    Raises:
        ValueError: for a class that is no generator, discriminator, loss, penalty or augmentation, or
            arguments it does not take.
    """
    known: dict[str, Any] = {"image_shape": image_shape}
    if num_classes:
        known["num_classes"] = num_classes
    generator = rebuild(Generator, settings["generator"], **known)
    discriminator = rebuild(Discriminator, settings["discriminator"], **known)
    if settings["symmetrise"]:
        generator = symmetrised(generator, discriminator.group)
    options = {**settings["gan"], "betas": tuple(settings["gan"]["betas"])}
    augment = settings.get("augment")
    return GAN(
        generator,
        discriminator,
        rebuild(GANLoss, settings["loss"]),
        _penalty(settings["penalty"]),
        None if augment is None else rebuild(Augmentation, augment),
        **options,
    )


def _penalty(spec: Mapping[str, Any]) -> Penalty:
    """Settings written when there was one penalty hold its arguments alone."""
    return rebuild(Penalty, dict(spec)) if "class_path" in spec else R1Penalty(**spec)


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
    gan = gan_from_settings(settings, tuple(described["image_shape"]), described.get("num_classes", 0))
    try:
        gan.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        told = " ".join(str(error).split())
        raise ValueError(f"{path}: its weights do not fit the networks of its settings ({told})") from error
    return gan.eval().to(device), settings


def load_classifier(
    path: str | Path, group: PlaneGroup | None = None, turns: int | None = None
) -> Classifier:
    """The classifier that a checkpoint of ``eqgan classify`` holds, in eval mode on the CPU.

    Its ``class_names`` say what the logits stand for.

    The network is built from the settings in the checkpoint; of a run with averaged weights, those are taken.

    Args:
        path: a checkpoint, or the folder of a run (``logs/<run>``), whose best checkpoint is then taken.
        group: refuse a network that is not invariant under this plane group, nor under a larger one.
        turns: orientations of an image that its logits are the mean of (``TurnedClassifier``); by default
            those that the run was judged with (``fit.turns``), 1 for the network itself.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, wants to run code, is another program's or a GAN's, or holds a network
            of another group.
    """
    path = find_checkpoint(path)
    checkpoint = read_checkpoint(path)
    described = classifier_description(checkpoint, path)
    settings = _settings(described["config"], path)
    network = _described_network(described, settings)
    if str(network.group) != described["group"]:
        raise ValueError(
            f"{path}: its weights were trained for {described['group']}, its settings say {network.group}. "
            "One of them was changed by hand"
        )
    if group is not None and not network.group.contains(group):
        raise ValueError(f"{path} holds a {network.group} network, expected {group}")
    try:
        network.load_state_dict(judged_weights(checkpoint))
    except RuntimeError as error:
        raise ValueError(f"{path}: the weights do not fit the network of its settings ({error})") from error
    freeze(network, "everything")
    network = averaged_over_turns(
        network, settings.get("fit", {}).get("turns", 1) if turns is None else turns
    )
    network.class_names = tuple(described["class_names"])
    return network.eval()


def _described_network(described: dict[str, Any], settings: dict[str, Any]) -> Classifier:
    """The network of a checkpoint's description, with fresh weights under the names that it trained with."""
    shape = tuple(described["image_shape"])
    network = rebuild(
        Classifier, settings["network"], image_shape=shape, num_classes=len(described["class_names"])
    )
    if settings.get("preprocess") is not None:
        preprocess = rebuild(Preprocessing, settings["preprocess"], image_shape=shape)
        network = PreprocessedClassifier(preprocess, network)
    freeze(network, settings.get("finetune", {}).get("trainable", "everything"))
    return network


def classifier_description(checkpoint: dict[str, Any], path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself: config, image_shape, class_names, group.

    Raises:
        ValueError: if it is not a classifier's.
    """
    described: dict[str, Any] = checkpoint["eqgan"]
    if described.get("kind") != "classifier":
        raise ValueError(
            f"{path} holds a {described.get('kind', 'GAN')}, expected a classifier (eqgan classify)"
        )
    return described


def judged_weights(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The weights of the network that was judged: the averaged ones if there are any."""
    state = checkpoint["state_dict"]
    prefix = "ema.module." if any(name.startswith("ema.") for name in state) else "network."
    return {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}


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
        raise FileNotFoundError(f"no checkpoint in {folder}: expected best-*.ckpt or last.ckpt")
    return found[0]
