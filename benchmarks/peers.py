"""Group convolutions against those of e2cnn and escnn: ratios, alternating in one process.

    pip install e2cnn "numpy<2" && python benchmarks/peers.py      # some minutes
    pip install --no-deps escnn lie_learn requests pymanopt autograd "scikit-learn<1.3"    # escnn as well

Those of the two that import are measured; with NumPy 2 e2cnn cannot make its p4m filters, nor can escnn with
a newer scikit-learn. (Of what escnn requires, py3nj wants a Fortran compiler and serves SO(3) only.)

One layer each way between regular fields, 3x3, float32, batch 64, under the same memory settings: forward and
backward in training, where all expand their filters at each pass, and forward in eval, where all keep them.
Their filters are a subspace of ours (circular harmonics that fit the window); the dense convolution they end
in is the same. Writes results/peers.json.
"""

import importlib
import importlib.metadata
import importlib.util
import sys
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

RESULTS = Path(__file__).resolve().parent / "results" / "peers.json"
BATCH = 64
PEERS = ("e2cnn", "escnn")
CASES = [("p4", 8, 16, 28), ("p4", 16, 32, 14), ("p4m", 8, 16, 28), ("p4m", 16, 32, 14)]
SPACES = {  # how either calls the action of the group on the plane
    "p4": ("Rot2dOnR2", "rot2dOnR2"),
    "p4m": ("FlipRot2dOnR2", "flipRot2dOnR2"),
}


def theirs(peer: str, group: str, first: int, second: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """A layer of e2cnn or escnn, on tensors.

    Raises:
        ImportError: without the library.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spaces, nn = (importlib.import_module(f"{peer}.{part}") for part in ("gspaces", "nn"))
        space = next(getattr(spaces, name)(4) for name in SPACES[group] if hasattr(spaces, name))
        kinds = [nn.FieldType(space, n * [space.regular_repr]) for n in (first, second)]
        layer = nn.R2Conv(*kinds, 3, padding=1)

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(nn.GeometricTensor(x, kinds[0])).tensor

    return Plain()


def peers(group: str, first: int, second: int) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """Those that can be had, with the reason printed for any other."""
    found = {}
    for peer in PEERS:
        try:
            found[peer] = theirs(peer, group, first, second)
        except Exception as error:  # of any kind: they are older than the NumPy they meet
            print(f"{peer} has no {group} here: {type(error).__name__}: {error}", file=sys.stderr)
    return found


def measure(group: str, first: int, second: int, side: int, rounds: int) -> dict[str, Any]:
    """Ratios to each peer; empty if there is none."""
    if not (layers := peers(group, first, second)):
        return {}
    known, plane = [*layers], PLANE_GROUPS[group]
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
        found[kind] = {
            f"{way} over {peer}": ratio(seconds, way, peer) for way in ("auto", "bank") for peer in known
        }
    return found


def main() -> None:
    options = parser_of_rounds(__doc__, 15, RESULTS).parse_args()
    keep_freed_memory()
    rows = []
    for group, first, second, side in CASES:
        if not (found := measure(group, first, second, side, options.rounds)):
            continue
        rows.append({"group": group, "fields": [first, second], "side": side, **found})
        told = (f"{kind} {way} {r['ratio']}" for kind, ways in found.items() for way, r in ways.items())
        print(group, first, second, side, *told, flush=True)
    if not rows:
        raise SystemExit(f"expected {' or '.join(PEERS)} to compare with: pip install e2cnn")
    installed = {peer: importlib.metadata.version(peer) for peer in PEERS if importlib.util.find_spec(peer)}
    about = {
        "program": "benchmarks/peers.py",
        "batch": BATCH,
        "numpy": np.__version__,
        "peers": installed,
        "versions": versions(),
    }
    write(options.out, {**about, "layers": rows})


if __name__ == "__main__":
    main()
