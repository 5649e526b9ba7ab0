"""z2, p4 and p4m discriminators under the default recipe, equal in parameters: which reaches the lower FID?

    python benchmarks/compare_discriminators.py --data-root DIR      # restartable; hours on two cores
    python benchmarks/compare_discriminators.py --quick              # minutes, on the embedded digits

Every run is `train_gan.py` with its defaults but for --disc and --seed. It goes on until it has both the
common number of epochs and the common training time (that of the p4 run of the same seed), so that one curve
answers twice: minimum FID within the same steps, and within the same time. Time is the processor time of the
training steps, which a busy machine does not distort; with OMP_NUM_THREADS=1 it is wall-clock time on an idle
core, and several of these programs can share the seeds and groups, each in the same --work. Finished runs are
kept and not repeated. Writes results/compare_discriminators.json, and the picture in docs/images.
"""

import argparse
import csv
import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from many_runs import places, save
from speed import write

from eqgan.cli import gan_parser, parse_gan, prepare, set_lengths, train_gan
from eqgan.groups import P4, PlaneGroup
from eqgan.metrics import score_features
from eqgan.networks import OrbitGenerator
from eqgan.training.callbacks import read_checkpoint
from eqgan.training.report import versions
from eqgan.training.run import Run

HERE = Path(__file__).resolve().parent
COLOURS = {"z2": "#888888", "p4": "#1f77b4", "p4m": "#d62728"}


def curve(work: Path, name: str) -> list[dict[str, float]]:
    """Epoch, step, training seconds and FID of every evaluation of a run."""
    with (work / "samples" / name / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("fid")]
    return [
        {k: float(row[k]) for k in ("epoch", "step", "seconds", "cpu_seconds", "fid", "recall", "coverage")}
        for row in rows
    ]


def run(work: Path, group: str, seed: int, epochs: int, extra: list[str]) -> dict[str, Any]:
    """Trains (or goes on training) one run to this many epochs; its summary."""
    name = f"{group}-s{seed}"
    summary = work / "logs" / name / "summary.json"
    if summary.is_file() and json.loads(summary.read_text())["epochs"] >= epochs:
        return json.loads(summary.read_text())
    words = ["--disc", group, "--seed", str(seed), "--epochs", str(epochs), *places(work), *extra]
    started = (work / "logs" / name / "config.yaml").is_file()
    return train_gan([*words, "--resume", name] if started else [*words, "--name", name])


def load_best(made: Run) -> None:
    """Gives the averaged generator of a prepared run the weights of its least FID."""
    state = read_checkpoint(made.folder.best)["state_dict"]
    made.gan.ema.load_state_dict({k[4:]: v for k, v in state.items() if k.startswith("ema.")})


