"""What a training step of a group convolution needs of memory on the CPU, by each way; minutes.

    python benchmarks/memory.py

Every figure comes from a process of its own, on one thread: how much the resident memory grew in three steps
of one layer, 28x28, batch 64, under glibc's defaults. Writes results/memory.json after each, and goes on
from there.
"""

import argparse
import itertools
import json
import resource
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from speed import child, write

from eqgan.groups import P4, P4M, regular, scalar
from eqgan.nn import GroupConv2d, LiftingConv2d
from eqgan.training.report import versions

RESULTS = Path(__file__).resolve().parent / "results" / "memory.json"
GROUPS = {"p4": P4, "p4m": P4M}
SIDE, BATCH = 28, 64
# fields in and out, window, stride; what lifts has planes in
LAYERS = {"regular": (8, 16, 3, 1), "strided": (8, 16, 4, 2), "lifting": (3, 16, 3, 1)}


def peak(group: str, kind: str, way: str) -> dict[str, float]:
    """Mebibytes that the process grew by."""
    plane, (first, second, size, stride) = GROUPS[group], LAYERS[kind]
    lifting, options = kind == "lifting", {"padding": 1, "stride": stride}
    types = (scalar if lifting else regular)(plane, first), regular(plane, second)
    layer = (LiftingConv2d if lifting else GroupConv2d)(*types, size, **options)
    channels = types[0].channels, types[1].channels
    weight = torch.randn(channels[1], channels[0], size, size, requires_grad=True)
    x = torch.randn(BATCH, channels[0], SIDE, SIDE, requires_grad=True)
    grad = torch.randn(BATCH, channels[1], SIDE // stride, SIDE // stride)
    small = torch.randn(1, channels[0], 8, 8)
    layer(small).sum().backward()  # what is made once is not counted
    F.conv2d(small, weight, **options).sum().backward()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        x.grad = None
        (F.conv2d(x, weight, **options) if way == "dense" else layer(x)).backward(grad)
    return {"mebibytes": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("call", nargs="*", help="group, layer and way that a child measures")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.call:
        print(json.dumps(peak(*options.call)))
        return
    result: dict[str, Any] = {"program": "benchmarks/memory.py", "versions": versions()}
    result |= json.loads(options.out.read_text()) if options.out.is_file() else {}
    peaks = result.setdefault("peak_mebibytes", {})
    ways = {"fourier": "fourier", "bank": "bank", "dense": "bank"}
    for group, kind, way in itertools.product(GROUPS, LAYERS, ways):
        known = peaks.setdefault(group, {}).setdefault(kind, {})
        if way not in known:
            found = child(__file__, group, kind, way, OMP_NUM_THREADS="1", EQGAN_CONV=ways[way])
            print(group, kind, way, found, flush=True)
            known[way] = found["mebibytes"]
            write(options.out, result)


if __name__ == "__main__":
    main()
