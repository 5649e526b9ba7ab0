"""What asking glibc to keep freed memory gains a whole training run on the CPU; some minutes.

    python benchmarks/allocator.py --data-root DIR

Pairs of processes, one with EQGAN_MALLOC=default and one as the commands are, in turns: images per
second of `train_gan.py --disc p4` over one short epoch, the page faults of the whole process, and its largest
resident memory. Ratios are medians over the pairs. Writes results/allocator.json; runs that are not measured
again stay there.
"""

import argparse
import json
import resource
import statistics
import tempfile
from pathlib import Path
from typing import Any

from many_runs import root_words
from speed import child, write

from eqgan.cli import train_gan
from eqgan.training.report import versions

RESULTS = Path(__file__).resolve().parent / "results" / "allocator.json"
RUNS = {
    "p4, default": [],
    "p4m, default": ["--disc", "p4m"],
    "p4, conv, float32": ["--disc-arch", "conv", "--precision", "32-true"],
}


def train(words: list[str]) -> dict[str, float]:
    """One short epoch in this process."""
    with tempfile.TemporaryDirectory() as folder:
        places = ["--log_dir", f"{folder}/logs", "--samples_dir", f"{folder}/samples"]
        short = ["--epochs", "1", "--evaluation.samples", "100", "--trainer.limit_train_batches", "48"]
        summary = train_gan(["--disc", "p4", "--data", "rotmnist", *short, *places, *words])
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "images_per_second": summary["images_per_second"],
        "page_faults": usage.ru_minflt,
        "mebibytes": usage.ru_maxrss / 1024,
    }


def compare(name: str, pairs: int, root: list[str]) -> dict[str, Any]:
    found: dict[str, list[dict[str, float]]] = {"kept": [], "default": []}
    for number in range(pairs):
        for setting in sorted(found, reverse=number % 2 == 0):
            found[setting].append(child(__file__, "--child", name, *root, EQGAN_MALLOC=setting))
    told: dict[str, Any] = {"pairs": pairs}
    for key in found["kept"][0]:
        ours, theirs = ([one[key] for one in found[setting]] for setting in ("kept", "default"))
        told[key] = {"kept": statistics.median(ours), "default": statistics.median(theirs)}
        told[key]["ratio"] = round(statistics.median(a / b for a, b in zip(ours, theirs)), 3)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", default=None)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--child", choices=RUNS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    root = root_words(options)
    if options.child:
        print(json.dumps(train([*RUNS[options.child], *root])))
        return
    kept = json.loads(options.out.read_text())["runs"] if options.out.is_file() else {}
    result: dict[str, Any] = {"program": "benchmarks/allocator.py", "versions": versions(), "runs": kept}
    for name in options.only:
        result["runs"][name] = compare(name, options.pairs, root)
        print(name, json.dumps(result["runs"][name]), flush=True)
        write(options.out, result)


if __name__ == "__main__":
    main()
