"""Transfer to images without an up: plain, augmented, p4 from scratch, and a plain network inflated to p4.

    python benchmarks/transfer.py --data-root DIR --jobs 2             # restartable; for a GPU
    python benchmarks/transfer.py --data-root DIR --quick              # some 50 minutes on one thread
    python benchmarks/transfer.py --target lens --epochs 20 --out lens.json --picture lens.png
    python benchmarks/transfer.py --check                              # minutes, on the embedded digits

A plain network is trained on other images first (`--source`); the pretrained rows and the inflated ones start
from it, the latter as its exact group average. Two rows have rates that halve from stage to stage. Each row
is a file configs/classify/transfer_<row>.yaml. The quick form has networks half as wide, a third of the
epochs (a fifth on the source) and a score on validation images every fifth, so that with four epochs only the
last is scored; all else is the configs'. All runs of a form take the same number of steps, whatever the share
of the images. Of the epochs with a score that with the best is tested; validation images are a tenth of all
training images and none of the share. Reported is the area under the ROC curve on test images as they are and
turned by any angle, and, under "started_from", what the plain networks reached on the source.

Each run is `eqgan classify` in a process of its own, with one thread; runs that are finished are not
repeated. Results file and picture are written anew after every run.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from many_runs import (
    HERE,
    Task,
    begun,
    numbers,
    over_seeds,
    parser_of_runs,
    record,
    root_words,
    run,
    run_all,
    save,
)
from speed import write

FROM_SCRATCH = ("plain", "plain_rotation", "p4")
STARTED = (
    "plain_pretrained",
    "plain_pretrained_decay",
    "inflated",
    "inflated_head",
    "inflated_last_stage",
    "inflated_off_identity",
)


@dataclass(frozen=True)
class Form:
    """How much is run; an option given on the command line is taken instead.

    Args:
        name: full, quick or check.
        epochs: None: those of each config.
        words: of the command line, for every run.
    """

    name: str
    source: str = "cifar10"
    source_epochs: int = 30
    source_fraction: float = 1.0
    target: str = "mirabest"
    epochs: int | None = None
    fractions: str = "0.01,0.05,0.25,1"
    seeds: str = "0,1,2"
    words: tuple[str, ...] = ()


# test AUC, lens or no lens, of a study that this follows: ResNet-18, and a P4 network upright and turned
REPORTED_ELSEWHERE = {"lens": {"plain": 0.984, "p4": 1.0}}
FULL = Form("full")
QUICK = Form(
    "quick",
    fractions="0.05,0.25,1",
    source_epochs=6,
    epochs=20,
    words=("--network.width", "8", "--judging.every", "5"),
)
DIGITS = {"source": "digits", "target": "digits"}
CHECK = Form(
    "check", **DIGITS, source_epochs=1, epochs=1, fractions="1", seeds="0", words=("--network.width", "4")
)


@dataclass(frozen=True)
class Transfer(Task):
    """One run: a row of configs/classify/transfer_*.yaml, perhaps from a checkpoint."""

    init: Path | None = None

    def words(self, epochs: int | None, source: str) -> list[str]:
        words = super().words(epochs, source)
        words[1] = words[1].replace(f"{self.row}.yaml", f"transfer_{self.row}.yaml")
        return words + ([] if self.init is None else ["--init", str(self.init)])


def pretrained(work: Path, seed: int, form: Form, extra: list[str]) -> tuple[Path, dict[str, Any]]:
    """The checkpoint of the plain network trained on the source with this seed, and what is kept of it."""
    task = Transfer("pretrain", form.source_fraction, seed)
    folder = work / form.source
    kept = record(task, run(task, folder, form.source_epochs, form.source, extra))
    return folder / "logs" / task.name / "checkpoints" / "last.ckpt", kept


def keep(result: dict[str, Any], out: Path, picture: Path) -> None:
    kept = ("parameters", "multiply_adds", "training_images")
    result["table"] = over_seeds(result["runs"], kept, "auc")
    for entry in result["table"]:
        if entry["fraction"] == 1 and result["target"] in REPORTED_ELSEWHERE:
            entry["auc_reported_elsewhere"] = REPORTED_ELSEWHERE[result["target"]].get(entry["row"])
    write(out, result)
    if result["table"]:
        draw(result["table"], result["target"], picture)


def draw(rows: list[dict[str, Any]], target: str, path: Path) -> None:
    """AUC against the number of training images: test images as they are, and turned; range of the seeds."""
    tests = [key for key in rows[0] if key.startswith("auc_") and key != "auc_reported_elsewhere"]
    figure, axes = plt.subplots(
        1, len(tests), figsize=(4.4 * len(tests) + 2, 4), sharey=True, layout="constrained", squeeze=False
    )
    names = dict.fromkeys((*FROM_SCRATCH, *STARTED, *(row["row"] for row in rows)))
    counts = sorted({row["training_images"] for row in rows})
    for axis, test in zip(axes[0], tests):
        for place, name in enumerate(names):
            mine = [row for row in rows if row["row"] == name]
            if not mine:
                continue
            images = [
                row["training_images"] * 1.03 ** (place - len(names) / 2) for row in mine
            ]  # side by side
            low, mean, high = ([row[test][key] for row in mine] for key in ("min", "mean", "max"))
            spread = [[m - a for m, a in zip(mean, low)], [b - m for m, b in zip(mean, high)]]
            kind = "--" if name in FROM_SCRATCH else "-"
            axis.errorbar(images, mean, spread, fmt=f"o{kind}", ms=4, capsize=2, label=name.replace("_", " "))
        axis.set(xscale="log", xlabel="training images", title=test.removeprefix("auc_"))
        axis.set_xticks(counts, map(str, counts))
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel(f"test AUC, {target}")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right", fontsize="small")
    save(figure, path)


def options_and_rest() -> tuple[argparse.Namespace, list[str]]:
    parser = parser_of_runs("transfer", __doc__, "digits, one epoch", "narrow networks, few epochs")
    parser.add_argument("--source", help="what the plain network is trained on first: cifar10, lens3, ...")
    parser.add_argument("--source-epochs", type=int)
    parser.add_argument("--source-fraction", type=float)
    parser.add_argument("--target", help="mirabest, lens or lens3")
    parser.add_argument("--rows", default=",".join(FROM_SCRATCH + STARTED))
    parser.add_argument("--fractions", help="shares of the training images")
    parser.add_argument("--picture", type=Path, default=HERE.parent / "docs" / "images" / "transfer.png")
    parser.set_defaults(seeds=None)
    return parser.parse_known_args()


def chosen(options: argparse.Namespace) -> Form:
    """The form that is asked for, with what the options change of it."""
    form = QUICK if options.quick else CHECK if options.check else FULL
    given = {key: getattr(options, key, None) for key in vars(form)}
    return replace(form, **{key: value for key, value in given.items() if value is not None})


def main() -> None:
    options, extra = options_and_rest()
    form = chosen(options)
    free = ("name", "seeds", "fractions")  # more of them add to the same table
    plan = {key: value for key, value in vars(form).items() if key not in free}
    plan = {"form": form.name, **plan, "words": [*form.words], "options": extra}
    result = begun("transfer", plan, options.out, more=("started_from",))
    extra = [*form.words, *extra, *root_words(options)]
    rows, seeds = options.rows.split(","), [int(seed) for seed in form.seeds.split(",")]
    starts = {}
    if any(row in STARTED for row in rows):
        with ThreadPoolExecutor(options.jobs) as pool:
            found = pool.map(lambda seed: pretrained(options.work, seed, form, extra), seeds)
            starts = dict(zip(seeds, found))
        result["started_from"] |= {f"seed {seed}": kept for seed, (_, kept) in starts.items()}
    run_all(
        [
            Transfer(row, share, seed, starts[seed][0] if row in STARTED else None)
            for seed in seeds
            for share in numbers(form.fractions)
            for row in rows
        ],
        options.jobs,
        result["runs"],
        start=lambda t: run(t, options.work / form.target, form.epochs, form.target, extra),
        keep=lambda: keep(result, options.out, options.picture),
        shown=lambda scores: f"AUC {scores['auc']:.4f}",
    )


if __name__ == "__main__":
    main()
