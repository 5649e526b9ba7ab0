"""Group convolutions against those of e2cnn: ratios, alternating in one process.

    pip install e2cnn "numpy<2" && python benchmarks/peers.py      # a minute or two; with NumPy 2 without p4m

One layer each way between regular fields, 3x3, float32, batch 64, under the same memory settings: forward and
backward in training, where both expand their filters at each pass, and forward in eval, where both keep them.
Its filters are a subspace of ours (circular harmonics that fit the window); the dense convolution it ends in
is the same. Writes results/peers.json.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speed import alternate, convolutions_by, parser_of_rounds, ratio, write

from eqgan.groups import PLANE_GROUPS, regular
from eqgan.memory import keep_freed_memory
from eqgan.nn import GroupConv2d
from eqgan.training.report import versions

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from e2cnn import gspaces
        from e2cnn import nn as e2nn
except ImportError as error:
    raise SystemExit(f"expected e2cnn to compare with ({error}); pip install e2cnn") from error

RESULTS = Path(__file__).resolve().parent / "results" / "peers.json"
BATCH = 64
CASES = [("p4", 8, 16, 28), ("p4", 16, 32, 14), ("p4m", 8, 16, 28), ("p4m", 16, 32, 14)]
SPACES = {"p4": lambda: gspaces.Rot2dOnR2(4), "p4m": lambda: gspaces.FlipRot2dOnR2(4)}


def theirs(group: str, first: int, second: int) -> Callable[[torch.Tensor], torch.Tensor]:
    space = SPACES[group]()
    kinds = [e2nn.FieldType(space, n * [space.regular_repr]) for n in (first, second)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = e2nn.R2Conv(*kinds, 3, padding=1)

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(e2nn.GeometricTensor(x, kinds[0])).tensor

    return Plain()


def measure(group: str, first: int, second: int, side: int, rounds: int) -> dict[str, Any]:
    plane = PLANE_GROUPS[group]
    layers = {"e2cnn": theirs(group, first, second)}
    for way in ("auto", "bank"):
        with convolutions_by(way):
            layers[way] = GroupConv2d(regular(plane, first), regular(plane, second), 3, padding=1)
    x = torch.randn(BATCH, first * plane.order, side, side, requires_grad=True)
    out_gradient = torch.randn(BATCH, second * plane.order, side, side)
    found: dict[str, Any] = {}
    for kind in ("training", "eval"):

        def call(layer: Any, kind: str = kind) -> Callable[[], Any]:
            if kind == "training":
                return lambda: layer(x).backward(out_gradient)
            layer.eval()
            return torch.no_grad()(lambda: layer(x))

        seconds = alternate(rounds, **{name: call(layer) for name, layer in layers.items()})
        found[kind] = {way: ratio(seconds, way, "e2cnn") for way in ("auto", "bank")}
    return found


def main() -> None:
    options = parser_of_rounds(__doc__, 15, RESULTS).parse_args()
    keep_freed_memory()
    old = np.lib.NumpyVersion(np.__version__) < "2.0.0"
    rows = []
    for group, first, second, side in CASES if old else [c for c in CASES if c[0] == "p4"]:
        found = measure(group, first, second, side, options.rounds)
        rows.append({"group": group, "fields": [first, second], "side": side, **found})
        told = (f"{kind} {way} {r['ratio']}" for kind, ways in found.items() for way, r in ways.items())
        print(group, first, second, side, *told, flush=True)
    about = {
        "program": "benchmarks/peers.py",
        "batch": BATCH,
        "numpy": np.__version__,
        "versions": versions(),
    }
    write(options.out, {**about, "over_e2cnn": rows})


if __name__ == "__main__":
    main()
