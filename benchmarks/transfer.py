"""Transfer to images without an up: plain, augmented, p4 from scratch, and a plain network inflated to p4.

    python benchmarks/transfer.py --data-root DIR --jobs 2             # restartable; hours on two cores
    python benchmarks/transfer.py --target lens --epochs 20 --fractions 0.05,0.25 --seeds 0,1,2
    python benchmarks/transfer.py --check                              # minutes: one epoch, few images

A plain network is trained on simulated lenses with substructure first (`--source`); plain_pretrained and
the inflated rows start from it, the latter as its exact group average. Each row is a file
configs/classify/transfer_<row>.yaml, each run `eqgan classify` in a process of its own, with one thread; runs
that are finished are not repeated. The epoch is chosen on validation images. Reported is the area under the
ROC curve on test images as they are and turned by any angle. Results file and picture are written anew after
every run.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from many_runs import HERE, Task, begun, over_seeds, parser_of_runs, root_words, run, run_all, save
from speed import write

FROM_SCRATCH = ("plain", "plain_rotation", "p4")
STARTED = (
    "plain_pretrained",
    "inflated",
    "inflated_head",
    "inflated_last_stage",
    "inflated_off_identity",
)


@dataclass(frozen=True)
class Transfer(Task):
    """One run: a row of configs/classify/transfer_*.yaml, perhaps from a checkpoint."""

    init: Path | None = None

    def words(self, epochs: int | None, source: str) -> list[str]:
        words = super().words(epochs, source)
        words[1] = words[1].replace(f"{self.row}.yaml", f"transfer_{self.row}.yaml")
        return words + ([] if self.init is None else ["--init", str(self.init)])


def pretrained(work: Path, seed: int, options: argparse.Namespace, extra: list[str]) -> Path:
    """The checkpoint of the plain network trained on the source with this seed."""
    task = Transfer("pretrain", options.source_fraction, seed)
    run(task, work / options.source, options.source_epochs, options.source, extra)
    return work / options.source / "logs" / task.name / "checkpoints" / "last.ckpt"


def keep(result: dict[str, Any], out: Path, picture: Path) -> None:
    kept = ("parameters", "multiply_adds", "training_images")
    result["table"] = over_seeds(result["runs"], kept, "auc")
    write(out, result)
    if result["table"]:
        draw(result["table"], result["target"], picture)


def draw(rows: list[dict[str, Any]], target: str, path: Path) -> None:
    """AUC against the number of training images: test images as they are, and turned."""
    tests = [key for key in rows[0] if key.startswith("auc_")]
    figure, axes = plt.subplots(
        1, len(tests), figsize=(5 * len(tests), 4), sharey=True, layout="constrained", squeeze=False
    )
    for axis, test in zip(axes[0], tests):
        for name in dict.fromkeys(row["row"] for row in rows):
            mine = [row for row in rows if row["row"] == name]
            images = [row["training_images"] for row in mine]
            low, mean, high = ([row[test][key] for row in mine] for key in ("min", "mean", "max"))
            spread = [[m - a for m, a in zip(mean, low)], [b - m for m, b in zip(mean, high)]]
            axis.errorbar(images, mean, yerr=spread, marker="o", capsize=3, label=name.replace("_", " "))
        axis.set(xscale="log", xlabel="training images", title=test.removeprefix("auc_"))
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel(f"test AUC, {target}")
    axes[0][-1].legend(fontsize="small")
    save(figure, path)


def options_and_rest() -> tuple[argparse.Namespace, list[str]]:
    parser = parser_of_runs("transfer", __doc__, "one seed, one epoch")
    parser.add_argument("--source", default="lens3", help="what the plain network is trained on first")
    parser.add_argument("--source-epochs", type=int, default=20)
    parser.add_argument("--source-fraction", type=float, default=1.0)
    parser.add_argument("--target", default="mirabest", help="mirabest, lens or lens3")
    parser.add_argument("--rows", default=",".join(FROM_SCRATCH + STARTED))
    parser.add_argument("--fractions", default="0.05,0.25,1", help="shares of the training images")
    parser.add_argument("--picture", type=Path, default=HERE.parent / "docs" / "images" / "transfer.png")
    return parser.parse_known_args()


def main() -> None:
    options, extra = options_and_rest()
    if options.check:
        options.seeds, options.fractions = "0", "1"
        options.epochs = options.source_epochs = 1
    plan = {"form": "check" if options.check else "full", "options": extra}
    for key in ("source", "source_epochs", "source_fraction", "target", "epochs"):
        plan[key] = getattr(options, key)
    result = begun("transfer", plan, options.out)
    extra = [*extra, *root_words(options)]
    rows, seeds = options.rows.split(","), [int(seed) for seed in options.seeds.split(",")]
    starts = {}
    if any(row in STARTED for row in rows):
        with ThreadPoolExecutor(options.jobs) as pool:
            found = pool.map(lambda seed: pretrained(options.work, seed, options, extra), seeds)
            starts = dict(zip(seeds, found))
    run_all(
        [
            Transfer(row, float(f), seed, starts[seed] if row in STARTED else None)
            for seed in seeds
            for f in options.fractions.split(",")
            for row in rows
        ],
        options.jobs,
        result["runs"],
        start=lambda t: run(t, options.work / options.target, options.epochs, options.target, extra),
        keep=lambda: keep(result, options.out, options.picture),
        shown=lambda scores: f"AUC {scores['auc']:.4f}",
    )


if __name__ == "__main__":
    main()
