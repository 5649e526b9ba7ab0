"""Every preset of configs/ trained: does its recipe learn on its data?

    python benchmarks/presets.py --data-root DIR            # each for its recipe's own length, for a GPU
    python benchmarks/presets.py --data-root DIR --quick    # 3 to 4 minutes each on one thread
    python benchmarks/presets.py --check                    # seconds each: that the program works, on digits

The quick form takes some hundred generator steps of thousands, narrower networks and smaller images where the
recipe's are sized for a GPU, and fewer samples for each score; all else is the recipe's, and the record says
how much of it was run. FID is taken before training (of the same first weights), along the way, and at the
end; beside it stands that of the training images themselves, which is what a perfect generator would have.

Restartable: finished presets are kept in --work and not repeated, interrupted ones are resumed, --only names
those to run now. Writes results/presets.json, docs/presets.md and docs/images/presets.png, from what is
finished.
"""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from compare_discriminators import curve, load_best
from many_runs import each, gan_summary, kept_or_made, parser_of_forms, places, read_record, root_words
from presets_page import draw, page
from speed import write

from eqgan.cli import gan_parser, parse_gan, prepare, set_lengths
from eqgan.cli.building import number_of_classes
from eqgan.cli.runs import plain_settings
from eqgan.files import atomic_write
from eqgan.metrics import score_features
from eqgan.training.callbacks.grid import save_grid
from eqgan.training.load import gan_from_settings
from eqgan.training.report import budgets, versions
from eqgan.training.run import Run

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
COLUMNS = 10
"""Images in a strip."""


@dataclass(frozen=True)
class Preset:
    """What is run of a config.

    Args:
        source: where the recipe comes from.
        images: training images of its data.
        steps: of the generator in the quick form.
        narrow: the widths of the quick form, generator and discriminator; None: the recipe's.
        size: side of its images in the quick form; None: the recipe's.
    """

    source: str
    images: int
    steps: int
    narrow: tuple[int, int] | None = None
    size: int | None = None


DEY, BIRRELL = "arXiv:2005.01683", "arXiv:2202.01129"
PRESETS = {
    "gegan_rotmnist": Preset(DEY, 12_000, 320, (16, 16)),
    "spgan_rotmnist": Preset(BIRRELL, 6_000, 240, (16, 16)),
    "r3gan": Preset("arXiv:2501.05441", 12_000, 200, (8, 8)),
    "dcgan": Preset("arXiv:1511.06434", 12_000, 480, (16, 32)),
    "c4mnist_p4": Preset("data and scores of arXiv:2402.19369", 3_000, 480, (12, 16)),
    "cifar10_pm": Preset(DEY, 17_000, 120, (8, 8)),
    "bccd_p4m": Preset(f"{DEY}, {BIRRELL}", 1_448, 280, (6, 4), 32),
    "mirabest_p4m": Preset(f"{DEY}, {BIRRELL} but for rates", 698, 200, (6, 4), 32),
    "conv_hinge_p4": Preset("arXiv:1802.05957", 12_000, 200),
    "p4cnn": Preset("arXiv:1602.07576", 12_000, 240),
    "vanilla": Preset("Rath, 2020", 12_000, 320),
}


@dataclass(frozen=True)
class Form:
    """How much is run of every preset.

    Args:
        name: full, quick or check.
        epochs: scores of a run, which cut its steps into equal parts; None leaves all to the recipe.
        samples: for each score.
        steps: of every preset, and the digits' number of images, in place of the preset's own.
    """

    name: str
    epochs: int | None = None
    samples: int | None = None
    steps: int | None = None
    images: int | None = None


FORMS = {
    "full": Form("full"),
    "quick": Form("quick", 4, 2_000),
    "check": Form("check", 2, 60, 4, 1_437),
}


def config_of(name: str) -> dict[str, Any]:
    return yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())


