"""From the settings kept in a checkpoint back to the objects they were made of."""

from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import jsonargparse
import torch
import yaml
from jsonargparse.typing import register_type

from eqgan.data.preprocess import Preprocessing
from eqgan.groups import PlaneGroup, plane_group
from eqgan.networks import Classifier, FiberPool, fiber_pool
from eqgan.training.callbacks.checkpoint import read_checkpoint
from eqgan.training.preprocessed import PreprocessedClassifier


def _plane_group(value: Any) -> PlaneGroup:
    """By its name, also from the constructor call that jsonargparse makes of a default value."""
    return plane_group(value["init_args"]["name"] if isinstance(value, dict) else value)


register_type(PlaneGroup, str, _plane_group)
register_type(FiberPool, str, fiber_pool)
jsonargparse.set_parsing_settings(subclasses_enabled=[PlaneGroup, FiberPool])  # values, not nested fields

T = TypeVar("T")


def build(spec: Any, **more: Any) -> Any:
    """The object that a ``class_path`` with ``init_args``, already parsed, stands for; None for None."""
    if spec is None:
        return None
    module, _, name = spec.class_path.rpartition(".")
    arguments = {key: _built(value) for key, value in dict(spec.get("init_args") or {}).items()}
    return getattr(import_module(module), name)(**more, **arguments)


def _built(value: Any) -> Any:
    """Arguments may be constructor calls themselves, or lists of them."""
    if isinstance(value, list):
        return [_built(part) for part in value]
    return build(value) if isinstance(value, jsonargparse.Namespace) and "class_path" in value else value


def rebuild(base: type[T], spec: dict[str, Any], **more: Any) -> T:
    """The object of plain settings, as a config file or a checkpoint holds them.

    Args:
        base: what it must be a subclass of; nothing else is called.
        spec: ``class_path`` and ``init_args``.
        more: arguments that are no settings.

    Raises:
        ValueError: for a class that is no subclass of ``base``, or arguments it does not take.

    Example:
        >>> spec = {"class_path": "eqgan.networks.P4CNNClassifier", "init_args": {"group": "p4m", "width": 8}}
        >>> rebuild(Classifier, spec, image_shape=(1, 28, 28), num_classes=3).group.name
        'p4m'
    """
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(base, "object", skip=set(more), required=True)
    try:
        parsed = parser.parse_object({"object": spec}).object
        return build(parsed, **more)
    except (jsonargparse.ArgumentError, TypeError, ImportError, AttributeError) as error:
        raise ValueError(f"{base.__name__} cannot be built from {spec}: {error}") from error


def load_classifier(path: str | Path, group: PlaneGroup | None = None) -> Classifier:
    """The classifier that a checkpoint of ``eqgan classify`` holds, in eval mode on the CPU.

    Its ``class_names`` say what the logits stand for.

    The network is built from the settings in the checkpoint; of a run with averaged weights, those are taken.

    Args:
        path: such as ``logs/<run>/checkpoints/best-validation.ckpt``.
        group: refuse a network that is not invariant under this plane group.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, wants to run code, is another program's or a GAN's, or holds a network
            of another group.
    """
    path = Path(path)
    checkpoint = read_checkpoint(path)
    described = classifier_description(checkpoint, path)
    network = _described_network(described)
    if str(network.group) != described["group"]:
        raise ValueError(
            f"{path}: its weights were trained for {described['group']}, its settings say {network.group}. "
            "One of them was changed by hand"
        )
    if group is not None and network.group != group:
        raise ValueError(f"{path} holds a {network.group} network, expected {group}")
    try:
        network.load_state_dict(judged_weights(checkpoint))
    except RuntimeError as error:
        raise ValueError(f"{path}: the weights do not fit the network of its settings ({error})") from error
    network.class_names = tuple(described["class_names"])
    return network.eval()


def _described_network(described: dict[str, Any]) -> Classifier:
    """The network of a checkpoint's description, with fresh weights."""
    settings = yaml.safe_load(described["config"])
    shape = tuple(described["image_shape"])
    network = rebuild(
        Classifier, settings["network"], image_shape=shape, num_classes=len(described["class_names"])
    )
    if settings.get("preprocess") is None:
        return network
    preprocess = rebuild(Preprocessing, settings["preprocess"], image_shape=shape)
    return PreprocessedClassifier(preprocess, network)


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


def start_from(network: Classifier, path: str | Path) -> list[str]:
    """Gives a network the weights of a trained one, but for the last layers if they tell other classes apart.

    Args:
        network: changed in place.
        path: of a classifier's checkpoint; its network must be the same but for image shape and classes.

    Returns:
        The names of what stays as it was: the new head.

    Raises:
        ValueError: as ``load_classifier``; also if the networks differ elsewhere than in the last layers.
    """
    path = Path(path)
    checkpoint = read_checkpoint(path)
    described = classifier_description(checkpoint, path)
    if described["group"] != str(network.group):
        raise ValueError(f"{path} holds a {described['group']} network, expected {network.group}")
    theirs, ours = judged_weights(checkpoint), network.state_dict()
    fits = [name in theirs and theirs[name].shape == tensor.shape for name, tensor in ours.items()]
    names = list(ours)
    first_new = fits.index(False) if False in fits else len(fits)
    if not any(fits) or any(fits[first_new:]) or set(theirs) - set(ours):
        raise ValueError(
            f"{path} holds another network ({yaml.safe_load(described['config'])['network']}): its weights "
            f"do not fit {names[first_new] if first_new < len(names) else sorted(set(theirs) - set(ours))}. "
            "Use the same --net, with the same settings"
        )
    network.load_state_dict({**ours, **{name: theirs[name] for name in names[:first_new]}})
    return names[first_new:]
