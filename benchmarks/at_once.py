"""What is gained by doing at once what layers do one after the other: ratios, alternating in one process.

    python benchmarks/at_once.py                 # some minutes on two cores
    python benchmarks/at_once.py --rounds 3      # to see that it runs

Forward and backward, float32, batch 64, under the memory settings of the commands. Doubling and a 3x3
convolution against one transposed one; a 3x3 convolution and the mean over 2x2 against one of stride 2; and a
convolution as large as its map, a matrix product, against `F.conv2d`. Group convolutions by their filter
banks and, where they can, by the fast path, both against the two layers by the bank. And without gradients,
in eval: classifiers whose batch norms go into the filters before them, whose rectifiers and maxima over the
fiber are taken as the engine writes and whose maxima of blocks keep no places, against their layers one by
one. Writes results/at_once.json.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from speed import alternate, convolutions_by, parser_of_rounds, ratio, write
from torch import Tensor, nn

from eqgan.groups import P4, P4M, Z2, PlaneGroup, regular
from eqgan.memory import keep_freed_memory
from eqgan.networks import AllCNNBody, P4CNNBody
from eqgan.networks.features import FeatureNetwork, feature_network
from eqgan.networks.fiber import fiber_pool
from eqgan.networks.parts import ChainBody
from eqgan.nn import AvgPool2d, ConvAvgPool2d, GroupConv2d, MaxPool2d, Upsample2d, UpsampleConv2d
from eqgan.training.report import versions

RESULTS = Path(__file__).resolve().parent / "results" / "at_once.json"
BATCH = 64
# group, fields in and out, side of the maps that come in: of the default generator, and of wider ones
DOUBLED = [
    (Z2, 64, 32, 7),
    (Z2, 32, 16, 14),
    (P4, 32, 16, 14),
    (P4, 64, 32, 7),
    (P4M, 16, 8, 14),
    (P4M, 32, 16, 7),
]
POOLED = [(Z2, 64, 64, 28), (P4, 16, 16, 28), (P4, 32, 32, 14), (P4M, 8, 8, 28), (P4M, 16, 16, 14)]
WHOLE = [(P4, 32, 32, 7), (P4M, 23, 23, 7), (P4, 10, 10, 4)]
EVAL: list[tuple[str, tuple[int, int], Callable[[], ChainBody | FeatureNetwork]]] = [
    *((f"{g.name} seven layers", (1, 28), partial(P4CNNBody, (1, 28, 28), g, 20)) for g in (Z2, P4, P4M)),
    *(
        (f"p4 seven layers, {text}", (1, 28), partial(P4CNNBody, (1, 28, 28), P4, 20, fiber=fiber_pool(text)))
        for text in ("group", "coset:p2@2,4")
    ),
    *((f"{g.name} All-CNN-C", (3, 32), partial(AllCNNBody, (3, 32, 32), g, 10, 48)) for g in (Z2, P4, P4M)),
    ("the feature network", (1, 28), feature_network),
]


def step(network: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], None]:
    variable = x.clone().requires_grad_()
    out_gradient = torch.randn_like(network(x))
    return lambda: network(variable).backward(out_gradient)


def made(way: str, build: Callable[[], nn.Module]) -> nn.Module:
    with convolutions_by(way):
        return build()


def resampled(together: type, group: PlaneGroup, fields: tuple[int, int], side: int, rounds: int) -> Any:
    kinds = regular(group, fields[0]), regular(group, fields[1])

    def two() -> nn.Module:
        conv = GroupConv2d(*kinds, 3, padding="same")
        if together is UpsampleConv2d:
            return nn.Sequential(Upsample2d(kinds[0]), conv)
        return nn.Sequential(conv, AvgPool2d(kinds[1], 2))

    x = torch.randn(BATCH, kinds[0].channels, side, side)
    ways = {"bank": step(made("bank", lambda: together(*kinds, 3)), x)}
    if group.order > 1:
        ways["fourier"] = step(made("fourier", lambda: together(*kinds, 3)), x)
    seconds = alternate(rounds, **ways, two=step(made("bank", two), x))
    return {name: ratio(seconds, name, "two") for name in ways}


def whole_map(group: PlaneGroup, fields: tuple[int, int], side: int, rounds: int) -> Any:
    layer = made("bank", lambda: GroupConv2d(regular(group, fields[0]), regular(group, fields[1]), side))

    def convolution(x: Tensor) -> Tensor:
        return F.conv2d(x, layer.filter_bank(), layer.bias.repeat_interleave(group.order))

    x = torch.randn(BATCH, layer.in_type.channels, side, side)
    return {"bank": ratio(alternate(rounds, bank=step(layer, x), conv=step(convolution, x)), "bank", "conv")}


def in_eval(network: ChainBody | FeatureNetwork, shape: tuple[int, int], rounds: int) -> Any:
    joined = network.eval().maps if isinstance(network, ChainBody) else network.layers
    plain = [
        nn.MaxPool2d(m.kernel_size, m.stride, m.padding) if isinstance(m, MaxPool2d) else m for m in joined
    ]
    channels, side = shape
    x = torch.randn(BATCH, channels, side, side)
    ways = {"joined": joined, "layers": nn.Sequential(*plain).eval()}
    with torch.no_grad():
        seconds = alternate(rounds, **{name: partial(way, x) for name, way in ways.items()})
    return {"joined": ratio(seconds, "joined", "layers")}


def main() -> None:
    options = parser_of_rounds(__doc__, 21, RESULTS).parse_args()
    keep_freed_memory()
    parts: dict[str, list[dict[str, Any]]] = {"doubled": [], "pooled": [], "whole_map": []}
    for part, cases in (("doubled", DOUBLED), ("pooled", POOLED), ("whole_map", WHOLE)):
        for group, first, second, side in cases:
            shape = group, (first, second), side
            if part == "whole_map":
                found = whole_map(*shape, options.rounds)
            else:
                found = resampled(
                    UpsampleConv2d if part == "doubled" else ConvAvgPool2d, *shape, options.rounds
                )
            parts[part].append({"group": group.name, "fields": [first, second], "side": side, **found})
            print(part, *shape, *(f"{way} {r['ratio']}" for way, r in found.items()), flush=True)
    parts["eval"] = []
    for name, image, network in EVAL:
        found = in_eval(network(), image, options.rounds)
        parts["eval"].append({"network": name, **found})
        print("eval", name, found["joined"]["ratio"], flush=True)
    write(options.out, {"program": "benchmarks/at_once.py", "batch": BATCH, "versions": versions(), **parts})


if __name__ == "__main__":
    main()
