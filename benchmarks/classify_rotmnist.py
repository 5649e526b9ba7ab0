"""Every classifier of Cohen & Welling on Rotated MNIST, and the error against the number of training images.

    python benchmarks/classify_rotmnist.py --data-root DIR --jobs 2       # restartable; hours on two cores
    python benchmarks/classify_rotmnist.py --rows p4cnn_max,z2cnn --seeds 0,1,2 --fractions 0.01,0.1,1
    python benchmarks/classify_rotmnist.py --quick                        # minutes, on the embedded digits

A row is a file configs/classify/<row>.yaml; `<row>+rotation` trains it on images rotated by any angle. Each
run is `eqgan classify` in a process of its own, with one thread, and --jobs of them run side by side. Those
that are finished are not repeated, those that were stopped go on where they were. All 12,000 images are
trained on and the last epoch is tested: nothing is chosen on test images. With a share of the images
(--fractions) the epochs are that many times more, up to ten times, so that few images do not mean few steps.
The results file is written anew after every run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import yaml

from eqgan.files import atomic_write
from eqgan.training.report import versions

HERE = Path(__file__).resolve().parent
CONFIGS = HERE.parent / "configs" / "classify"
ROWS = ("z2cnn", "p4cnn_rp", "p4cnn_max", "p4cnn_drop", "p4cnn", "p4mcnn")
CURVE = ("z2cnn", "p4cnn_max", "p4mcnn")
PUBLISHED = {"z2cnn": 0.0503, "p4cnn_rp": 0.0321, "p4cnn_max": 0.0228}  # arXiv:1602.07576, table 1
REPRODUCED = {"z2cnn": 0.0512, "p4cnn_rp": 0.0402, "p4cnn_max": 0.0279}  # a reproduction of it
RUN = "import sys; from eqgan.cli.classify import classify; classify(sys.argv[1:])"


@dataclass(frozen=True)
class Task:
    """One run: a row, a share of the training images, a seed."""

    row: str
    fraction: float
    seed: int

    @property
    def name(self) -> str:
        share = "" if self.fraction == 1 else f"-{100 * self.fraction:g}pct"
        return f"{self.row}{share}-s{self.seed}"

    def words(self, epochs: int | None, source: str) -> list[str]:
        row, _, augmented = self.row.partition("+")
        path = CONFIGS / f"{row}.yaml"
        epochs = epochs or int(yaml.safe_load(path.read_text())["epochs"])
        epochs *= min(10, round(1 / self.fraction))
        words = ["--config", str(path), "--data", source, "--fraction", str(self.fraction)]
        words += ["--seed", str(self.seed), "--epochs", str(epochs)]
        return words + (["--augment", augmented] if augmented else [])


def run(task: Task, work: Path, epochs: int | None, source: str, extra: list[str]) -> dict[str, Any]:
    """Trains one run, or goes on with it, or finds it finished; its summary."""
    folder = work / "logs" / task.name
    summary = folder / "summary.json"
    words = task.words(epochs, source)
    if summary.is_file():
        require_planned(json.loads(summary.read_text())["settings"], words, folder)
    else:
        resume = (folder / "config.yaml").is_file()
        words += ["--log_dir", str(work / "logs"), *extra]
        words += ["--resume" if resume else "--name", task.name]
        log = work / f"{task.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        with log.open("a") as file:
            code = subprocess.run(
                [sys.executable, "-c", RUN, *words], stdout=file, stderr=file, env={**os.environ, **threads}
            ).returncode
        if code:
            raise RuntimeError(f"{task.name} ended with status {code}; see {log}")
    return json.loads(summary.read_text())


def require_planned(settings: dict[str, Any], words: list[str], folder: Path) -> None:
    """Raises RuntimeError for a finished run of other data or length, made for another call."""
    planned = {key: words[words.index(f"--{key}") + 1] for key in ("data", "epochs")}
    found = {"data": settings["dataset"]["source"], "epochs": str(settings["epochs"])}
    if planned != found:
        raise RuntimeError(f"{folder} holds a run with {found}, not {planned}: choose another --work")


def record(task: Task, summary: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a run."""
    kept = (
        "parameters",
        "multiply_adds",
        "group",
        "epochs",
        "steps",
        "training_seconds",
        "images_per_second",
    )
    tests = {name: {k: s[k] for k in ("error", "auc", "count")} for name, s in summary["test"].items()}
    kinds = ("optimizer", "schedule", "network", "augment", "precision")
    settings = {k: summary["settings"][k] for k in kinds}
    settings["batch_size"] = summary["settings"]["dataset"]["batch_size"]
    return {
        "row": task.row,
        "fraction": task.fraction,
        "seed": task.seed,
        "training_images": summary["data"]["train"],
        **{key: summary[key] for key in kept},
        "test": tests,
        "invariance_error": summary["invariance_error"],
        "settings": settings,
        "hardware": summary["versions"]["hardware"],
    }


def over_seeds(runs: dict[str, Any], kept: tuple[str, ...], score: str) -> list[dict[str, Any]]:
    """One entry for each row and share: mean, deviation, least, greatest over seeds of each test."""
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for one in runs.values():
        groups.setdefault((one["row"], one["fraction"]), []).append(one)
    entries = []
    for (row, fraction), mine in groups.items():
        entry = {"row": row, "fraction": fraction, "seeds": sorted(r["seed"] for r in mine)}
        entry |= {key: mine[0][key] for key in kept}
        for test in mine[0]["test"]:
            values = [r["test"][test][score] for r in mine]
            entry[f"{score}_{test}"] = {
                "mean": statistics.mean(values),
                "deviation": statistics.stdev(values) if len(values) > 1 else None,
                "min": min(values),
                "max": max(values),
            }
        entries.append(entry)
    return sorted(entries, key=lambda entry: (entry["row"], entry["fraction"]))


