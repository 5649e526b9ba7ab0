"""All-CNN-C over z2, p4 and p4m, and ResNet-44 over p4m, on the same images of CIFAR-10.

    python benchmarks/classify_cifar10.py --data-root DIR               # the papers' settings, for a GPU
    python benchmarks/classify_cifar10.py --data-root DIR --quick       # some 100 minutes on one thread
    python benchmarks/classify_cifar10.py --rows allcnn_z2,allcnn_p4 --seeds 0,1 --fractions 1,0.1
    python benchmarks/classify_cifar10.py --check                       # a minute, on the embedded digits

A row is a file configs/classify/<row>.yaml; `_plus` trains on flipped and shifted images. The networks of
All-CNN-C have equal parameters (p4m, in the full form, the paper's 1.22 million for 1.37). The quick form
trains them a sixth as wide, for 10 epochs in place of 350, with batches of 64, one cycle of the learning
rate and, being far too small to overfit, no dropout; whitening, optimiser and rate are the configs'.
ResNet-44 has an eighth of its width there and as many parameters as the others, takes longer than any of
them, and is run only if --rows names it.

Whatever there is of CIFAR-10 under the data root is used, all of it and the same for every row: the results
state how many images, beside what was published for 50,000 of them. The last epoch is tested; nothing is
chosen on test images. Each run is `eqgan classify` in a process of its own, with one thread, and --jobs of
them run side by side. Those that are finished are not repeated, those that were stopped go on where they
were; results file and picture are written anew after every run.
"""

import argparse
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from many_runs import (
    HERE,
    Task,
    begun,
    draw_errors,
    numbers,
    over_seeds,
    parser_of_runs,
    root_words,
    run,
    run_all,
)
from speed import write

PLAIN = ("allcnn_z2", "allcnn_p4", "allcnn_p4m")
PLUS = ("allcnn_z2_plus", "allcnn_p4_plus", "allcnn_p4m_plus")
PUBLISHED = {  # with 50,000 images: arXiv:1602.07576, table 2
    **dict(zip(PLAIN, (0.0944, 0.0884, 0.0759))),
    **dict(zip(PLUS, (0.0886, 0.0767, 0.0704))),
    "resnet44_p4m": 0.0494,
}
MARK = "published_with_50000_images"


@dataclass(frozen=True)
class Form:
    """How much is run.

    Args:
        name: full, quick or check.
        rows: those of the first group with every seed, then those of the next.
        data: the source.
        epochs: None: those of each config.
        words: of the command line, for rows that begin with a name.
    """

    name: str
    rows: tuple[tuple[str, ...], ...]
    data: str = "cifar10"
    epochs: int | None = None
    words: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def words_for(self, row: str) -> list[str]:
        return [word for start, words in self.words if row.startswith(start) for word in words]


FULL = Form("full", (PLAIN, PLUS, ("resnet44_p4m",)))
QUICK = Form(
    "quick",
    (PLAIN, PLUS),
    epochs=10,
    words=(
        ("", ("--schedule", "one-cycle", "--batch-size", "64")),
        ("allcnn", ("--network.width", "16", "--network.dropout", "[0,0,0]")),
        ("resnet44", ("--network.width", "4")),
    ),
)
CHECK = Form(
    "check",
    (("allcnn_p4m_plus", "resnet44_p4m"),),
    data="digits",
    epochs=1,
    words=(("", ("--network.width", "4")),),
)


def tasks(groups: list[list[str]], seeds: list[int], shares: list[float]) -> list[Task]:
    """Group by group and seed by seed, so that a stopped program has every row of what it began."""
    return [Task(row, share, seed) for rows in groups for share in shares for seed in seeds for row in rows]


def table(runs: dict[str, Any], source: str) -> list[dict[str, Any]]:
    """Errors over the seeds of each row, beside that of its last epoch's batches and the published one."""
    kept = ("training_images", "parameters", "multiply_adds", "epochs")
    entries = over_seeds(runs, kept, "error")
    for entry in entries:
        mine = [r for r in runs.values() if (r["row"], r["fraction"]) == (entry["row"], entry["fraction"])]
        entry["training_error"] = statistics.fmean(r["training_error"] for r in mine)
        if source == FULL.data and entry["fraction"] == 1:
            entry[MARK] = PUBLISHED.get(entry["row"])
    order = {row: place for place, row in enumerate(PUBLISHED)}
    return sorted(entries, key=lambda entry: (order.get(entry["row"], len(order)), -entry["fraction"]))


def keep(result: dict[str, Any], out: Path, picture: Path) -> None:
    rows = table(result["runs"], result["data"])
    write(out, result | {"table": rows})
    if rows:
        test = next(key for key in rows[0] if key.startswith("error_")).removeprefix("error_")
        draw_errors(rows, test, {MARK: "k|"}, picture)


def options_and_rest() -> tuple[argparse.Namespace, list[str]]:
    parser = parser_of_runs("classify_cifar10", __doc__, "digits, one epoch", "narrow networks, few epochs")
    parser.add_argument("--rows", default=None, help="default: those of the form")
    parser.add_argument("--fractions", default="1", help="shares of the images, for as many steps each")
    name = "classify_cifar10.png"
    parser.add_argument("--picture", type=Path, default=HERE.parent / "docs" / "images" / name)
    return parser.parse_known_args()


def main() -> None:
    options, extra = options_and_rest()
    form = QUICK if options.quick else CHECK if options.check else FULL
    epochs = options.epochs or form.epochs
    seeds = [int(seed) for seed in options.seeds.split(",")][: 1 if form is CHECK else None]
    groups = [list(rows) for rows in form.rows] if options.rows is None else [options.rows.split(",")]
    settings = {start or "all": list(words) for start, words in form.words}
    plan = {"form": form.name, "data": form.data, "epochs": epochs, "settings": settings, "options": extra}
    result = begun("classify_cifar10", plan, options.out)
    rest = [*extra, *root_words(options)]
    run_all(
        tasks(groups, seeds, numbers(options.fractions)),
        options.jobs,
        result["runs"],
        start=lambda t: run(t, options.work, epochs, form.data, [*form.words_for(t.row), *rest]),
        keep=lambda: keep(result, options.out, options.picture),
        shown=lambda scores: f"{100 * scores['error']:.2f} %",
    )


if __name__ == "__main__":
    main()
