"""Speed as ratios against named baselines, alternating in one process, medians of many rounds.

    python benchmarks/speed.py                     # some ten minutes on two cores
    python benchmarks/speed.py --quick             # fewer rounds and cases
    python benchmarks/speed.py --only step         # one part again; the file keeps the others

Layers: the bank and its convolution against `F.conv2d` with the same channel counts, forward and backward,
batch 64. Step: a step of `train_gan.py --disc p4 --disc-arch conv` in Lightning against a bare loop
with dense convolutions of the same channel counts. Evaluation: one FID on 10,000 samples with the reference
cached, against an epoch. Writes results/speed.json.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eqgan.files import atomic_write
from eqgan.groups import P4, P4M, PlaneGroup, regular, scalar
from eqgan.memory import keep_freed_memory
from eqgan.metrics import score_features
from eqgan.networks import ConvDiscriminator, ConvGenerator
from eqgan.nn import GroupConv2d, LiftingConv2d
from eqgan.training.report import versions

HERE = Path(__file__).resolve().parent


def parser_of_rounds(description: str | None, rounds: int, out: Path) -> argparse.ArgumentParser:
    """The options of every program that measures in rounds: how many, and where the results go."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--out", type=Path, default=out)
    return parser


@contextmanager
def convolutions_by(way: str) -> Iterator[None]:
    """Group convolutions that are built within go this way (``EQGAN_CONV``)."""
    with patch.dict(os.environ, EQGAN_CONV=way):
        yield


def alternate(rounds: int, **candidates: Callable[[], Any]) -> dict[str, list[float]]:
    """Seconds of each candidate in each round; the order turns round by round.

    What takes microseconds is called so often in a row that a round lasts some 20 ms.
    """
    names = list(candidates)
    started = time.perf_counter()
    for name in names:
        for _ in range(3):
            candidates[name]()
    repeats = max(1, round(0.02 * 3 * len(names) / (time.perf_counter() - started)))
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            started = time.perf_counter()
            for _ in range(repeats):
                candidates[name]()
            seconds[name].append((time.perf_counter() - started) / repeats)
    return seconds


def ratio(seconds: dict[str, list[float]], ours: str, baseline: str) -> dict[str, float]:
    pairs = [a / b for a, b in zip(seconds[ours], seconds[baseline])]
    return {
        "ratio": round(statistics.median(pairs), 3),
        "ours_ms": round(1e3 * statistics.median(seconds[ours]), 3),
        "baseline_ms": round(1e3 * statistics.median(seconds[baseline]), 3),
        "rounds": len(pairs),
    }


def layer_case(layer: GroupConv2d, side: int, rounds: int) -> dict[str, Any]:
    """Forward + backward in training, and forward in eval with the cached bank, against the dense function.

    In eval ``nn.Conv2d`` is told as well: what a module costs over the function that it calls.
    """
    x = torch.randn(64, layer.in_type.channels, side, side, requires_grad=layer.in_type.dim > 1)
    shape = (layer.out_type.channels, layer.in_type.channels, layer.kernel_size, layer.kernel_size)
    dense = nn.Parameter(torch.randn(shape))
    bias = nn.Parameter(torch.zeros(layer.out_type.channels))
    out_gradient = torch.randn_like(layer(x))

    def ours() -> None:
        layer(x).backward(out_gradient)

    def baseline() -> None:
        F.conv2d(x, dense, bias, 1, layer.padding).backward(out_gradient)

    training = ratio(alternate(rounds, ours=ours, dense=baseline), "ours", "dense")
    layer.eval()
    module = nn.Conv2d(*reversed(shape[:2]), layer.kernel_size, padding=layer.padding)
    with torch.no_grad():
        evaluated = alternate(
            rounds,
            ours=lambda: layer(x),
            dense=lambda: F.conv2d(x, dense, bias, 1, layer.padding),
            module=lambda: module(x),
        )
    layer.train()
    return {
        "forward_backward": training,
        "cached_eval": ratio(evaluated, "ours", "dense"),
        "eval_of_nn_conv2d": ratio(evaluated, "module", "dense"),
    }


