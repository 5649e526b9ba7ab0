"""``eqgan evaluate``: every score of a trained GAN, or of images from anywhere, against any reference."""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.table import Table

from eqgan.cli.building import feature_extractor
from eqgan.cli.command import (
    CommandParser,
    as_json,
    device_option,
    named_run,
    require_replaceable,
    run_command,
    whole,
)
from eqgan.console import console
from eqgan.data.imageset import ImageSet
from eqgan.data.loader import to_unit
from eqgan.data.module import ImageData
from eqgan.data.sources import open_source
from eqgan.files import atomic_write
from eqgan.metrics import FeatureExtractor, Reference, Scores, score_features
from eqgan.networks import OrbitGenerator
from eqgan.training.callbacks import Evaluation
from eqgan.training.classes import Classes, classes_of
from eqgan.training.load import find_checkpoint, load_classifier, open_gan
from eqgan.training.module import GAN
from eqgan.training.report import add_class_shares, discriminator_error, versions
from eqgan.training.scoring import class_shares, copies_and_orientation, image_reference

EXAMPLES = """\
  eqgan evaluate logs/my-run                              the best checkpoint, as its run scored it
  eqgan evaluate logs/my-run/checkpoints/last.ckpt --samples 50000 --repeats 3
  eqgan evaluate logs/my-run --reference photos/ --features inception
  eqgan evaluate logs/my-run --features mypackage.nets:make_features --json
  eqgan evaluate samples.npz --reference rotmnist         images from anywhere: an .npz or a folder
"""
SHARES = ("precision", "recall", "density", "coverage")
NAMES = {"fid": "Fréchet distance", "kernel_distance": "kernel distance"}


class Real(NamedTuple):
    """The real images that are scored against, and the data that they belong to if those are the run's."""

    images: ImageSet
    split: str
    data: ImageData | None


