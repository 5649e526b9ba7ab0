"""The fast group convolution against the dense one of the same channels, and from which size it is taken.

    python benchmarks/fast_conv.py                 # half an hour on two cores, the machine being quiet
    python benchmarks/fast_conv.py --quick         # fewer rounds and cases
    python benchmarks/fast_conv.py --fit           # fit the choice to the results that are there

All candidates alternate in one process under the same allocator settings: the fast path, the filter bank, and
`F.conv2d` of the same channel counts, contiguous and channels_last. A ratio is the median over the rounds of
ours over the faster of the two dense ones, and beside it that of the smallest times. Writes
results/fast_conv.json; --fit writes the terms that `EQGAN_CONV=auto` decides by, from these results, into
eqgan/nn/fourier/measured.json.
"""

import argparse
import itertools
import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import nnls
from speed import alternate, write

from eqgan.groups import P2, P4, P4M, PLANE_GROUPS, PlaneGroup, regular
from eqgan.memory import keep_freed_memory
from eqgan.nn import GroupConv2d
from eqgan.nn.fourier import path
from eqgan.training.report import versions

HERE = Path(__file__).resolve().parent
MARGIN = 0.95


def candidates(
    group: PlaneGroup, fields: tuple[int, int], side: int, size: int, batch: int
) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """By name: a training pass forward and backward, and a forward pass in eval."""
    channels_in, channels_out = fields[0] * group.order, fields[1] * group.order
    x = torch.randn(batch, channels_in, side, side)
    grad = torch.randn(batch, channels_out, side, side)

    def pair(function: Callable[..., Any], x: torch.Tensor, grad: torch.Tensor) -> Any:
        variable = x.clone(memory_format=torch.preserve_format).requires_grad_()

        def train() -> None:
            function(variable).backward(grad)

        @torch.no_grad()
        def evaluate() -> None:
            function(x)

        return train, evaluate

    found = {}
    for name in ("fourier", "bank"):
        os.environ["EQGAN_CONV"] = name
        layer = GroupConv2d(regular(group, fields[0]), regular(group, fields[1]), size, padding=size // 2)
        kept = GroupConv2d(layer.in_type, layer.out_type, size, padding=size // 2).eval()
        found[name] = (pair(layer, x, grad)[0], pair(kept, x, grad)[1])
    for name, layout in (("dense", torch.contiguous_format), ("dense_last", torch.channels_last)):
        weight = torch.randn(channels_out, channels_in, size, size).to(memory_format=layout)
        weight, bias = weight.requires_grad_(), torch.zeros(channels_out, requires_grad=True)

        def dense(x: torch.Tensor, weight: Any = weight, bias: Any = bias) -> torch.Tensor:
            return F.conv2d(x, weight, bias, 1, size // 2)

        found[name] = pair(dense, x.to(memory_format=layout), grad.to(memory_format=layout))
    return found


def measure(group: PlaneGroup, fields: tuple[int, int], side: int, size: int, batch: int, rounds: int) -> Any:
    case = {"group": group.name, "fields": list(fields), "side": side, "size": size, "batch": batch}
    found = candidates(group, fields, side, size, batch)
    for number, what in enumerate(("training", "eval")):
        seconds = alternate(rounds, **{name: pair[number] for name, pair in found.items()})
        faster = [min(pair) for pair in zip(seconds["dense"], seconds["dense_last"])]
        case[what] = {
            "ratio": round(statistics.median(a / b for a, b in zip(seconds["fourier"], faster)), 3),
            "ratio_of_least": round(min(seconds["fourier"]) / min(faster), 3),
            "least_ms": {name: round(1e3 * min(values), 4) for name, values in seconds.items()},
            "median_ms": {name: round(1e3 * statistics.median(v), 4) for name, v in seconds.items()},
        }
    print(
        case["group"], fields, side, size, batch, *(case[w]["ratio_of_least"] for w in ("training", "eval"))
    )
    return case


def cases(quick: bool) -> list[tuple[Any, ...]]:
    """The sizes that matter at batch 64, and a grid of smaller ones, down to where nothing is gained."""
    stated = [(P4, (8, 16), 28), (P4, (16, 32), 14), (P4M, (8, 16), 28), (P4M, (16, 32), 14)]
    if quick:
        small = [
            (P4, (8, 8), 7, 3, 8),
            (P4, (8, 16), 14, 3, 2),
            (P4M, (4, 8), 14, 3, 2),
            (P4, (2, 2), 7, 3, 1),
        ]
        return [(*case, 3, 16) for case in stated] + small
    more = [(P4, (16, 16), 28), (P4, (8, 8), 28), (P4, (8, 32), 14), (P4M, (8, 8), 28), (P2, (16, 32), 14)]
    fields = [(4, 4), (8, 8), (8, 16), (32, 8), (32, 32)]
    grid = itertools.product((P2, P4, P4M), fields, (28, 14, 7), (3,), (1, 8))
    wide = itertools.product((P4, P4M), fields[1:3], (14,), (5,), (2, 16))
    return [*((*case, 3, 64) for case in stated + more), *grid, *wide]


def fit(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Nanoseconds a term, none negative, by least squares of relative errors; bank includes its gather."""
    times: dict[str, Any] = {}
    for what in ("training", "eval"):
        times[what] = {}
        for name in ("fourier", "bank"):
            rows = []
            for case in results:
                sides = case["side"] + 2 * (case["size"] // 2) - case["size"] + 1
                work = path.Work.of(PLANE_GROUPS[case["group"]].point_group, case["size"], *case["fields"])
                terms = np.array(getattr(work, f"{name}_terms")(case["batch"] * sides**2))
                nanoseconds = 1e6 * case[what]["least_ms"][name]
                rows.append(terms / nanoseconds)
            matrix = np.array(rows)
            size = np.linalg.norm(matrix, axis=0)
            solution, residual = nnls(matrix / size, np.ones(len(rows)))
            times[what][name] = [float(f"{c:.4g}") for c in solution / size]
            print(what, name, times[what][name], f"relative error {residual / len(rows) ** 0.5:.2f}")
    groups = sorted({PLANE_GROUPS[case["group"]].point_group.name for case in results})
    return {"groups": groups, "times": times}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "fast_conv.json")
    options = parser.parse_args()
    if not options.fit:
        keep_freed_memory()
        rounds = options.rounds or (9 if options.quick else 31)
        isa = torch.backends.cpu.get_cpu_capability().lower()
        results = [measure(*case, rounds) for case in cases(options.quick)]
        about = {"program": "benchmarks/fast_conv.py", "isa": isa, "rounds": rounds, "versions": versions()}
        write(options.out, about | {"cases": results})
    if options.fit:
        measured = json.loads(options.out.read_text())
        committed = json.loads(path.MEASURED.read_text())
        committed["margin"] = MARGIN
        committed["fits"][measured["isa"]] = fit(measured["cases"])
        write(path.MEASURED, committed)


if __name__ == "__main__":
    main()