def layers(rounds: int, quick: bool) -> list[dict[str, Any]]:
    results = []
    for group in (P4, P4M):
        for side in (28, 14):
            for kernel in (3,) if quick else (3, 4, 5):
                cases = {
                    "regular 8 -> 16": GroupConv2d(regular(group, 8), regular(group, 16), kernel, padding=1),
                    "lifting 1 -> 16": LiftingConv2d(scalar(group, 1), regular(group, 16), kernel, padding=1),
                }
                for name, layer in cases.items():
                    found = layer_case(layer, side, rounds)
                    results.append(
                        {"group": group.name, "side": side, "kernel": kernel, "layer": name, **found}
                    )
                    told = {k: v["ratio"] for k, v in found.items()}
                    print(group.name, side, kernel, name, told, flush=True)
    return results


class Dense(nn.Module):
    """The conv discriminator of the same channel counts, in plain PyTorch, without spectral norm's cost."""

    def __init__(self, group: PlaneGroup, fields: list[int]) -> None:
        super().__init__()
        widths = [1, *(n * group.order for n in fields)]
        self.order, self.fields = group.order, fields[-1]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(widths))
        self.head = nn.Linear(fields[-1], 1)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.2)
            x = F.avg_pool2d(x, 2) if x.shape[2] % 2 == 0 else x
        return self.head(x.unflatten(1, (self.fields, self.order)).amax(2).mean((2, 3))).squeeze(1)


