"""Every config under configs/ trains a step, on images of the size and colours that it is for."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

import eqgan
from eqgan.cli import parse_gan, train_gan
from eqgan.cli.classify import classify, parse_classify

FOLDER = Path(eqgan.__file__).parents[1] / "configs"
CLASSIFIERS = sorted((FOLDER / "classify").glob("*.y*ml"))
CONFIGS = sorted(FOLDER.glob("*.y*ml"))
COLOURED = {"cifar10": (32, 3, 10), "bccd": (64, 3, 3), "mirabest": (150, 1, 2)}


def stand_in(path: Path, noise: Callable[[int, int, int], Path]) -> list[str]:
    """The digits for anything like them; else a few images of noise, of the shape and classes of the set."""
    source = yaml.safe_load(path.read_text()).get("dataset", {}).get("source", "auto")
    data = str(noise(*COLOURED[source])) if source in COLOURED else "digits"
    return ["--data", data, "--fraction", "1", "--batch-size", "2"]


def narrow(path: Path) -> list[str]:
    """The same networks, but for their widths."""
    config = yaml.safe_load(path.read_text())
    words: list[str] = []
    for role in ("generator", "discriminator"):
        arguments = config.get(role, {}).get("init_args", {})
        words += [f"--{role}.width", "2"] if "width" in arguments else []
    return words


def test_there_are_some():
    assert CONFIGS


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_it_trains_a_step(path, tmp_path, monkeypatch, noise):
    monkeypatch.setenv("EQGAN_CACHE", str(noise(4, 1, 2).parent))  # statistics of the digits, made once
    summary = train_gan(
        [
            *("--config", str(path), *stand_in(path, noise), *narrow(path)),
            *("--epochs", "1", "--trainer.limit_train_batches", "1", "--gan.discriminator_steps", "1"),
            *("--evaluation.samples", "12", "--evaluation.features", "default", "--evaluation.grid", "4"),
            *("--log-dir", str(tmp_path / "logs"), "--samples-dir", str(tmp_path / "samples")),
        ]
    )
    assert summary["generator_steps"] == 1
    assert (tmp_path / "samples" / summary["run"] / "epoch_0000.png").is_file()
    config = yaml.safe_load(path.read_text())
    wanted = config.get("discriminator", {}).get("init_args", {}).get("group")
    assert wanted in (None, summary["group"])


@pytest.fixture(scope="module")
def noise(tmp_path_factory) -> Callable[[int, int, int], Path]:
    """A few images of noise with labels, made once for each shape."""
    folder = tmp_path_factory.mktemp("noise")

    def made(side: int, channels: int, classes: int) -> Path:
        path = folder / f"{side}-{channels}.npz"
        draw = np.random.RandomState(0)
        shape = (max(6, 2 * classes), side, side, channels)
        images = {s: draw.randint(0, 256, shape, dtype=np.uint8) for s in ("", "test_")}
        labels = {f"{s}labels": np.arange(shape[0]) % classes for s in images}
        np.savez(path, **{f"{s}images": i for s, i in images.items()}, **labels)
        return path

    return made


SHAPES = {"rotmnist": (24, 1, 10), "cifar10": (16, 3, 10), "mirabest": (150, 1, 2)}


@pytest.mark.parametrize("path", CLASSIFIERS, ids=lambda p: p.stem)
def test_a_classifier_trains_a_step(path, tmp_path, noise):
    """A narrower network of its kind: what the config sets is compared below."""
    config = yaml.safe_load(path.read_text())
    side, channels, classes = SHAPES[config["dataset"]["source"]]
    data = noise(config["dataset"].get("size", side), channels, classes)
    words = ["--config", str(path), "--data", str(data), "--network.width", "4", "--log-dir", str(tmp_path)]
    summary = classify([*words, "--epochs", "1", "--trainer.limit_train_batches", "1"])
    assert summary["steps"] == 1
    arguments = config["network"]["init_args"]
    stride = re.fullmatch(r"subgroup:(\w+)@\d", arguments.get("fiber", ""))
    assert summary["group"] == (stride[1] if stride else arguments["group"])


@pytest.mark.parametrize("path", [*CONFIGS, *CLASSIFIERS], ids=lambda p: p.stem)
def test_it_says_what_it_is_for_and_every_key_counts(path):
    """Its first line is a comment, and what it sets is what the parser then holds."""
    assert path.read_text().startswith("# ")

    parser, settings = (parse_classify if path in CLASSIFIERS else parse_gan)(["--config", str(path)])
    held = yaml.safe_load(parser.dump(settings, skip_unset=False))
    assert not missing(yaml.safe_load(path.read_text()), held)


def missing(given, held, key=""):
    """Where what is given is not what is held; more may be held."""
    if isinstance(given, dict):
        return [m for k, v in given.items() for m in missing(v, held.get(k), f"{key}.{k}")]
    if isinstance(given, list) and isinstance(held, list) and len(given) == len(held):
        return [m for v, h in zip(given, held) for m in missing(v, h, f"{key}[]")]
    return [] if given == held else [f"{key}: {given} became {held}"]
