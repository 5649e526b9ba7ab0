"""Whole training steps with the fast group convolution and with filter banks, alternating within one run.

    python benchmarks/fast_step.py                               # half an hour on two quiet cores
    python benchmarks/fast_step.py --batch-size 8                # what small batches cost, beside the others
    python benchmarks/fast_step.py --only "p4 conv" --rounds 2 --processes 1   # to see that it works

Trains what `train_gan.py --disc p4 --disc-arch conv` and so on train; without --disc-arch, the default, all
large layers are strided. Every eight steps (one has the R1 penalty) the way of the group convolutions and
the precision change, and each step ends where the next begins: loading, logging and Lightning count. Where
memory comes to lie shifts the ratios of a whole run by some hundredths, so that each is measured in several
processes of its own. Ratios are medians over all rounds, to the filter bank in the same precision, and beside
them the least and the greatest median of a process. Writes results/fast_step.json.
"""

import itertools
import json
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.plugins.precision import MixedPrecision, Precision
from speed import parser_of_rounds, write

from eqgan.cli import parse_gan, prepare
from eqgan.memory import keep_freed_memory
from eqgan.nn import GroupConv2d
from eqgan.nn.fourier import choice
from eqgan.training.report import versions

RESULTS = Path(__file__).resolve().parent / "results" / "fast_step.json"
STEPS = 8  # the penalty comes every eight
RUNS = [f"{group} {arch}" for arch in ("default", "conv", "p4cnn") for group in ("p4", "p4m")]
GOALS = {"p4": 0.85, "p4m": 0.60}  # in float32, at the default batch
GOAL_OF_SMALL_BATCHES = 1.05
Way = tuple[str, str]  # precision and convolution
PRECISIONS = {"32-true": Precision, "bf16-mixed": lambda: MixedPrecision("bf16-mixed", "cpu")}


class Alternate(pl.Callback):
    """Changes the way every eight steps, and times them."""

    def __init__(self, precisions: list[str]) -> None:
        self.ways = [(precision, conv) for precision in precisions for conv in ("auto", "bank")]
        self.seconds: dict[Way, list[float]] = {way: [] for way in self.ways}
        self.precisions = {name: PRECISIONS[name]() for name in precisions}
        self.started = 0.0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        layers = [layer for layer in module.modules() if isinstance(layer, GroupConv2d)]
        self.paths = [(layer, layer._fourier) for layer in layers]

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, index: int) -> None:
        now = time.perf_counter()
        block, step = divmod(index, STEPS)
        if step:
            return
        if block:
            self.seconds[self.way(block - 1)].append((now - self.started) / STEPS)
        precision, conv = self.way(block)
        trainer.strategy.precision_plugin = self.precisions[precision]
        for layer, path in self.paths:
            layer._fourier = path if conv == "auto" else None
        self.started = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        for layer, path in self.paths:  # the run's summary says which way they take
            layer._fourier = path

    def way(self, block: int) -> Way:
        """The order turns round by round."""
        number, place = divmod(block, len(self.ways))
        return self.ways[place if number % 2 == 0 else -1 - place]


def measure(
    name: str, rounds: int, precisions: list[str], batch: int | None
) -> tuple[dict[str, str], dict[Way, list[float]]]:
    """Which ways the discriminator's layers take, and seconds a step, round by round, of each way."""
    keep_freed_memory()
    watch, (group, arch) = Alternate(precisions), name.split()
    with tempfile.TemporaryDirectory() as folder:
        words = ["--data", "rotmnist", "--disc", group, "--epochs", "1", "--evaluation.samples", "100"]
        words += [
            "--precision",
            "32-true",
            "--log_dir",
            f"{folder}/logs",
            "--samples_dir",
            f"{folder}/samples",
        ]
        words += [] if arch == "default" else ["--disc-arch", arch]
        words += [] if batch is None else ["--batch-size", str(batch)]
        run, _ = prepare(*parse_gan(words))
        run.progress_bar = False
        run.trainer["limit_train_batches"] = STEPS * len(watch.ways) * (rounds + 1) + 1
        made = run._trainer

        def trainer(*arguments: Any) -> pl.Trainer:
            trainer = made(*arguments)
            trainer.callbacks.insert(0, watch)
            return trainer

        run._trainer = trainer  # type: ignore[method-assign]
        paths = run.fit()["convolution_paths"]["discriminator"]
    found = {way: values[1:] for way, values in watch.seconds.items()}
    if (least := min(map(len, found.values()))) < rounds:
        raise ValueError(f"expected {rounds} rounds, an epoch has steps for {least}: take more --processes")
    return paths, found


def told(found: list[tuple[dict[str, str], dict[Way, list[float]]]], precisions: list[str]) -> dict[str, Any]:
    """What the results keep of all processes."""
    about: dict[str, Any] = {"paths_in_float32": found[0][0], "ms": {}, "ratio_to_bank": {}, "processes": {}}
    for precision in precisions:
        ours, bank = ([seconds[precision, way] for _, seconds in found] for way in ("auto", "bank"))
        ratios = [[a / b for a, b in zip(*pair, strict=True)] for pair in zip(ours, bank, strict=True)]
        about["ms"][precision] = {
            way: round(1e3 * statistics.median(itertools.chain(*seconds)), 1)
            for way, seconds in (("auto", ours), ("bank", bank))
        }
        about["ratio_to_bank"][precision] = round(statistics.median(itertools.chain(*ratios)), 3)
        medians = [round(statistics.median(one), 3) for one in ratios]
        about["processes"][precision] = [min(medians), max(medians)]
    return about


def main() -> None:
    parser = parser_of_rounds(__doc__, 4, RESULTS)
    parser.add_argument("--only", nargs="+", choices=RUNS, default=RUNS)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--batch-size", type=int, help="default: that of train_gan.py")
    options = parser.parse_args()
    kept = json.loads(options.out.read_text()) if options.out.is_file() else {"steps": {}}
    about = {"program": "benchmarks/fast_step.py", "isa": choice.instruction_set()}
    for name in options.only:
        plan = name, options.rounds, options.precisions, options.batch_size
        with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
            found = [pool.submit(measure, *plan).result() for _ in range(options.processes)]
        about_rounds = {"rounds": options.rounds * options.processes}
        goal = GOALS[name.split()[0]]
        if options.batch_size is not None:
            name, goal = f"{name}, batch {options.batch_size}", GOAL_OF_SMALL_BATCHES
        about_goal = {"goal_in_float32": goal}
        kept["steps"][name] = {**about_rounds, **told(found, options.precisions), **about_goal, **versions()}
        print(name, json.dumps(kept["steps"][name]), flush=True)
        write(options.out, {**about, "steps": kept["steps"]})


if __name__ == "__main__":
    main()