def relativistic(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(fake.mean() - real).mean() + F.softplus(fake - real.mean()).mean()


def bare_step(width: int) -> Callable[[], None]:
    """One discriminator and one generator step in plain PyTorch, no Lightning, no logging, no averaging."""
    reference = ConvDiscriminator((1, 28, 28), P4, width=width, spectral=None)
    fields = [m.out_type.multiplicity for m in reference.modules() if isinstance(m, GroupConv2d)]
    discriminator, generator = Dense(P4, fields), ConvGenerator((1, 28, 28))
    optimisers = [torch.optim.Adam(n.parameters(), fused=True) for n in (generator, discriminator)]
    images = torch.randint(0, 256, (12_000, 1, 28, 28), dtype=torch.uint8)

    def step() -> None:
        real = images[torch.randint(0, 12_000, (64,))].float() / 127.5 - 1
        fake = generator(torch.randn(64, 128))
        loss = relativistic(*discriminator(torch.cat([real, fake.detach()])).split(64))
        optimisers[1].zero_grad()
        loss.backward()
        optimisers[1].step()
        discriminator.requires_grad_(False)
        with torch.no_grad():
            real_scores = discriminator(real)
        loss = relativistic(discriminator(fake), real_scores)
        optimisers[0].zero_grad()
        loss.backward()
        optimisers[0].step()
        discriminator.requires_grad_(True)

    return step


def whole_step(rounds: int, width: int = 32) -> dict[str, Any]:
    """Steps of a real run against bare steps, alternating: a callback times the run's own batches."""
    import pytorch_lightning as pl

    from eqgan.cli import parse_gan, prepare

    bare = bare_step(width)
    seconds: dict[str, list[float]] = {"run": [], "bare": []}

    class Alternate(pl.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            started = time.perf_counter()
            bare()
            now = time.perf_counter()
            seconds["bare"].append(now - started)
            # a whole step ends where the next begins: what Lightning and our callbacks do counts as ours
            if self.started is not None:
                seconds["run"].append(started - self.started)
            self.started = now

        def on_train_epoch_start(self, *_: Any) -> None:
            self.started = None

    with tempfile.TemporaryDirectory() as folder:
        where = ["--log_dir", f"{folder}/logs", "--samples_dir", f"{folder}/samples"]
        words = [
            "--data",
            "rotmnist",
            "--disc",
            "p4",
            "--disc-arch",
            "conv",
            "--discriminator.width",
            str(width),
            *where,
        ]
        words += ["--epochs", "1", "--evaluation.samples", "100", "--precision", "32-true"]
        run, _ = prepare(*parse_gan(words))
        run.progress_bar = False
        run.trainer["limit_train_batches"] = rounds + 6
        made = run._trainer
        run._trainer = lambda *a: _with(made(*a), Alternate())  # type: ignore[method-assign]
        run.fit()
    pairs = list(zip(seconds["run"], seconds["bare"]))[5:]
    return {
        "ratio": round(statistics.median(a / b for a, b in pairs), 3),
        "run_ms": round(1e3 * statistics.median(a for a, _ in pairs), 2),
        "bare_ms": round(1e3 * statistics.median(b for _, b in pairs), 2),
        "rounds": len(pairs),
        "note": "the run includes R1 every 8 steps, EMA, gradient norms, logging and Lightning itself",
    }


def _with(trainer: Any, callback: Any) -> Any:
    trainer.callbacks.insert(0, callback)
    return trainer


def evaluation(rounds: int) -> dict[str, Any]:
    """One FID on 10,000 samples, reference cached, over an epoch of 187 steps times the default cadence."""
    from eqgan.cli import parse_gan, prepare

    with tempfile.TemporaryDirectory() as folder:
        where = ["--log_dir", f"{folder}/logs", "--samples_dir", f"{folder}/samples"]
        run, _ = prepare(*parse_gan(["--data", "rotmnist", "--disc", "p4", "--epochs", "1", *where]))
        run.progress_bar = False
        _ = run.reference
        scorer = run.judge()
        seconds = []
        for number in range(rounds):
            started = time.perf_counter()
            score_features(scorer.features(run.gan, number), scorer.reference)
            seconds.append(time.perf_counter() - started)
        summary = run.fit()
    per_evaluation, epoch = statistics.median(seconds), summary["training_seconds"]
    every = run.evaluation.every
    return {
        "seconds_per_evaluation": round(per_evaluation, 2),
        "seconds_per_epoch": round(epoch, 2),
        "every_epochs": every,
        "share_of_training_time": round(per_evaluation / (every * epoch), 4),
    }


def start_up() -> dict[str, float]:
    """Seconds from the command to the end of the first training step, in a new process."""
    program = (
        "import time, pytorch_lightning as pl; started = time.time()\n"
        "from eqgan.cli import parse_gan, prepare\n"
        "run, _ = prepare(*parse_gan(['--data', 'rotmnist', '--disc', 'p4', '--epochs', '1',"
        " '--evaluation.samples', '100',"
        " '--log_dir', '{0}/l', '--samples_dir', '{0}/s', '--trainer', '{{\"max_steps\": 1}}']))\n"
        "run.progress_bar = False; run.fit()\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", program.format(folder)], check=True, capture_output=True)
        return {"seconds_to_first_step_and_exit": round(time.perf_counter() - started, 2)}


def child(program: str, *words: str, **settings: str) -> dict[str, float]:
    """What a program called with these words prints on its last line, in a process with these settings."""
    environment = {**os.environ, **settings}
    command = [sys.executable, program, *words]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def write(path: Path, result: dict[str, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n")


def main() -> None:
    parser = parser_of_rounds(__doc__, 31, HERE / "results" / "speed.json")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="layers,step,evaluation,start_up")
    options = parser.parse_args()
    keep_freed_memory()  # as the commands do; the same for both sides
    rounds = 7 if options.quick else options.rounds
    parts: dict[str, Callable[[], Any]] = {
        "layers": lambda: layers(rounds, options.quick),
        "step": lambda: whole_step(rounds),
        "evaluation": lambda: evaluation(3),
        "start_up": start_up,
    }
    kept = json.loads(options.out.read_text()) if options.out.is_file() else {}
    result: dict[str, Any] = {"program": "benchmarks/speed.py", "measured": kept.get("measured", {})}
    result |= {name: kept[name] for name in parts if name in kept}
    for name in options.only.split(","):
        result[name] = parts[name]()
        result["measured"][name] = {"rounds": rounds, **versions()}
        write(options.out, result)
        print(name, json.dumps(result[name]) if name != "layers" else "", flush=True)


if __name__ == "__main__":
    main()
