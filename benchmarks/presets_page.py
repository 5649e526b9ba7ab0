"""What benchmarks/presets.py tells of the presets it trained: docs/presets.md and its picture."""

import math
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from many_runs import save


def draw(rows: list[dict[str, Any]], work: Path, path: Path) -> None:
    """The strips of all presets."""
    figure, axes = plt.subplots(
        math.ceil(len(rows) / 2), 2, figsize=(11, 2.1 * math.ceil(len(rows) / 2)), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, row in zip(axes.flat, rows):
        axis.imshow(plt.imread(work / row["strip"]))
        axis.set_title(f"{row['preset']}, {row['steps']:,} steps: FID {row['fid']['least']:.1f}", fontsize=10)
    save(figure, path)


def page(rows: list[dict[str, Any]], result: dict[str, Any]) -> str:
    """docs/presets.md."""
    less = (
        "Each was run for a part of its recipe only, with narrower networks where the table says so, and the "
        "64-pixel sets at 32 pixels: the numbers say whether it learns, not what it reaches. "
        if result["form"] != "full"
        else ""
    )
    head = (
        "preset", "source", "data", "steps of the recipe's", "parameters G / D (recipe's)", "FID before",
        "end", "least (step)", "real", "precision", "recall", "coverage", "spread", "minutes",
    )  # fmt: skip
    lines = [
        "# The presets, trained",
        "",
        f"Written by `{result['program']}`, {result['form']} form, from {result['finished']} of "
        f"{result['planned']} runs (seed 0), on {result['hardware']}; all numbers in "
        f"`benchmarks/results/presets.json`. {less}What each recipe is, and where it departs from its source "
        "and why, stands at the head of `configs/<preset>.yaml`.",
        "",
        "FID is of the shipped network's features ([which FID](fid.md)), which sees grey images of 28 "
        "pixels: of coloured and larger sets it compares the numbers of one row, and the picture says more. "
        "*Before* is the same generator untrained, *real* the training images against the same reference. "
        "Precision, recall and coverage are those at the least FID. *Spread* is how much pixels vary between "
        "samples of a class, real images being 1. Minutes are processor time of training.",
        "",
        "![Real images above samples, for each preset](images/presets.png)",
        "",
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
        *(f"| {' | '.join(cells(row))} |" for row in rows),
        "",
    ]
    return "\n".join([*lines, *told(rows), ""])


def cells(row: dict[str, Any]) -> list[str]:
    """One line of the table."""
    fid, share = row["fid"], row["steps"] / row["recipe_steps"]
    counts = " / ".join(thousands(n) for n in row["parameters"].values())
    if row["parameters"] != row["recipe_parameters"]:
        counts += f" ({' / '.join(thousands(n) for n in row['recipe_parameters'].values())})"
    return [
        f"`{row['preset']}`",
        row["source"],
        f"{row['data']}, {row['training_images']:,} of {row['image_shape'][1]} pixels",
        f"{row['steps']:,} of {row['recipe_steps']:,} ({100 * share:.2g} %)",
        counts,
        f"{fid['before']:.1f}",
        f"{fid['end']:.1f}",
        f"{fid['least']:.1f} ({row['least_step']:,})",
        f"{fid['training_images']:.1f}",
        *(f"{row[k]:.2f}" for k in ("precision", "recall", "coverage", "spread")),
        f"{row['cpu_seconds'] / 60:.1f}",
    ]


def thousands(count: int) -> str:
    """
    >>> thousands(64_300), thousands(2_631_296)
    ('64k', '2.63M')
    """
    return f"{count / 1e6:.2f}M" if count >= 1_000_000 else f"{count / 1e3:.0f}k"


def told(rows: list[dict[str, Any]]) -> list[str]:
    """What went wrong, if anything did."""
    lines = []
    for row in rows:
        fid = row["fid"]
        if not fid["end"] < fid["before"]:
            lines.append(f"`{row['preset']}` did not learn: its FID ended no lower than it began.")
        if row["spread"] < 0.2:
            lines.append(f"`{row['preset']}` collapsed, or has not parted yet: its samples hardly differ.")
        if row["coverage"] < 0.005:
            lines.append(f"`{row['preset']}`: next to no real image has a sample near it yet.")
        if abs(row["rim"]) > 0.3:
            lines.append(f"`{row['preset']}`: its samples have a frame that real images have not.")
        if row["rollbacks"]:
            lines.append(
                f"`{row['preset']}` diverged, and went on at half the rates: {len(row['rollbacks'])}x."
            )
    fell = sum(row["fid"]["end"] < row["fid"]["before"] for row in rows)
    return [
        f"FID ended below where it began in {fell} of {len(rows)} runs.",
        *([""] if lines else []),
        *(f"- {line}" for line in lines),
    ]
