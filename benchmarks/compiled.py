"""What `--compile` is worth: forward and backward as written, compiled, and compiled by PyTorch's defaults.

    python benchmarks/compiled.py            # some five minutes

Alternating in one process, median of many rounds, by `EQGAN_CONV` as it is set (auto). "default" compiles as
`torch.compile` does of itself: convolutions in channels_last; a run keeps the layout of networks with norms
over fields on CPUs. Writes results/compiled.json.
"""

import statistics
from collections.abc import Callable
from typing import Any

import torch
from speed import HERE, alternate, parser_of_rounds, write
from torch import nn

from eqgan.groups import P4, Z2, PlaneGroup
from eqgan.memory import keep_freed_memory
from eqgan.networks import AllCNN, ConvDiscriminator, P4CNNClassifier
from eqgan.training.compiling import compile_network
from eqgan.training.report import versions

Made = Callable[[PlaneGroup], nn.Module]
NETWORKS: dict[str, tuple[Made, tuple[int, int, int]]] = {
    "P4CNN": (lambda group: P4CNNClassifier((1, 28, 28), 10, group), (1, 28, 28)),
    "All-CNN-C, 32 wide": (lambda group: AllCNN((3, 32, 32), 10, group, width=32), (3, 32, 32)),
    "conv discriminator": (lambda group: ConvDiscriminator((1, 28, 28), group), (1, 28, 28)),
}


def step(network: nn.Module, images: torch.Tensor) -> Callable[[], None]:
    def forward_and_backward() -> None:
        network.zero_grad()
        network(images).square().mean().backward()

    return forward_and_backward


def measure(name: str, group: PlaneGroup, rounds: int, batch: int) -> dict[str, Any]:
    make, shape = NETWORKS[name]
    written, compiled, default = make(group), make(group), make(group)
    compile_network(compiled, "inductor")
    default.compile(dynamic=False)
    images = torch.rand(batch, *shape) * 2 - 1
    ways = {"written": written, "compiled": compiled, "default": default}
    seconds = alternate(rounds, **{way: step(network, images) for way, network in ways.items()})
    medians = {way: statistics.median(found) for way, found in seconds.items()}
    return {
        "network": name,
        "group": str(group),
        "batch": batch,
        "milliseconds_written": 1e3 * medians["written"],
        **{f"{way}_over_written": medians[way] / medians["written"] for way in ("compiled", "default")},
    }


def main() -> None:
    parser = parser_of_rounds(__doc__, 15, HERE / "results" / "compiled.json")
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    keep_freed_memory()
    rows = []
    for name in NETWORKS:
        for group in (Z2, P4):
            rows.append(measure(name, group, options.rounds, options.batch))
            print(
                {key: round(v, 3) if isinstance(v, float) else v for key, v in rows[-1].items()}, flush=True
            )
            write(options.out, {"versions": versions(), "rounds": options.rounds, "networks": rows})


if __name__ == "__main__":
    main()
