"""Does bfloat16 cost fidelity? Runs of the study in bfloat16 and in float32, and their minimum FID.

    python benchmarks/precision.py --data-root DIR      # half an hour on one core of a CPU with AVX512-BF16

The same run otherwise: the p4 discriminator of the study's quick form and the default generator, on all
training images, three seeds. Processor seconds are those of the whole run, scores included. Restartable
(`--work`), as the study is. Writes results/precision.json.
"""

import dataclasses
import statistics
from typing import Any

from many_runs import new_parser, root_words
from speed import write
from study import QUICK, Cell, Form, run

from eqgan.training.report import versions

PRECISIONS = ("bf16-mixed", "32-true")


def in_precision(form: Form, precision: str) -> Form:
    settings = (*form.settings, "--precision", precision)
    return dataclasses.replace(form, settings=settings, generators={"conv": ()})


def row(precision: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Over the seeds; seconds are the process's own, of which neighbours on the machine take little."""
    if others := {r["precision_of_numbers"] for r in runs} - {precision}:
        raise ValueError(f"expected runs in {precision}, --work holds some in {', '.join(map(str, others))}")
    fids = [r["fid"] for r in runs]
    return {
        "numbers": precision,
        "seeds": [r["seed"] for r in runs],
        "fid": {"mean": statistics.fmean(fids), "min": min(fids), "all": fids},
        **{name: statistics.fmean(r[name] for r in runs) for name in ("precision", "recall", "coverage")},
        "cpu_seconds": statistics.median(r["curve"][-1]["cpu_seconds"] for r in runs),
    }


def main() -> None:
    options = new_parser("precision", __doc__).parse_args()
    root = root_words(options)
    rows, hardware = [], set()
    for precision in PRECISIONS:
        form = in_precision(QUICK, precision)
        cells = [Cell(1.0, "p4", "conv", seed) for seed in form.seeds]
        found = [run(cell, form, options.work / precision, root) for cell in cells]
        runs = [r for r in found if r is not None]
        rows.append(row(precision, runs))
        hardware |= {r["hardware"] for r in runs}
        print(precision, rows[-1]["fid"], f"{rows[-1]['cpu_seconds']:.0f} s", flush=True)
    write(
        options.out,
        {
            "program": "benchmarks/precision.py",
            "steps": QUICK.steps,
            "batch": QUICK.batch,
            "settings": list(QUICK.settings),
            "hardware": " and ".join(sorted(hardware)),
            "versions": versions(),
            "table": rows,
        },
    )


if __name__ == "__main__":
    main()
