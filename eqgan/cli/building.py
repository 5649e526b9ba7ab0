"""From settings to objects: names become objects here, once, and nowhere below."""

from importlib import import_module
from typing import Any

import jsonargparse
import pytorch_lightning as pl
import torch
import yaml

from eqgan.cli.parsing import CHOICES, Parser
from eqgan.data.module import ImageData
from eqgan.files import atomic_write
from eqgan.metrics import FeatureExtractor, features_from_path, inception_features
from eqgan.networks import OrbitGenerator
from eqgan.networks.features import feature_network, feature_network_record
from eqgan.training.folder import RunFolder
from eqgan.training.losses import R1Penalty
from eqgan.training.module import GAN
from eqgan.training.run import EvaluationSettings, Run, flatten

# Settings that do not change what a run computes; a resumed run may differ in them.
FREE_ON_RESUME = (
    "config",
    "name",
    "epochs",
    "resume",
    "overwrite",
    "log_dir",
    "samples_dir",
    "dataset.root",
    "trainer",
)


def build(spec: jsonargparse.Namespace, **more: Any) -> Any:
    """The object that a ``class_path`` with ``init_args`` stands for."""
    module, _, name = spec.class_path.rpartition(".")
    return getattr(import_module(module), name)(**more, **dict(spec.get("init_args") or {}))


def default_name(config: jsonargparse.Namespace, data: ImageData) -> str:
    """Named after what tells runs apart: data really used, networks, group, loss, seed."""
    arch = _short("--disc-arch", config.discriminator.class_path)
    group = dict(config.discriminator.get("init_args") or {}).get("group")
    parts = [
        data.name,
        _short("--gen", config.generator.class_path),
        arch if group is None else f"{arch}_{group}",
        _short("--loss", config.loss.class_path),
        f"s{config.seed}",
    ]
    return "-".join(parts)


def _short(option: str, class_path: str) -> str:
    class_name = class_path.rpartition(".")[2]
    known = CHOICES[option][1].items()
    return next((k for k, path in known if path.rpartition(".")[2] == class_name), class_name)


def feature_extractor(name: str) -> FeatureExtractor:
    """The feature network of this name: the shipped one, Inception, or the user's own by dotted path."""
    if name == "default":
        return FeatureExtractor.from_module(feature_network(), feature_network_record()["name"])
    return inception_features() if name == "inception" else features_from_path(name)


def precision_for(asked: str) -> str:
    """bf16 where the hardware multiplies it natively, else float32."""
    if asked != "auto":
        return asked
    native = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else _cpu_multiplies_bf16()
    return "bf16-mixed" if native else "32-true"


def _cpu_multiplies_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def prepare(parser: Parser, config: jsonargparse.Namespace) -> tuple[Run, bool]:
    """Everything that can go wrong before a step is taken goes wrong here, before a file is written."""
    if config.epochs is not None and config.epochs < 1:
        raise ValueError(f"--epochs: expected at least 1, got {config.epochs}")
    data = ImageData(**config.dataset, seed=config.seed)
    data.setup()
    if config.dataset.source == "auto":
        config.dataset.source = data.train.name  # what was really used: a resumed run must find it again
    extractor = feature_extractor(config.evaluation.features)
    pl.seed_everything(config.seed, workers=False, verbose=False)
    set_lengths(config, len(data.train) // data.batch_size)
    generator = build(config.generator, image_shape=data.image_shape)
    discriminator = build(config.discriminator, image_shape=data.image_shape)
    if config.symmetrise and discriminator.group.order > 1:
        generator = OrbitGenerator(generator, discriminator.group)
    gan = GAN(
        generator,
        discriminator,
        build(config.loss),
        R1Penalty(**config.penalty),
        **config.gan,
    )
    config.precision = precision_for(config.precision)  # as used: another machine must resume with the same
    settings = plain_settings(parser, config)
    evaluation = EvaluationSettings(**config.evaluation)
    folder, resuming = choose_folder(config, data, settings)
    config.name = folder.name
    text = yaml.safe_dump(plain_settings(parser, config), sort_keys=False)
    trainer = {**config.trainer, "precision": config.precision}
    run = Run(gan, data, extractor, folder, config.epochs, config.seed, evaluation, settings, text, trainer)
    run.check()
    if not resuming:
        folder.claim(config.overwrite)
        with atomic_write(folder.config) as temporary:
            temporary.write_text(text)
    return run, resuming


def set_lengths(config: jsonargparse.Namespace, steps: int) -> None:
    """Lengths that were left open, in passes of this many steps: 3,000 in all, scored every 500."""
    if config.epochs is None:
        config.epochs = max(1, round(3000 / steps))
    if config.evaluation.every is None:
        config.evaluation.every = max(1, round(500 / steps))


def plain_settings(parser: Parser, config: jsonargparse.Namespace) -> dict[str, Any]:
    """The settings as YAML would hold them, without those that only say how to start."""
    settings = yaml.safe_load(parser.dump(config, skip_unset=False))  # a null is a setting too
    return {k: v for k, v in settings.items() if k not in ("config", "resume", "overwrite")}


def choose_folder(
    config: jsonargparse.Namespace, data: ImageData, settings: dict[str, Any]
) -> tuple[RunFolder, bool]:
    """The folder of a new run, not yet made, or that of the run to resume, its settings checked."""
    name = default_name(config, data) if config.name is None else config.name
    folder = RunFolder(name, config.log_dir, config.samples_dir)
    if not config.resume:
        if config.name is None and not config.overwrite:
            folder = folder.first_free()
        folder.require_free(config.overwrite)
        return folder, False
    if config.name is None:
        folder = folder.newest()
    if not folder.config.is_file():
        raise FileNotFoundError(
            f"--resume: no run named {folder.name!r} in {folder.logs_root}. "
            f"Runs there: {', '.join(folder.siblings()) or 'none'}."
        )
    _require_same(yaml.safe_load(folder.config.read_text()), settings, folder.name)
    return folder, True


def _require_same(stored: dict[str, Any], given: dict[str, Any], name: str) -> None:
    before, now = dict(flatten(stored)), dict(flatten(given))
    different = [
        key
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key) and not key.startswith(FREE_ON_RESUME)
    ]
    if different:
        listed = "; ".join(f"{k} was {before.get(k)}, now {now.get(k)}" for k in different)
        raise ValueError(
            f"run {name!r} was trained with other settings ({listed}). Resume it by its name alone, "
            f"--resume {name}, or start a new run under another --name."
        )
