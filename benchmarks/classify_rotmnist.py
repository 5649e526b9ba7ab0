"""Every classifier of Cohen & Welling on Rotated MNIST, and the error against the number of training images.

    python benchmarks/classify_rotmnist.py --data-root DIR --jobs 2       # as published; restartable; days
    python benchmarks/classify_rotmnist.py --data-root DIR --quick        # 8 epochs; some hours on two cores
    python benchmarks/classify_rotmnist.py --quick --rows z2cnn --seeds 3 --fractions ""
    python benchmarks/classify_rotmnist.py --check                        # minutes, on the embedded digits

A row is a file configs/classify/<row>.yaml; `<row>+rotation` trains it on images rotated by any angle. Each
run is `eqgan classify` in a process of its own, with one thread, and --jobs of them run side by side. Those
that are finished are not repeated, those that were stopped go on where they were. All 12,000 images are
trained on and the last epoch is tested: nothing is chosen on test images. With a share of the images
(--fractions) an epoch goes over them so many times that few images do not mean few steps.
The results file is written anew after every run.
"""

import argparse
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
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
    save,
)
from matplotlib.ticker import LogLocator, NullFormatter
from speed import write

PAPERS = ("z2cnn", "p4cnn_rp", "p4cnn_max", "p4cnn_drop", "p4cnn", "p4mcnn")
POOLING = ("pooling_coset", "pooling_subgroup")
ROWS = (
    *PAPERS,
    *POOLING,
    *(f"{row}+rotation" for row in PAPERS),
    *(f"{row}_sgd" for row in PAPERS),
    "wide_p4",
)
QUICK_ROWS = (*PAPERS, *POOLING)
QUICK = (8, ["--batch-size", "64", "--schedule", "one-cycle", "--lr", "4e-3", "--fit.channels_last", "true"])
CURVE = ("z2cnn", "p4cnn_drop", "p4cnn_max", "p4mcnn")
PUBLISHED = {"z2cnn": 0.0503, "p4cnn_rp": 0.0321, "p4cnn_max": 0.0228}  # arXiv:1602.07576, table 1
REPRODUCED = {"z2cnn": 0.0512, "p4cnn_rp": 0.0402, "p4cnn_max": 0.0279}  # a reproduction of it


def table(runs: dict[str, Any], source: str) -> list[dict[str, Any]]:
    """Errors over seeds of each row and share, beside what others reported."""
    entries = over_seeds(runs, ("parameters", "multiply_adds", "epochs"), "error")
    for entry in entries:
        base = entry["row"].partition("+")[0].removesuffix("_sgd")
        if entry["fraction"] == 1 and source == "rotmnist":
            entry |= {"published": PUBLISHED.get(base), "reproduced_elsewhere": REPRODUCED.get(base)}
    return entries


def draw_curve(rows: list[dict[str, Any]], runs: dict[str, Any], test: str, path: Path) -> None:
    """Error against the number of training images, both on a logarithmic scale."""
    shared = [name for name in dict.fromkeys(r["row"] for r in rows) if shares_of(rows, name) > 1]
    if not shared:
        return
    figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
    for name in shared:
        mine = [row for row in rows if row["row"] == name]
        images = [
            next(
                r["training_images"]
                for r in runs.values()
                if (r["row"], r["fraction"]) == (name, row["fraction"])
            )
            for row in mine
        ]
        means = [100 * row[f"error_{test}"]["mean"] for row in mine]
        spread = [100 * (row[f"error_{test}"]["deviation"] or 0) for row in mine]
        axis.errorbar(images, means, yerr=spread, marker="o", capsize=3, label=name)
    axis.set(xscale="log", yscale="log", xlabel="training images", ylabel=f"test error on {test}, %")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.grid(alpha=0.3, which="both")
    axis.legend()
    save(figure, path)


def shares_of(rows: list[dict[str, Any]], name: str) -> int:
    """Of how many shares of the images there is a score, but for all of them: of one there is no curve."""
    return sum(row["row"] == name and row["fraction"] < 1 for row in rows)


def tasks(rows: list[str], curve: list[str], fractions: list[float], seeds: list[int]) -> list[Task]:
    """Seed by seed, so that a stopped program has something of everything; all images first."""
    full = [Task(row, 1.0, seed) for seed in seeds for row in rows]
    less = [Task(row, f, seed) for seed in seeds for f in fractions if f < 1 for row in curve]
    return full + less


def options_and_rest() -> tuple[argparse.Namespace, list[str]]:
    parser = parser_of_runs("classify_rotmnist", __doc__, "digits, one epoch", "a short schedule")
    parser.add_argument("--rows", default=None, help="of the table, from all training images")
    parser.add_argument("--curve", default=",".join(CURVE), help="rows that the --fractions are for")
    parser.add_argument("--fractions", default="0.01,0.05,0.1,0.25", help="shares below 1")
    parser.add_argument("--pictures", type=Path, default=HERE.parent / "docs" / "images")
    return parser.parse_known_args()


def keep(result: dict[str, Any], out: Path, pictures: Path) -> None:
    rows, source = table(result["runs"], result["data"]), result["data"]
    write(out, result | {"table": rows})
    marks = {"published": "k|", "reproduced_elsewhere": "r|"}
    draw_errors(rows, source, marks, pictures / "classify_rotmnist.png")
    draw_curve(rows, result["runs"], source, pictures / "data_efficiency.png")


def main() -> None:
    options, extra = options_and_rest()
    source, epochs, form = ("digits", 1, "check") if options.check else ("rotmnist", options.epochs, "full")
    if options.quick:
        form, epochs, extra = "quick", options.epochs or QUICK[0], [*QUICK[1], *extra]
    elif not options.check and (epochs or extra):
        form = "custom"
    seeds = [int(seed) for seed in options.seeds.split(",")][: 1 if options.check else None]
    default = ",".join(QUICK_ROWS if options.quick else ROWS)
    asked = (default if options.rows is None else options.rows, options.curve)
    rows, curve = ([row for row in text.split(",") if row] for text in asked)
    plan = {"form": form, "data": source, "epochs": epochs, "options": extra}
    result = begun("classify_rotmnist", plan, options.out)
    run_all(
        tasks(rows, curve, numbers(options.fractions), seeds),
        options.jobs,
        result["runs"],
        start=lambda task: run(task, options.work, epochs, source, [*extra, *root_words(options)]),
        keep=lambda: keep(result, options.out, options.pictures),
        shown=lambda scores: f"{100 * scores['error']:.2f} %",
    )


if __name__ == "__main__":
    main()
