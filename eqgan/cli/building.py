"""From the settings of a GAN run to its parts."""

from typing import Any

import jsonargparse
import pytorch_lightning as pl

from eqgan.cli.options import Parser
from eqgan.cli.parsing import CHOICES
from eqgan.cli.runs import claim, kept_epochs, open_data, plain_settings, shared_parts, short_name
from eqgan.data.module import ImageData
from eqgan.metrics import FeatureExtractor, features_from_path, inception_features
from eqgan.networks.features import feature_network, feature_network_record
from eqgan.training.folder import RunFolder
from eqgan.training.load import gan_from_settings
from eqgan.training.run import EvaluationSettings, Run


def default_name(config: jsonargparse.Namespace, data: ImageData) -> str:
    """Named after what tells runs apart: data really used, networks, groups, loss, augmentation, seed."""
    parts = [
        data.name,
        _named("--gen-arch" if "group" in _arguments(config.generator) else "--gen", config.generator),
        _named("--disc-arch", config.discriminator),
        short_name(CHOICES, "--loss", config.loss),
        *(["cond"] if config.conditional else []),
        *([] if config.augment is None else [_named("--augment", config.augment)]),
        f"s{config.seed}",
    ]
    return "-".join(parts)


def _arguments(spec: jsonargparse.Namespace) -> dict[str, Any]:
    return dict(spec.get("init_args") or {})


def _named(option: str, spec: jsonargparse.Namespace) -> str:
    """The short name with the group, if there is one."""
    name, group = short_name(CHOICES, option, spec), _arguments(spec).get("group")
    return name if group is None else f"{name}_{group}"


def feature_extractor(name: str) -> FeatureExtractor:
    """The feature network of this name: the shipped one, Inception, or the user's own by dotted path."""
    if name == "default":
        return FeatureExtractor.from_module(feature_network(), feature_network_record()["name"])
    return inception_features() if name == "inception" else features_from_path(name)


def prepare(parser: Parser, config: jsonargparse.Namespace) -> tuple[Run, bool]:
    """Everything that can go wrong before a step is taken goes wrong here, before a file is written."""
    if config.epochs is not None and config.epochs < 1:
        raise ValueError(f"--epochs: expected at least 1, got {config.epochs}")
    if config.evaluation.classifier is not None and not config.conditional:
        raise ValueError("--evaluation.classifier tells classes apart: it goes with --conditional")
    data = open_data(config)
    extractor = feature_extractor(config.evaluation.features)
    pl.seed_everything(config.seed, workers=False, verbose=False)
    named = default_name(config, data) if config.name is None else config.name
    folder = RunFolder(named, config.log_dir, config.samples_dir)
    if config.epochs is None:
        config.epochs = kept_epochs(folder, config)
    set_lengths(config, len(data.train) * data.passes // data.batch_size)
    gan = gan_from_settings(plain_settings(parser, config), data.image_shape, number_of_classes(config, data))
    evaluation = EvaluationSettings(**config.evaluation)
    shared, resuming = shared_parts(parser, config, folder)
    run = Run(gan=gan, data=data, extractor=extractor, evaluation=evaluation, **shared)
    claim(run, config, resuming)
    return run, resuming


def number_of_classes(config: jsonargparse.Namespace, data: ImageData) -> int:
    """How many classes conditional networks are told; 0 for others.

    Raises:
        ValueError: if the images have no labels, or all the same.
    """
    if not config.conditional:
        return 0
    if not data.has_classes:
        raise ValueError(
            f"--conditional: expected images with labels of 2 classes or more, {data.name} has "
            f"{'none' if data.train.labels is None else 'one class'}. A folder needs one folder a class, an "
            ".npz an array 'labels'"
        )
    return data.num_classes


def set_lengths(config: jsonargparse.Namespace, steps: int) -> None:
    """Lengths that were left open, in passes of this many steps: 3,000 in all, scored every 500."""
    if config.epochs is None:
        config.epochs = max(1, round(3000 / steps))
    if config.evaluation.every is None:
        config.evaluation.every = max(1, round(500 / steps))
