"""What a group convolution needs of memory on the CPU, and what keeping freed memory gains; seconds.

    python benchmarks/memory.py

Every figure comes from a process of its own, on one thread. Peak: how much the resident memory grew in three
training steps of one layer, batch 64, by each way, under glibc's defaults. Allocator: median time with and
without `eqgan.memory.keep_freed_memory`. Writes results/memory.json after each, and goes on from there.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from speed import write

from eqgan.groups import P4, P4M, regular, scalar
from eqgan.memory import keep_freed_memory
from eqgan.networks import ConvGenerator
from eqgan.nn import GroupConv2d, LiftingConv2d
from eqgan.training.report import versions

RESULTS = Path(__file__).resolve().parent / "results" / "memory.json"
GROUPS = {"p4": P4, "p4m": P4M}
FIELDS, SIDE, BATCH = (8, 16), 28, 64


def peak(group: str, way: str) -> dict[str, float]:
    """Mebibytes that the process grew by."""
    kind = GROUPS[group]
    channels = FIELDS[0] * kind.order, FIELDS[1] * kind.order
    layer = GroupConv2d(regular(kind, FIELDS[0]), regular(kind, FIELDS[1]), 3, padding=1)
    weight = torch.randn(channels[1], channels[0], 3, 3, requires_grad=True)
    x = torch.randn(BATCH, channels[0], SIDE, SIDE, requires_grad=True)
    grad = torch.randn(BATCH, channels[1], SIDE, SIDE)
    small = torch.randn(1, channels[0], 4, 4)
    layer(small).sum().backward()  # what is made once is not counted
    F.conv2d(small, weight, padding=1).sum().backward()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        x.grad = None
        (F.conv2d(x, weight, padding=1) if way == "dense" else layer(x)).backward(grad)
    return {"mebibytes": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, 1)}


def median_ms(call: Any, rounds: int = 15) -> dict[str, float]:
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return {"ms": round(1e3 * statistics.median(seconds), 2)}


@torch.no_grad()
def lift() -> dict[str, float]:
    layer, x = LiftingConv2d(scalar(P4, 1), regular(P4, 32), 3, padding=1).eval(), torch.randn(64, 1, 14, 14)
    return median_ms(lambda: layer(x), 101)


@torch.no_grad()
def sample() -> dict[str, float]:
    generator = ConvGenerator((1, 28, 28)).eval()
    latents = generator.draw_latents(1000)
    return median_ms(lambda: generator(latents), 9)


CALLS = {"peak": peak, "lift": lift, "sample": sample}


def child(*words: str, **settings: str) -> dict[str, float]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **settings}
    command = [sys.executable, __file__, *words]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(*words, *settings.values(), found, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("call", nargs="*", help="what a child measures")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.call:
        keep_freed_memory()  # which EQGAN_MALLOC=default declines
        print(json.dumps(CALLS[options.call[0]](*options.call[1:])))
        return
    result: dict[str, Any] = {"program": "benchmarks/memory.py", "versions": versions()}
    result |= json.loads(options.out.read_text()) if options.out.is_file() else {}
    peaks, times = result.setdefault("peak_mebibytes", {}), result.setdefault("allocator_ms", {})
    for group in GROUPS:
        for way, conv in {"fourier": "fourier", "bank": "bank", "dense": "bank"}.items():
            if way not in peaks.setdefault(group, {}):
                found = child("peak", group, way, EQGAN_CONV=conv, EQGAN_MALLOC="default")
                peaks[group][way] = found["mebibytes"]
                write(options.out, result)
    for call in ("lift", "sample"):
        for kept in ("default", "keep"):
            if kept not in times.setdefault(call, {}):
                times[call][kept] = child(call, EQGAN_MALLOC=kept)["ms"]
                write(options.out, result)


if __name__ == "__main__":
    main()