@torch.no_grad()
def moved_by(work: Path, name: str, group: PlaneGroup) -> float:
    """FID of a finished run's best generator whose samples are moved by random elements of another group.

    The control for z2: is it the discriminator, or only the random element in the samples?
    """
    made, _ = prepare(*parse_gan(["--resume", name, *places(work)]))
    load_best(made)
    orbit = OrbitGenerator(made.gan.ema.module, group).eval()
    draws = torch.Generator().manual_seed(made.seed)
    latents = [orbit.draw_latents(1000, draws) for _ in range(made.evaluation.samples // 1000)]
    features = torch.cat([made.extractor.extract(orbit(z)) for z in latents])
    return score_features(features, made.reference, neighbours=False).fid


def minimum(points: list[dict[str, float]], key: str, limit: float) -> float | None:
    return min((p["fid"] for p in points if p[key] <= limit), default=None)


def collect(
    work: Path, groups: list[str], seeds: list[int], epochs: int, extra: list[str], source: str
) -> dict[str, Any]:
    """All runs: p4 first, whose time is the budget the others are then given too."""
    runs: dict[str, Any] = {}
    for seed in seeds:
        order = sorted(groups, key=lambda g: g != "p4")
        budget = 0.0
        for group in order:
            summary = run(work, group, seed, epochs, extra)
            if group == "p4":
                budget = [p for p in curve(work, f"{group}-s{seed}") if p["epoch"] < epochs][-1][
                    "cpu_seconds"
                ]
            while (points := curve(work, f"{group}-s{seed}"))[-1]["cpu_seconds"] < 0.98 * budget:
                per_epoch = points[-1]["cpu_seconds"] / (points[-1]["epoch"] + 1)
                more = max(2, int((budget - points[-1]["cpu_seconds"]) / per_epoch) // 2 * 2)
                summary = run(work, group, seed, int(points[-1]["epoch"]) + 1 + more, extra)
            moved = moved_by(work, f"{group}-s{seed}", P4) if group == "z2" and source == "rotmnist" else None
            at_steps = [p for p in points if p["epoch"] < epochs]
            runs[f"{group}-s{seed}"] = {
                "group": group,
                "seed": seed,
                "hardware": summary["versions"]["hardware"],
                "epochs_whole_run": summary["epochs"],
                "parameters": summary["discriminator"]["parameters"],
                "multiply_adds": summary["discriminator"]["multiply_adds"],
                "budget_cpu_seconds": budget,
                "cpu_seconds_for_equal_steps": at_steps[-1]["cpu_seconds"],
                "fid_end_equal_steps": at_steps[-1]["fid"],
                "fid_min_equal_steps": min(p["fid"] for p in at_steps),
                "fid_min_equal_seconds": minimum(points, "cpu_seconds", 1.02 * budget),
                "fid_min_whole_run_rescored": summary["at_minimum"]["fid"],
                "fid_min_whole_run_without_group_element": summary["fid_min_without_group_element"],
                "fid_min_whole_run_moved_by_p4": moved,
                "at_minimum": summary["at_minimum"],
                "class_shares_final": summary["class_shares_final"],
                "training_seconds": summary["training_seconds"],
                "evaluation_seconds": summary["evaluation_seconds"],
                "images_per_second": summary["images_per_second"],
                "invariance_error": summary["invariance_error"],
                "curve": points,
            }
    return runs


def table(runs: dict[str, Any], groups: list[str]) -> dict[str, Any]:
    """Mean and minimum over seeds."""
    rows = {}
    for group in groups:
        mine = [r for r in runs.values() if r["group"] == group]
        row: dict[str, Any] = {"parameters": mine[0]["parameters"], "multiply_adds": mine[0]["multiply_adds"]}
        for key in (
            "fid_min_whole_run_rescored",
            "fid_min_whole_run_without_group_element",
            "fid_min_whole_run_moved_by_p4",
            "fid_end_equal_steps",
            "fid_min_equal_steps",
            "fid_min_equal_seconds",
            "cpu_seconds_for_equal_steps",
        ):
            values = [r[key] for r in mine if r[key] is not None]
            if not values:
                continue
            row[key] = {"mean": statistics.mean(values), "min": min(values), "values": values}
        rows[group] = row
    return rows


def draw(runs: dict[str, Any], groups: list[str], path: Path, title: str) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for axis, key, label in (
        (axes[0], "step", "generator steps"),
        (axes[1], "cpu_seconds", "training seconds of processor time"),
    ):
        for group in groups:
            for number, r in enumerate(r for r in runs.values() if r["group"] == group):
                xs, ys = [p[key] for p in r["curve"]], [p["fid"] for p in r["curve"]]
                axis.plot(
                    xs, ys, color=COLOURS.get(group), alpha=0.8, lw=1.5, label=group if not number else None
                )
        axis.set(xlabel=label, yscale="log")
        axis.grid(alpha=0.3, which="both")
    axes[0].set_ylabel("FID (eqgan-digits-64)")
    axes[0].legend(title="discriminator")
    figure.suptitle(title)
    save(figure, path)


def show_samples(work: Path, runs: dict[str, Any], path: Path) -> None:
    """The last grid of the p4 run with the lowest minimum FID, beside real images."""
    p4 = {name: r["fid_min_whole_run_rescored"] for name, r in runs.items() if r["group"] == "p4"}
    if not p4:
        return
    folder = work / "samples" / min(p4, key=lambda name: p4[name])
    last = sorted(folder.glob("epoch_*.png"))[-1]
    figure, axes = plt.subplots(1, 2, figsize=(10, 5.3), layout="constrained")
    for axis, file, title in ((axes[0], folder / "real.png", "real"), (axes[1], last, "generated, p4")):
        axis.imshow(plt.imread(file), cmap="gray")
        axis.set_title(title)
        axis.set_axis_off()
    save(figure, path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", default=None)
    parser.add_argument(
        "--work", type=Path, default=Path("runs_compare_discriminators"), help="where runs lie"
    )
    parser.add_argument("--groups", default="z2,p4,p4m")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=None, help="default: that of the recipe")
    parser.add_argument(
        "--quick", action="store_true", help="digits, two epochs, one seed: a check of the program"
    )
    parser.add_argument("--out", type=Path, default=HERE / "results" / "compare_discriminators.json")
    parser.add_argument("--picture", type=Path, default=HERE.parent / "docs" / "images" / "fid_curves.png")
    options, extra = parser.parse_known_args()
    groups, seeds = options.groups.split(","), [int(s) for s in options.seeds.split(",")]
    source = "rotmnist"
    if options.quick:
        source, seeds, options.epochs = "digits", seeds[:1], 2
        extra += ["--evaluation.samples", "500"]
    if options.data_root:
        extra += ["--data-root", options.data_root]
    extra += ["--data", source, "--evaluation.every", "2"]
    epochs = options.epochs or default_epochs()
    runs = collect(options.work, groups, seeds, epochs, extra, source)
    result = {
        "program": "benchmarks/compare_discriminators.py",
        "seeds": seeds,
        "extra_settings": [word for word in extra if word != options.data_root],
        "data": source,
        "quick": options.quick,
        "epochs_for_equal_steps": epochs,
        "versions": versions(),
        "table": table(runs, groups),
        "runs": runs,
    }
    write(options.out, result)
    show_samples(options.work, runs, options.picture.with_name("samples.png"))
    draw(runs, groups, options.picture, f"{source}: z2, p4 and p4m discriminators at equal parameters")
    for group, row in result["table"].items():
        print(group, {k: (v["mean"], v["min"]) if isinstance(v, dict) else v for k, v in row.items()})


def default_epochs() -> int:
    config = gan_parser().get_defaults()
    set_lengths(config, 12_000 // config.dataset.batch_size)
    return int(config.epochs)


if __name__ == "__main__":
    main()
