"""What symmetry buys: Rotated MNIST by the share of its images, the discriminator's group, and the generator.

    python benchmarks/study.py --data-root DIR --quick            # an hour on two cores, by two of it
    python benchmarks/study.py --data-root DIR --quick --whole    # three more: every share and generator
    python benchmarks/study.py --data-root DIR                    # the full form, for a GPU
    python benchmarks/study.py --data-root DIR --check            # minutes: that the program works, on digits

A run is a cell of {share of the training images} x {discriminator: z2, z2 whose reals and fakes are both
rotated at random (the control of theory), p4, p4m} x {generator: vanilla, conv, or equivariant under the
discriminator's group} x {seed}. All take the same number of generator steps, the default recipe's loss,
penalty and rates; generators of every kind and group have equal parameters, and so have the discriminators.
Each is scored on its least FID, scored again on fresh latents, and there on precision, recall, coverage, the
distance to its own quarter turns (do samples point in all directions), and the nearest training images under
p4m (copies). The random group element that the generator of an invariant discriminator has in its latent
(`--symmetrise`) is taken away for one more score, and the samples of z2 are moved by random quarter turns for
another, to tell apart what the discriminator does and what the element does.

Restartable: finished runs are kept in --work and not repeated, nor are those in the results file that were
of the same settings; interrupted ones are resumed, and several of these programs may share one --work: each
takes the runs that no other holds. Writes results/study.json (the full form study_full.json), docs/study.md
and docs/images/study*.png, from the runs that are finished; with another --out all is run anew.
"""

import contextlib
import io
import itertools
import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from compare_discriminators import curve, moved_by
from many_runs import each, gan_summary, kept_or_made, parser_of_forms, read_record, root_words, save
from matplotlib.ticker import LogLocator, NullFormatter
from speed import write

from eqgan.cli.evaluate import evaluate
from eqgan.files import atomic_write
from eqgan.groups import P4
from eqgan.training.report import versions

COLOURS = {"z2": "#888888", "z2+rotation": "#2ca02c", "p4": "#1f77b4", "p4m": "#d62728"}
NAMES = {"rotmnist": "Rotated MNIST", "digits": "Digits"}
NUMBERS = {"32-true": "float32", "bf16-mixed": "bf16"}
SCORES = ("fid", "precision", "recall", "coverage")


@dataclass(frozen=True)
class Cell:
    """One run."""

    share: float
    disc: str
    gen: str
    seed: int

    @property
    def group(self) -> str:
        return self.disc.partition("+")[0]

    @property
    def name(self) -> str:
        return f"{100 * self.share:g}pct-{self.gen}-{self.disc.replace('+', '_')}-s{self.seed}"

    @classmethod
    def of(cls, run: dict[str, Any]) -> "Cell":
        """That of a record."""
        return cls(run["share"], run["disc"], run["gen"], run["seed"])


@dataclass(frozen=True)
class Form:
    """How much is run: shares in the order in which they are run."""

    shares: tuple[float, ...]
    generators: dict[str, tuple[str, ...]]
    """Their settings, in the order in which they are run."""
    seeds: tuple[int, ...]
    steps: int
    settings: tuple[str, ...]
    data: str = "rotmnist"
    images: int = 12_000
    batch: int = 64


WITH_NORM = ("--generator.batch_norm", "true")
"""As the others have; without it a dense generator of 56 k weights collapses under z2 (FID above 1,000)."""