def words(name: str, form: Form, root: list[str]) -> list[str]:
    """Of the command line."""
    said = ["--config", str(CONFIGS / f"{name}.yaml"), "--seed", "0", *root]
    if form.epochs is None:
        return said
    preset, config = PRESETS[name], config_of(name)
    batch = config["dataset"].get("batch_size", 64)
    if form.name == "check":
        batch = 8
        said += ["--data", "digits", "--fraction", "1", "--batch-size", "8"]
    said += narrowed(name, form)
    steps = config.get("gan", {}).get("discriminator_steps", 1) * (form.steps or preset.steps) // form.epochs
    passes = -(-steps * batch // (form.images or preset.images))
    return [
        *said,
        *("--epochs", str(form.epochs), "--evaluation.every", "1", "--dataset.passes", str(passes)),
        *("--evaluation.samples", str(form.samples), "--trainer", json.dumps({"limit_train_batches": steps})),
    ]


def narrowed(name: str, form: Form) -> list[str]:
    """The widths, and the side of the images, that are not the recipe's."""
    preset = PRESETS[name]
    if form.epochs is None:
        return []
    widths, size = preset.narrow, preset.size
    if form.name == "check":
        widths, size = widths and (4, 4), 28
    said = [] if size is None else ["--size", str(size)]
    if widths is None:
        return said
    return [*said, "--generator.width", str(widths[0]), "--discriminator.width", str(widths[1])]


@torch.no_grad()
def trained(name: str, form: Form, work: Path, root: list[str]) -> dict[str, Any]:
    """Trains a preset, or goes on with it; its record."""
    summary = gan_summary(work, name, words(name, form, root))
    run, _ = prepare(*parse_gan(["--resume", name, *places(work), *root]))  # with its first weights
    judge = run.judge()
    scores = {
        "before": score_features(judge.features(run.gan, stream=0), judge.reference, neighbours=False).fid,
        "end": summary["fid_final"],
        "least": summary["at_minimum"]["fid"],
        "training_images": score_features(
            run.extractor.extract(run.real_images(10_000)), judge.reference, neighbours=False
        ).fid,
    }
    load_best(run)
    points = curve(work, name)
    least = next(p for p in points if p["epoch"] == summary["fid_min_epoch"])
    classes = summary["classes_at_minimum"]
    return {
        "preset": name,
        "source": PRESETS[name].source,
        "data": run.data.name,
        "training_images": len(run.data.train),
        "image_shape": list(run.data.image_shape),
        "steps": summary["generator_steps"],
        **of_the_recipe(name, run),
        "narrowed": narrowed(name, form),
        "fid": scores,
        "least_step": int(least["step"]),
        **{k: summary["at_minimum"][k] for k in ("precision", "recall", "coverage", "provenance")},
        **looks(run),
        "class_accuracy": None if classes is None else classes["accuracy"],
        "parameters": {role: summary[role]["parameters"] for role in ("generator", "discriminator")},
        "rollbacks": summary["rollbacks"],
        **{k: summary[k] for k in ("training_seconds", "evaluation_seconds", "invariance_error")},
        "cpu_seconds": points[-1]["cpu_seconds"],
        "precision_of_numbers": summary["settings"].get("precision"),
        "hardware": summary["versions"]["hardware"],
        "curve": [{k: p[k] for k in ("step", "fid", "cpu_seconds")} for p in points],
        "strip": str(draw_strip(run, work / "strips" / f"{name}.png").relative_to(work)),
    }


def of_the_recipe(name: str, run: Run) -> dict[str, Any]:
    """Steps of the generator, and parameters, that the config alone asks for on these data."""
    config = parse_gan(["--config", str(CONFIGS / f"{name}.yaml")])[1]
    batches = len(run.data.train) // config.dataset.batch_size
    set_lengths(config, batches)
    channels, side, _ = run.data.image_shape
    side = config.dataset.size or side
    gan = gan_from_settings(
        plain_settings(gan_parser(), config), (channels, side, side), number_of_classes(config, run.data)
    )
    generator, discriminator = budgets(gan)
    return {
        "recipe_steps": config.epochs * batches // gan.discriminator_steps,
        "recipe_parameters": {
            "generator": generator.parameters,
            "discriminator": discriminator.parameters,
        },
    }


def drawn(run: Run, labels: torch.Tensor) -> torch.Tensor:
    """Samples of the averaged generator, of these labels if it is conditional."""
    latents = run.gan.generator.draw_latents(len(labels), torch.Generator().manual_seed(run.seed))
    return run.gan.sample(latents, labels if run.gan.num_classes else None).float().cpu()


def looks(run: Run, count: int = 250) -> dict[str, float]:
    """What a glance at samples tells: how much they differ, and whether their rims are those of real images.

    ``spread`` is the deviation of a pixel within a class, over that of real images of the class: 0 where all
    samples are one image. ``rim`` is the mean of the outermost pixels, less that of real images, of [-1, 1].
    """
    real, labels = run.real_images(count), run.data.train.labels
    labels = torch.zeros(len(real)) if labels is None or not run.gan.num_classes else labels[: len(real)]
    samples = drawn(run, labels.long())
    return {
        "spread": (deviation(samples, labels) / deviation(real, labels)).item(),
        "rim": (rim(samples) - rim(real)).item(),
    }


def deviation(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Of a pixel within a class, mean over pixels and classes."""
    classes = [images[labels == label] for label in labels.unique()]
    return torch.stack([own.std(0).mean() for own in classes if len(own) > 1]).mean()


def rim(images: torch.Tensor) -> torch.Tensor:
    """Mean of the outermost pixels."""
    inner = images[..., 1:-1, 1:-1]
    return (images.sum() - inner.sum()) / (images.numel() - inner.numel())


def draw_strip(run: Run, path: Path) -> Path:
    """A row of real images above two of samples; of a conditional GAN a column has a class."""
    classes = run.gan.num_classes
    if classes:
        labels = torch.arange(COLUMNS) * classes // COLUMNS
        real = run.real_of_classes(COLUMNS).unflatten(0, (classes, COLUMNS))[labels, torch.arange(COLUMNS)]
    else:
        labels, real = torch.zeros(COLUMNS, dtype=torch.long), run.real_images(COLUMNS)
    save_grid(torch.cat([real, drawn(run, labels.repeat(2))]), path, COLUMNS)
    return path


def report(form: Form, work: Path, out: Path, docs: Path) -> None:
    kept = [work / "results" / f"{name}.json" for name in PRESETS]
    rows = [read_record(file) for file in kept if file.is_file()]
    if not rows:
        return
    result = {
        "program": "benchmarks/presets.py",
        "form": form.name,
        "planned": len(PRESETS),
        "finished": len(rows),
        "hardware": " and ".join(sorted({row["hardware"] for row in rows})),
        "versions": versions(),
    }
    write(out, {**result, "presets": rows})
    draw(rows, work, docs / "images" / "presets.png")
    with atomic_write(docs / "presets.md") as temporary:
        temporary.write_text(page(rows, result))


def main() -> None:
    parser = parser_of_forms("presets", __doc__, "3 to 4 minutes a preset on one thread")
    parser.add_argument("--only", default=",".join(PRESETS), help="presets to run now, by name")
    options = parser.parse_args()
    form = FORMS["quick" if options.quick else "check" if options.check else "full"]
    if unknown := set(options.only.split(",")) - set(PRESETS):
        parser.error(f"--only: unknown {', '.join(sorted(unknown))}; known: {', '.join(PRESETS)}")
    root = root_words(options)
    work = options.work / form.name
    failed = each(
        () if options.report else options.only.split(","),
        lambda name: kept_or_made(
            work, name, words(name, form, []), partial(trained, name, form, work, root)
        ),
    )
    report(form, work, options.out, options.docs)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
