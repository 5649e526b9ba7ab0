"""Fits the choice of `EQGAN_CONV=auto` to what benchmarks/fast_conv.py measured; checks it on held-out cases.

    python benchmarks/fit_fast_conv.py             # seconds
    python benchmarks/fit_fast_conv.py --check     # only the check, by the committed fit

Writes the time of each term into eqgan/nn/fourier/measured.json, under the instruction set and processor
measured on, and into the results file what the choice then does with every case: how many take the fast path,
the worst of their ratios to the fastest other way, and the gates. Exits with an error if a gate is missed.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from fast_conv import ON_CPU, RESULTS, Case, write_cases
from scipy.optimize import nnls
from speed import convolutions_by, write

from eqgan.groups import PLANE_GROUPS
from eqgan.nn.fourier import choice

# of the other way's time; what lifting by the bank costs beside the convolution is in no term of its model
MARGINS = {
    **dict.fromkeys(("regular", "quotient", "whole"), dict.fromkeys(choice.KINDS, 0.80)),
    "strided": {**dict.fromkeys(choice.KINDS, 0.90), "eval_bf16": 0.80},
    "transposed": dict.fromkeys(choice.KINDS, 0.90),
    "lifting": {**dict.fromkeys(choice.LIFTING_KINDS, 0.80), "training": 0.90},
    "strided_lifting": {**dict.fromkeys(choice.LIFTING_KINDS, 0.80), "training": 0.90, "training_bf16": 0.90},
}
FITTED_TO = {
    "regular": ("grid", "gates"),
    "lifting": ("lifting",),
    "strided": ("strided",),
    "strided_lifting": ("strided_lifting",),
    "transposed": ("transposed",),
    "quotient": ("quotient",),
    "whole": ("whole",),
}
# Of these kinds the times over groups with mirrors alone are not told by the terms of the others: fitted to
# them too, the choice takes layers of 1.10 of the bank's time.
WITHOUT_MIRRORS = ("lifting", "strided_lifting", "whole")
WORST = 1.05  # of what the choice takes, over the fastest other way, on held-out cases
# (group, side): most of forward + backward over dense, batch 64; p4 with 16 output fields or more (32 at 14)
GATES = {
    ("p4", 28): 0.75,
    ("p4", 14): 0.80,
    ("p4m", 28): 0.42,
    ("p4m", 14): 0.48,
}
Cases = list[dict[str, Any]]


def of(results: dict[str, Any], part: str) -> Cases:
    return [case for case in results["cases"] if case["part"] == part]


def case_of(case: dict[str, Any]) -> Case:
    known = {name: case[name] for name in Case._fields if name in case}
    groups = {name: PLANE_GROUPS[case[name]] for name in ("group", "subgroup") if name in case}
    return Case(**known | groups | {"fields": tuple(case["fields"])})


def layer_of(case: dict[str, Any]) -> choice.Layer:
    return case_of(case).layer


def work_of(case: dict[str, Any]) -> choice.Work:
    return choice.Work.of(layer_of(case))


def sites_of(case: dict[str, Any]) -> int:
    return case["batch"] * case_of(case).out_side ** 2


def fitted(case: dict[str, Any], kind: str) -> bool:
    """Whether the times of a kind of layers are fitted to this case."""
    mirrors_alone = case["group"] in ("pm", "p2mm")
    return considered(case) and not (mirrors_alone and kind in WITHOUT_MIRRORS)


def considered(case: dict[str, Any]) -> bool:
    """Whether the fast path is ever chosen for such windows and maps (``FourierPath.takes``)."""
    layer, side = layer_of(case), case_of(case).out_side
    if layer.lifting:
        return 1 < layer.size <= side and layer.fields_in * layer.size**2 <= choice.MOST_PATCH_ROWS
    return layer.whole or 1 < layer.size // layer.stride <= side


def others_ms(case: dict[str, Any], kind: str) -> float:
    """Of the fastest other way: the bank, or the dense convolution whose filter needs no expanding.

    A layer that lifts has no other way than the bank: were its maps channels_last, no later layer could take
    the fast path, and its filter is so small that expanding it is what the dense convolution saves. Nor has
    one whose window is as large as its map, whose filter is as large as the work.
    """
    only_bank = case.get("lifting") or case.get("whole")
    names = ("bank",) if only_bank else ("bank", "dense", "dense_last")
    return min(case[kind]["least_ms"][name] for name in names)


def kinds_of(cases: Cases) -> list[str]:
    """Those that all of them were measured for; a file of another machine may lack the newest, of images."""
    found = [kind for kind in choice.LIFTING_KINDS if all(kind in case for case in cases)]
    if missing := set(choice.KINDS) - set(found):
        raise SystemExit(f"not measured for every case: {', '.join(sorted(missing))}; run fast_conv.py first")
    return found


def fit(cases: Cases) -> dict[str, Any]:
    """Nanoseconds a term, none negative, by least squares of relative errors."""
    times: dict[str, Any] = {}
    for kind in kinds_of(cases):
        ours = [1e6 * case[kind]["least_ms"]["fourier"] for case in cases]
        others = [1e6 * others_ms(case, kind) for case in cases]
        times[kind] = {}
        for name, nanoseconds in (("fourier", ours), ("bank", others)):
            terms = [getattr(work_of(case), f"{name}_terms")(sites_of(case)) for case in cases]
            times[kind][name], error = positive_fit(np.array(terms), np.array(nanoseconds))
            print(kind, name, times[kind][name], f"relative error {error:.2f}")
    groups = sorted({PLANE_GROUPS[case["group"]].point_group.name for case in cases})
    return {"groups": groups, "fewest_sites": min(map(sites_of, cases)), "times": times}


def positive_fit(terms: np.ndarray, nanoseconds: np.ndarray) -> tuple[list[float], float]:
    matrix = terms / nanoseconds[:, None]
    size = np.linalg.norm(matrix, axis=0)
    solution, residual = nnls(matrix / size, np.ones(len(matrix)))
    return [float(f"{c:.4g}") for c in solution / size], float(residual / len(matrix) ** 0.5)


def chosen(case: dict[str, Any], kind: str) -> bool:
    least = choice.least_sites(kind, layer_of(case))
    return considered(case) and sites_of(case) >= least


def check(cases: Cases) -> dict[str, Any]:
    """What the committed choice does with these cases."""
    told: dict[str, Any] = {}
    for kind in kinds_of(cases):
        ratios = [(case, case[kind]["least_ms"]["fourier"] / others_ms(case, kind)) for case in cases]
        taken = [ratio for case, ratio in ratios if chosen(case, kind)]
        faster = sum(ratio < 1 for _, ratio in ratios)
        told[kind] = {
            "cases": len(cases),
            "faster_fourier": faster,
            "taken": len(taken),
            "worst_taken": round(max(taken, default=0.0), 3),
            "median_taken": round(float(np.median(taken)), 3) if taken else None,
        }
        print(kind, told[kind])
    return told


def gates(cases: Cases) -> Cases:
    told = []
    for case in cases:
        most: float | None = GATES[case["group"], case["side"]]
        if case["group"] == "p4" and case["fields"][1] < (16 if case["side"] == 28 else 32):
            most = None
        names = ("group", "fields", "side", "batch")
        row = {name: case[name] for name in names} | {"ratio": case["training"]["ratio"], "at_most": most}
        told.append(row)
        print(*row.values(), "MISSED" if most and row["ratio"] > most else "")
    return told


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    results = json.loads(options.results.read_text())
    if not options.check:
        committed = json.loads(choice.MEASURED.read_text())
        processors = committed["fits"].setdefault(results["isa"], {})
        fits = processors.setdefault(results["versions"]["hardware"], {})
        for kind, parts in FITTED_TO.items():
            if cases := [case for part in parts for case in of(results, part) if fitted(case, kind)]:
                fits[kind] = {**fit(cases), "margins": MARGINS[kind]}
        write(choice.MEASURED, committed)
    results["gates"] = gates(of(results, "gates"))
    isa = patch.object(choice, "instruction_set", return_value=results["isa"])
    with isa, convolutions_by("auto"):  # wherever this runs, and whatever is forced here
        results["choice"] = {part: check(cases) for part in ON_CPU if (cases := of(results, part))}
    write_cases(options.results, results)
    held_out = [told for part, told in results["choice"].items() if part.endswith("held_out")]
    worst = max((told["worst_taken"] for part in held_out for told in part.values()), default=0.0)
    missed = [row for row in results["gates"] if row["at_most"] and row["ratio"] > row["at_most"]]
    if missed or worst > WORST:
        sys.exit(f"{len(missed)} gates missed; worst held-out case that is taken: {worst}, at most {WORST}")


if __name__ == "__main__":
    main()