FULL = Form(
    shares=(0.1, 0.01, 1.0, 0.05, 0.33),
    generators={
        "conv": (),
        "equivariant": ("--generator.width", "48"),
        "vanilla": ("--generator.hidden", "[128,224,368]", *WITH_NORM),
    },
    seeds=(0, 1, 2),
    steps=20_000,
    settings=("--evaluation.samples", "10000"),
)
QUICK = Form(
    shares=(0.1, 0.01),
    generators={
        "equivariant": ("--generator.width", "12"),
        "conv": ("--generator.width", "8", "--generator.latent_dim", "32"),
    },
    seeds=(0, 1, 2),
    steps=1_200,
    settings=("--evaluation.samples", "5000", "--discriminator.width", "16"),
)
WHOLE_QUICK = replace(
    QUICK,
    shares=(*QUICK.shares, *(share for share in FULL.shares if share not in QUICK.shares)),
    generators={
        **QUICK.generators,
        "vanilla": ("--generator.hidden", "[48,56,60]", "--generator.latent_dim", "32", *WITH_NORM),
    },
)
CHECK = Form(
    shares=(0.5, 1.0),
    generators={"equivariant": ("--generator.width", "4"), "conv": ()},
    seeds=(0,),
    steps=8,
    settings=("--evaluation.samples", "200", "--discriminator.width", "8"),
    data="digits",
    images=1_437,
    batch=16,
)
EPOCHS = 6
"""Every run is scored so often: an epoch is a sixth of its steps, however few the images are."""


def cells(form: Form) -> Iterator[Cell]:
    """The first share with all seeds, then the others seed by seed: of use wherever the study is stopped."""
    first, *others = form.shares
    pairs = [(seed, first) for seed in form.seeds] + list(itertools.product(form.seeds, others))
    for (seed, share), gen, disc in itertools.product(pairs, form.generators, COLOURS):
        yield Cell(share, disc, gen, seed)