def evaluate(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Evaluates from command-line words; what ``--json`` prints is returned."""
    return run_command(_parser(), _evaluate, argv)


def _parser() -> CommandParser:
    parser = CommandParser(
        "evaluate",
        "Fréchet distance, precision, recall, density, coverage, kernel distance, invariance error, class "
        "shares, orientation and copies of training images, with all that they depend on.",
        EXAMPLES,
    )
    add = parser.add_argument
    add("target", metavar="RUN", type=named_run, help="a run or checkpoint; or images, an .npz or a folder")
    add("--reference", help="real images: rotmnist, mnist, digits, a folder, an .npz (default: the run's)")
    add("--split", help="of the reference (default: the run's, else test if there is one, else train)")
    add("--data-root", help="where MNIST lies; else EQGAN_DATA, else data/")
    add("--features", help="feature network: default, inception, module:factory (default: the run's)")
    add("--samples", type=whole(2), help="images drawn for a score (default: as many as the run drew)")
    add("--seed", type=whole(0), help="of the latents (default: the run's)")
    add("--repeats", type=whole(1), default=1, help="score so many times on fresh latents (default 1)")
    add("--neighbours", type=whole(1), default=5, metavar="K", help="of precision and the like (default 5)")
    add("--out", type=Path, help="also write the results to this JSON file")
    device_option(parser)
    return parser


def _evaluate(options: argparse.Namespace) -> dict[str, Any]:
    if options.out is not None:
        require_replaceable(options.out, (".json",), "the results of eqgan evaluate", '"kernel_distance"')
    found = _of_images(options) if _is_images(options.target) else _of_gan(options)
    told = {**found, "versions": versions()}
    if options.out is not None:
        with atomic_write(options.out) as temporary:
            temporary.write_text(as_json(told) + "\n")
    print(as_json(told)) if options.json else _show(told)
    return told


def _is_images(target: Path) -> bool:
    """Whether these are images rather than a run: neither a checkpoint nor a folder with some."""
    if target.suffix.lower() in (".npy", ".png", ".jpg", ".jpeg"):
        raise ValueError(
            f"{target}: expected a run or checkpoint, or images: an .npz (numpy.savez) or a folder of them"
        )
    if not target.is_dir():
        return target.suffix.lower() == ".npz"
    return not any(target.glob("*.ckpt")) and not (target / "checkpoints").is_dir()


def _of_gan(options: argparse.Namespace) -> dict[str, Any]:
    path = find_checkpoint(options.target)
    gan, settings = open_gan(path, options.device)
    extractor = feature_extractor(options.features or settings["evaluation"]["features"])
    real = _real(options, settings, gan.generator.image_shape[1])
    reference = image_reference(real.images, real.split, extractor)
    samples = options.samples or settings["evaluation"]["samples"]
    seed = settings["seed"] if options.seed is None else options.seed
    classes = _classes(gan, real, extractor, settings["evaluation"].get("classifier"))
    draws = Evaluation(reference, extractor, samples, 1, seed, classes)
    scores, shares, by_class = [], None, None
    for repeat in range(options.repeats):
        drawn = draws.drawn(gan, stream=-1 - repeat)
        scores.append(score_features(drawn.features, reference, kernel=True, k=options.neighbours))
        shares = shares or class_shares(drawn.features, extractor, len(real.images.class_names))
        if classes is not None and classes.references:
            by_class = by_class or draws.class_scores(drawn)
    return {
        "of": str(path),
        "seed": seed,
        **_summed_up(scores),
        "fid_without_group_element": _unmoved(gan, draws),
        "class_shares": shares,
        "class_shares_real": _real_shares(real, reference, extractor),
        "classes": None if by_class is None else by_class.as_dict(),
        "group": str(gan.discriminator.group),
        "invariance_error": _invariance_error(gan, real),
        **_copies(gan, real, extractor, seed),
    }


def _of_images(options: argparse.Namespace) -> dict[str, Any]:
    if options.reference is None:
        raise ValueError(f"{options.target} holds images: say with --reference what to compare them with")
    fakes = open_source(str(options.target)).split("train")
    extractor = feature_extractor(options.features or "default")
    extractor.module.to(options.device)
    real = _real(options, {}, None)
    reference = image_reference(real.images, real.split, extractor)
    count = min(options.samples or len(fakes.images), len(fakes.images))
    chosen = torch.randperm(len(fakes.images), generator=torch.Generator().manual_seed(options.seed or 0))
    features = extractor.extract(fakes.images[chosen[:count]]).cpu()
    scores = score_features(features, reference, kernel=True, k=options.neighbours)
    shares = class_shares(features, extractor, len(real.images.class_names))
    return {
        "of": str(options.target),
        "seed": options.seed or 0,
        **_summed_up([scores]),
        "class_shares": shares,
        "class_shares_real": _real_shares(real, reference, extractor),
    }


def _real_shares(real: Real, reference: Reference, extractor: FeatureExtractor) -> list[float] | None:
    return class_shares(reference.features, extractor, len(real.images.class_names))


def _real(options: argparse.Namespace, settings: dict[str, Any], side: int | None) -> Real:
    """The images named by the options, else those of the run."""
    if options.reference is not None:
        source = open_source(options.reference, options.data_root, side)
        split = options.split or ("test" if "test" in source.splits else "train")
        return Real(source.split(split), split, None)
    dataset = dict(settings["dataset"])
    if options.data_root is not None:
        dataset["root"] = options.data_root
    data = ImageData(**dataset, seed=settings["seed"])
    split = data.resolve_split(options.split or settings["evaluation"]["reference"])
    return Real(data.reference(split), split, data)


def _summed_up(scores: list[Scores]) -> dict[str, Any]:
    """The mean of several scores of one thing, with their spread where there are several."""
    names = ("fid", *SHARES, "kernel_distance")
    values = {name: [getattr(score, name) for score in scores] for name in names}
    told: dict[str, Any] = {name: statistics.fmean(found) for name, found in values.items()}
    if len(scores) > 1:
        told["std"] = {name: statistics.stdev(found) for name, found in values.items()}
        told["repeats"] = [replace(score, provenance={}).as_dict() for score in scores]
    return {**told, "provenance": scores[0].provenance}


def _unmoved(gan: GAN, draws: Evaluation) -> float | None:
    """The distance without the random group element of the samples, where they have one."""
    if not isinstance(gan.generator, OrbitGenerator):
        return None
    return score_features(draws.features(gan, -1, moved=False), draws.reference, neighbours=False).fid


def _classes(gan: GAN, real: Real, extractor: FeatureExtractor, judge: str | None) -> Classes | None:
    """What is known of the classes of a conditional GAN; drawn evenly where the real images have none."""
    if not gan.num_classes:
        return None
    if real.images.labels is None or len(real.images.class_names) != gan.num_classes:
        return Classes(torch.full((gan.num_classes,), 1 / gan.num_classes), (), None)
    return classes_of(real.images, real.split, extractor, None if judge is None else load_classifier(judge))


def _invariance_error(gan: GAN, real: Real) -> float | None:
    """Of the discriminator, on real images of its shape."""
    images = real.images.images[:256]
    if len(images) < 2 or tuple(images.shape[1:]) != gan.discriminator.image_shape:
        return None
    return discriminator_error(gan, to_unit(images).to(gan.device))


def _copies(gan: GAN, real: Real, extractor: FeatureExtractor, seed: int) -> dict[str, Any]:
    """Orientation and memorisation, against the run's own data."""
    if real.data is None:
        return {"orientation": None, "memorisation": None}
    real.data.setup()
    return copies_and_orientation(gan, real.data, real.split, extractor, seed=seed)


def _show(told: dict[str, Any]) -> None:
    table = Table(title=str(told["of"]), show_header=False, title_justify="left")
    table.add_column()
    table.add_column(overflow="fold")
    spread = told.get("std", {})
    for name in ("fid", *SHARES, "kernel_distance"):
        digits = {"fid": 2, "kernel_distance": 5}.get(name, 3)
        text = f"{told[name]:.{digits}f}"
        text += f" +- {spread[name]:.{digits}f} over {len(told['repeats'])} draws" if spread else ""
        table.add_row(NAMES.get(name, name), text)
    if (unmoved := told.get("fid_without_group_element")) is not None:
        table.add_row("without the group element", f"{unmoved:.2f}")
    if told.get("class_shares"):
        add_class_shares(table, "classes, %", told["class_shares"], told["class_shares_real"])
    if (classes := told.get("classes")) is not None and classes["intra_fid"] is not None:
        table.add_row("Fréchet distance within classes", f"{classes['intra_fid']:.2f}")
    if classes is not None and classes["accuracy"] is not None:
        table.add_row("samples of the right class", f"{100 * classes['accuracy']:.1f} %")
    if told.get("invariance_error") is not None:
        table.add_row("invariance error of D", f"{told['invariance_error']:.1e} under {told['group']}")
    if (orientation := told.get("orientation")) is not None:
        text = f"{orientation['samples']:.2f}, of real images {orientation['real']:.2f}"
        table.add_row("distance to quarter turns", text)
    if (copies := told.get("memorisation")) is not None:
        text = f"{copies['ratio']:.2f} of a fresh image's; {100 * copies['share']:.1f} % nearer than 99 % of"
        table.add_row("nearest training image", f"{text} those")
    provenance = told["provenance"]
    data, features = provenance["data"], provenance["features"]
    table.add_row("against", f"{data['count']:,} images of {data['name']} ({data['split']})")
    table.add_row("samples", f"{provenance['samples']:,}, seed {told['seed']}")
    table.add_row("features", f"{features['name']} {features['sha256'][:8]}, resize {features['resize']}")
    used = provenance["neighbours"]
    table.add_row("neighbours", f"k = {used['k']} among {used['real']:,} reals and {used['fake']:,} samples")
    console().print(table)
