"""What a training step of a group convolution needs of memory on the CPU, by each way; minutes.

    python benchmarks/memory.py

Every figure comes from a process of its own, on one thread: how much the resident memory grew in three steps
of one layer, batch 64, under glibc's defaults. Writes results/memory.json after each, and goes on from there.
"""

import argparse
import json
import resource
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from speed import child, write

from eqgan.groups import P4, P4M, regular
from eqgan.nn import GroupConv2d
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("call", nargs="*", help="group and way that a child measures")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.call:
        print(json.dumps(peak(*options.call)))
        return
    result: dict[str, Any] = {"program": "benchmarks/memory.py", "versions": versions()}
    result |= json.loads(options.out.read_text()) if options.out.is_file() else {}
    peaks = result.setdefault("peak_mebibytes", {})
    for group in GROUPS:
        for way, conv in {"fourier": "fourier", "bank": "bank", "dense": "bank"}.items():
            if way not in peaks.setdefault(group, {}):
                found = child(__file__, group, way, OMP_NUM_THREADS="1", EQGAN_CONV=conv)
                print(group, way, found, flush=True)
                peaks[group][way] = found["mebibytes"]
                write(options.out, result)


if __name__ == "__main__":
    main()