def words(cell: Cell, form: Form, root: list[str]) -> list[str]:
    """Of the command line."""
    # so many passes that an epoch is a sixth of the steps; what they have too much the trainer leaves out
    steps = form.steps // EPOCHS
    passes = -(-steps * form.batch // round(form.images * cell.share))
    named = cell.group if cell.gen == "equivariant" else cell.gen
    return [
        *("--disc", cell.group, "--gen", named, *form.generators[cell.gen]),
        *("--seed", str(cell.seed), "--data", form.data, *root),
        *("--fraction", str(cell.share), "--dataset.passes", str(passes), "--epochs", str(EPOCHS)),
        *("--batch-size", str(form.batch), "--evaluation.every", "1"),
        *("--trainer", json.dumps({"limit_train_batches": steps})),
        *(["--augment", "rotation"] if "+" in cell.disc else []),
        *form.settings,
    ]


def recorded(form: Form, out: Path) -> dict[str, dict[str, Any]]:
    """The runs in the results file that were of these settings, by name."""
    if not out.is_file():
        return {}
    found = json.loads(out.read_text())
    if "settings" not in found:
        raise ValueError(f"{out} is no results file of the study: give another --out")
    plan = {"data": form.data, "steps": made_steps(form), "batch": form.batch}
    settings = {"all": form.settings, **form.generators}
    same = {kind for kind, words in settings.items() if found["settings"].get(kind) == list(words)}
    if "all" not in same or any(found[key] != value for key, value in plan.items()):
        return {}
    return {Cell.of(run).name: run for run in found["runs"] if run["gen"] in same}


def made_steps(form: Form) -> int:
    """Those of a run: whole epochs."""
    return form.steps // EPOCHS * EPOCHS


def run(cell: Cell, form: Form, work: Path, root: list[str]) -> dict[str, Any] | None:
    """Train, or go on training, and score one cell; None if another process is at it."""
    command = words(cell, form, [])
    return kept_or_made(work, cell.name, command, lambda: trained(cell, form, work, root))


def trained(cell: Cell, form: Form, work: Path, root: list[str]) -> dict[str, Any]:
    """The scores of one cell."""
    summary = gan_summary(work, cell.name, words(cell, form, root))
    with contextlib.redirect_stdout(io.StringIO()):
        again = evaluate([str(work / "logs" / cell.name), "--samples", "2000", "--json", *root])
    moved = moved_by(work, cell.name, P4) if cell.group == "z2" and form.data == "rotmnist" else None
    return {
        **vars(cell),
        **{name: summary["at_minimum"][name] for name in SCORES},
        "fid_without_group_element": summary["fid_min_without_group_element"],
        "fid_moved_by_p4": moved,
        "fid_final": summary["fid_final"],
        "epoch_of_minimum": summary["fid_min_epoch"],
        "orientation": again["orientation"],
        "memorisation": again["memorisation"],
        "parameters": {n: summary[n]["parameters"] for n in ("generator", "discriminator")},
        "training_seconds": summary["training_seconds"],
        "steps": summary["generator_steps"],
        "hardware": summary["versions"]["hardware"],
        "versions": {name: summary["versions"][name] for name in ("eqgan", "torch")},
        "precision_of_numbers": summary["settings"].get("precision"),
        "curve": [{k: p[k] for k in ("step", "fid", "cpu_seconds")} for p in curve(work, cell.name)],
    }


def table(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and minimum over the seeds of each cell."""
    rows = []
    keyed = sorted(runs, key=lambda r: (r["share"], r["gen"], list(COLOURS).index(r["disc"])))
    for (share, gen, disc), group in itertools.groupby(
        keyed, key=lambda r: (r["share"], r["gen"], r["disc"])
    ):
        mine = list(group)
        values = {name: [r[name] for r in mine] for name in (*SCORES, "fid_final")}
        values["fid_moved_by_p4"] = [r["fid_moved_by_p4"] for r in mine if r["fid_moved_by_p4"] is not None]
        values["fid_without_group_element"] = [
            r["fid_without_group_element"] for r in mine if r["fid_without_group_element"] is not None
        ]
        values["quarter_turns"] = [r["orientation"]["samples"] for r in mine]
        values["quarter_turns_of_real"] = [r["orientation"]["real"] for r in mine]
        values["copies_share"] = [r["memorisation"]["share"] for r in mine]
        values["copies_ratio"] = [r["memorisation"]["ratio"] for r in mine]
        spread = {
            name: {"mean": statistics.fmean(v), "min": min(v), "max": max(v)}
            for name, v in values.items()
            if v
        }
        row = {
            "share": share,
            "generator": gen,
            "discriminator": disc,
            "seeds": sorted(r["seed"] for r in mine),
            "numbers": ", ".join(sorted({NUMBERS[r["precision_of_numbers"]] for r in mine})),
        }
        rows.append({**row, "parameters": mine[0]["parameters"], **spread})
    return rows


def draw(rows: list[dict[str, Any]], runs: list[dict[str, Any]], path: Path, title: str) -> None:
    """Minimum FID against the share of the images, where all seeds are there, and its course at a tenth."""
    seeds = max(len(row["seeds"]) for row in rows)
    rows = [row for row in rows if len(row["seeds"]) == seeds]
    generators = list(dict.fromkeys(row["generator"] for row in rows))
    share = min((row["share"] for row in rows), key=lambda s: abs(s - 0.1))
    figure, axes = plt.subplots(
        2,
        len(generators),
        figsize=(4.6 * len(generators), 7),
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for column, gen in enumerate(generators):
        above, below = axes[0, column], axes[1, column]
        for disc, colour in COLOURS.items():
            mine = [r for r in rows if (r["generator"], r["discriminator"]) == (gen, disc)]
            if mine:
                xs, ys = [100 * r["share"] for r in mine], [r["fid"]["mean"] for r in mine]
                low = [r["fid"]["mean"] - r["fid"]["min"] for r in mine]
                high = [r["fid"]["max"] - r["fid"]["mean"] for r in mine]
                above.errorbar(xs, ys, [low, high], color=colour, marker="o", ms=4, capsize=3, label=disc)
            for r in runs:
                if (r["gen"], r["disc"], r["share"]) == (gen, disc, share):
                    points = r["curve"]
                    below.plot(
                        [p["step"] for p in points], [p["fid"] for p in points], color=colour, alpha=0.8
                    )
        above.set(title=f"{gen} generator", xlabel="% of the 12,000 images", xscale="log", yscale="log")
        below.set(
            title=f"{gen} generator, {100 * share:g} % of the images", xlabel="generator steps", yscale="log"
        )
        for axis in (above, below):
            axis.grid(alpha=0.3, which="both")
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter(NullFormatter())
        above.set_xticks(sorted({100 * row["share"] for row in rows}), minor=False)
        above.xaxis.set_major_formatter("{x:g}")
        above.xaxis.set_minor_formatter(NullFormatter())
    axes[0, 0].set_ylabel("minimum FID: mean, range of seeds")
    axes[1, 0].set_ylabel("FID")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, title="discriminator", loc="outside lower center", ncols=len(labels))
    figure.suptitle(title)
    save(figure, path)


def show_grids(runs: list[dict[str, Any]], work: Path, path: Path) -> None:
    """The last grids of the best z2 and p4 pairs at a tenth of the images, beside real ones."""
    share = min((r["share"] for r in runs), key=lambda s: abs(s - 0.1))
    shown = [("real", None)]
    for disc in ("z2", "p4"):
        mine = [r for r in runs if (r["share"], r["disc"]) == (share, disc)]
        if mine:
            best = min(mine, key=lambda r: r["fid"])
            shown.append((f"{disc}, {best['gen']} generator: FID {best['fid_final']:.1f}", best))
    named = Cell.of(shown[-1][1] or runs[0]).name
    folders = [work / "samples" / (named if of is None else Cell.of(of).name) for _, of in shown]
    if not all(any(folder.glob("epoch_*.png")) for folder in folders):
        return  # they are of the results file and were made elsewhere: the picture that is there stays
    figure, axes = plt.subplots(1, len(shown), figsize=(5 * len(shown), 5.3), layout="constrained")
    for axis, folder, (title, of) in zip(axes, folders, shown):
        file = folder / "real.png" if of is None else sorted(folder.glob("epoch_*.png"))[-1]
        axis.imshow(plt.imread(file), cmap="gray")
        axis.set_title(title)
        axis.set_axis_off()
    save(figure, path)


def page(rows: list[dict[str, Any]], result: dict[str, Any]) -> str:
    """docs/study.md."""
    lines = [
        "# What symmetry buys: the study",
        "",
        f"Written by `{result['program']}`, {result['form']} form, from {result['finished']} of "
        f"{result['planned']} runs; numbers and settings in `benchmarks/results/{result['file']}`. "
        f"{NAMES[result['data']]}, {result['steps']:,} generator steps of batch {result['batch']} each, on "
        f"{result['hardware']}. FID is the least of a run, chosen among six scores and scored again on fresh "
        "latents; mean (and least) over the seeds.",
        "",
        "![Minimum FID by the share of the images](images/study.png)",
        "",
        "![Real images, and samples of the best z2 and p4 runs at a tenth](images/study_samples.png)",
        "",
        "- *numbers*: float32, or bf16 where the processor multiplies it; runs of z2 scatter with rounding.",
        "- *quarter turns*: Fréchet distance between samples and the same samples turned; the floor is that "
        "of real images.",
        "- *copies*: median distance to the nearest training image under p4m, over that of fresh images.",
        "- *without element*: FID without the random group element in the latent. *moved*: FID of the "
        "samples of z2 after random quarter turns.",
        "",
        "| images | generator | discriminator | seeds | numbers | FID | without element | moved | "
        "precision | recall | coverage | quarter turns (real) | copies |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        fid = f"{row['fid']['mean']:.1f} ({row['fid']['min']:.1f})"
        parts = [
            f"{100 * row['share']:g} %",
            row["generator"],
            row["discriminator"],
            str(len(row["seeds"])),
            row["numbers"],
            fid,
        ]
        controls = ("fid_without_group_element", "fid_moved_by_p4")
        parts += [f"{row[name]['mean']:.1f}" if name in row else "" for name in controls]
        parts += [f"{row[name]['mean']:.2f}" for name in ("precision", "recall", "coverage")]
        turns = f"{row['quarter_turns']['mean']:.2f} ({row['quarter_turns_of_real']['mean']:.2f})"
        parts += [turns, f"{row['copies_ratio']['mean']:.2f}"]
        lines.append(f"| {' | '.join(parts)} |")
    return "\n".join([*lines, "", *verdict(rows), ""])


def verdict(rows: list[dict[str, Any]]) -> list[str]:
    """The expectation that the study tests, in figures."""
    told = [
        "## The expectation: at 10 % of the images the minimum FID of the p4 pair is at most half of the z2 "
        "pair's",
        "",
        "Ratios of means over the seeds, and in brackets of the least of them.",
        "",
    ]
    for gen in dict.fromkeys(row["generator"] for row in rows):
        for share in sorted({row["share"] for row in rows}):
            found = {
                r["discriminator"]: r["fid"] for r in rows if (r["generator"], r["share"]) == (gen, share)
            }
            if "z2" not in found:
                continue
            ratios = {
                name: [found[name][of] / found["z2"][of] for of in ("mean", "min")]
                for name in ("p4", "p4m", "z2+rotation")
                if name in found
            }
            listed = "; ".join(f"{name} {mean:.2f} ({least:.2f})" for name, (mean, least) in ratios.items())
            met = ""
            if share == 0.1 and "p4" in ratios:
                means, least = ("met" if ratio <= 0.5 else "not met" for ratio in ratios["p4"])
                met = f" At most half: {means} by the means, {least} by the least."
            told.append(f"- {100 * share:g} %, {gen} generator, over z2: {listed}.{met}")
    return told


def report(form: Form, named: str, work: Path, out: Path, docs: Path) -> None:
    known = recorded(form, out)
    runs = []
    for cell in cells(form):
        file = work / "results" / f"{cell.name}.json"
        if file.is_file():
            runs.append(read_record(file))
        elif cell.name in known:
            runs.append(known[cell.name])
    if not runs:
        return
    rows = table(runs)
    result = {
        "program": "benchmarks/study.py",
        "form": named,
        "file": out.name,
        "planned": len(list(cells(form))),
        "finished": len(runs),
        "steps": made_steps(form),
        "batch": form.batch,
        "data": form.data,
        "settings": {"all": form.settings, **form.generators},
        "hardware": " and ".join(sorted({r["hardware"] for r in runs})),
        "versions": versions(),
    }
    write(out, {**result, "table": rows, "runs": runs})
    draw(
        rows, runs, docs / "images" / "study.png", f"{NAMES[form.data]}: what the discriminator's group buys"
    )
    show_grids(runs, work, docs / "images" / "study_samples.png")
    with atomic_write(docs / "study.md") as temporary:
        temporary.write_text(page(rows, result))


def main() -> None:
    parser = parser_of_forms("study", __doc__, "fewer shares, steps and fields: an hour on two cores")
    parser.add_argument("--whole", action="store_true", help="with --quick: every share and generator")
    parser.add_argument("--backwards", action="store_true", help="from the last run on: for a second process")
    options = parser.parse_args()
    if options.whole and not options.quick:
        parser.error("--whole goes with --quick; the full form is whole")
    quick = WHOLE_QUICK if options.whole else QUICK
    form, named = (quick, "quick") if options.quick else (CHECK, "check") if options.check else (FULL, "full")
    if form is FULL and options.out == parser.get_default("out"):
        options.out = options.out.with_name("study_full.json")
    root = root_words(options)
    most = WHOLE_QUICK if options.quick else form
    known = recorded(most, options.out)
    todo = [] if options.report else [cell for cell in cells(form) if cell.name not in known]
    waiting = {cell.name: cell for cell in (reversed(todo) if options.backwards else todo)}
    failed = each(waiting, lambda name: run(waiting[name], form, options.work / named, root))
    if not set(known) <= {cell.name for cell in cells(form)}:
        form = most  # what --whole has added stays in the results file
    report(form, named, options.work / named, options.out, options.docs)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