def table(runs: dict[str, Any], source: str) -> list[dict[str, Any]]:
    """Errors over seeds of each row and share, beside what others reported."""
    entries = over_seeds(runs, ("parameters", "multiply_adds", "epochs"), "error")
    for entry in entries:
        base = entry["row"].partition("+")[0].removesuffix("_sgd")
        if entry["fraction"] == 1 and source == "rotmnist":
            entry |= {"published": PUBLISHED.get(base), "reproduced_elsewhere": REPRODUCED.get(base)}
    return entries


def write(result: dict[str, Any], path: Path) -> None:
    result["table"] = table(result["runs"], result["data"])
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n")


def draw_errors(rows: list[dict[str, Any]], test: str, path: Path) -> None:
    """A bar for each row with its deviation, and marks for what was published."""
    whole = [row for row in rows if row["fraction"] == 1]
    if not whole:
        return
    figure, axis = plt.subplots(figsize=(8, 0.45 * len(whole) + 1.5), layout="constrained")
    for place, row in enumerate(whole):
        error = row[f"error_{test}"]
        axis.barh(place, 100 * error["mean"], xerr=100 * (error["deviation"] or 0), color="#9ecae1")
        axis.text(0.1, place, f"{100 * error['mean']:.2f}", va="center")
        for key, mark in (("published", "k|"), ("reproduced_elsewhere", "r|")):
            if row.get(key) is not None:
                first = not any(r.get(key) is not None for r in whole[:place])
                label = key.replace("_", " ") if first else None
                axis.plot(100 * row[key], place, mark, markersize=14, markeredgewidth=2, label=label)
    axis.set_yticks(range(len(whole)), [row["row"] for row in whole])
    axis.set_xlabel(f"test error on {test}, %")
    if axis.get_legend_handles_labels()[0]:
        axis.legend()
    save(figure, path)


def draw_curve(rows: list[dict[str, Any]], runs: dict[str, Any], test: str, path: Path) -> None:
    """Error against the number of training images, both on a logarithmic scale."""
    shared = [name for name in dict.fromkeys(r["row"] for r in rows) if any_fraction(rows, name)]
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
    axis.grid(alpha=0.3, which="both")
    axis.legend()
    save(figure, path)


def any_fraction(rows: list[dict[str, Any]], name: str) -> bool:
    return any(row["row"] == name and row["fraction"] < 1 for row in rows)


def save(figure: Any, path: Path) -> None:
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)


def tasks(rows: list[str], curve: list[str], fractions: list[float], seeds: list[int]) -> list[Task]:
    """Seed by seed, so that a stopped program has something of everything; all images first."""
    full = [Task(row, 1.0, seed) for seed in seeds for row in rows]
    less = [Task(row, f, seed) for seed in seeds for f in fractions if f < 1 for row in curve]
    return full + less


def options_and_rest() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", default=None)
    parser.add_argument("--work", type=Path, default=Path("runs_classify_rotmnist"), help="where runs lie")
    parser.add_argument("--rows", default=",".join(ROWS), help="of the table, from all training images")
    parser.add_argument("--curve", default=",".join(CURVE), help="rows that the --fractions are for")
    parser.add_argument("--fractions", default="", help="shares below 1, such as 0.01,0.05,0.1,0.25")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=None, help="default: that of each row's config")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--quick", action="store_true", help="digits, one epoch: a check of the program")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "classify_rotmnist.json")
    parser.add_argument("--pictures", type=Path, default=HERE.parent / "docs" / "images")
    return parser.parse_known_args()


def main() -> None:
    options, extra = options_and_rest()
    source, epochs = ("digits", 1) if options.quick else ("rotmnist", options.epochs)
    seeds = [int(seed) for seed in options.seeds.split(",")][: 1 if options.quick else None]
    fractions = [float(f) for f in options.fractions.split(",") if f]
    rows, curve = ([row for row in text.split(",") if row] for text in (options.rows, options.curve))
    known = json.loads(options.out.read_text()) if options.out.is_file() and not options.quick else {}
    same = (known.get("epochs"), known.get("data"), known.get("options")) == (epochs, source, extra)
    result: dict[str, Any] = {
        "program": "benchmarks/classify_rotmnist.py",
        "quick": options.quick,
        "data": source,
        "epochs": epochs,
        "options": extra,
        "versions": versions(),
        "table": [],
        "runs": known["runs"] if same else {},
    }
    if options.data_root:
        extra = [*extra, "--data-root", options.data_root]
    failed: list[str] = []
    waiting = [t for t in tasks(rows, curve, fractions, seeds) if t.name not in result["runs"]]
    with ThreadPoolExecutor(options.jobs) as pool:
        running = {pool.submit(run, t, options.work, epochs, source, extra): t for t in waiting}
        for done in as_completed(running):
            task = running[done]
            if error := done.exception():
                failed.append(task.name)
                print(error, file=sys.stderr, flush=True)
                continue
            result["runs"][task.name] = record(task, done.result())
            write(result, options.out)
            errors = {name: s["error"] for name, s in result["runs"][task.name]["test"].items()}
            print(task.name, " ".join(f"{k} {100 * v:.2f} %" for k, v in errors.items()), flush=True)
    write(result, options.out)
    draw_errors(result["table"], source, options.pictures / "classify_rotmnist.png")
    draw_curve(result["table"], result["runs"], source, options.pictures / "data_efficiency.png")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
