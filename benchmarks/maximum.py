"""The training step of P4CNN-RP, pooled after every layer, against one with torch's own `amax`; minutes.

    python benchmarks/maximum.py

One thread, batches of 128, forward and backward, alternating in one process. Writes results/maximum.json.
"""

from pathlib import Path
from statistics import median
from unittest.mock import patch

import torch
import torch.nn.functional as F
from speed import alternate, parser_of_rounds, write

from eqgan.groups import P4
from eqgan.memory import keep_freed_memory
from eqgan.networks import FiberPool, P4CNNClassifier
from eqgan.training.report import versions

RESULTS = Path(__file__).resolve().parent / "results" / "maximum.json"
BATCH = 128


def compare(dtype: torch.dtype, layout: torch.memory_format, rounds: int) -> dict[str, float]:
    torch.manual_seed(0)
    network = P4CNNClassifier((1, 28, 28), 10, P4, width=40, fiber=FiberPool()).to(memory_format=layout)
    images, labels = torch.randn(BATCH, 1, 28, 28), torch.randint(10, (BATCH,))

    def step() -> None:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = F.cross_entropy(network(images), labels)
        loss.backward()

    def with_amax() -> None:
        with patch("eqgan.nn.pooling.maximum", torch.amax):
            step()

    ours, amax = (median(seconds) for seconds in alternate(rounds, ours=step, amax=with_amax).values())
    return {
        "ratio": round(ours / amax, 3),
        "images_per_second": round(BATCH / ours),
        "images_per_second_amax": round(BATCH / amax),
    }


def main() -> None:
    options = parser_of_rounds(__doc__, 25, RESULTS).parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    steps: dict[str, dict[str, float]] = {}
    for dtype in (torch.float32, torch.bfloat16):
        for layout in (torch.contiguous_format, torch.channels_last):
            name = f"{dtype} {layout}".replace("torch.", "")
            steps[name] = compare(dtype, layout, options.rounds)
            print(name, steps[name], flush=True)
    result = {"program": "benchmarks/maximum.py", "versions": versions(), "rounds": options.rounds}
    write(options.out, result | {"steps": steps})


if __name__ == "__main__":
    main()
