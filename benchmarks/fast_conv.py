"""The fast group convolution against the dense one of the same channels, layer by layer.

    python benchmarks/fast_conv.py                    # all parts: half an hour on two quiet cores
    python benchmarks/fast_conv.py --only gates       # gates, grid, held_out, lifting, strided, ...
    python benchmarks/fast_conv.py --minutes 8        # stop after so long; the next call goes on from there
    python benchmarks/fast_conv.py --quick --out X    # a few small cases, to see that it runs
    python benchmarks/fast_conv.py --out FILE         # on a processor of another kind than that file's
    python benchmarks/fast_conv.py --device cuda      # the kernels for a GPU: results/fast_conv_cuda.json

All candidates alternate in one process under the same allocator settings: the fast path, the filter bank,
and `F.conv2d` of the same channel counts, contiguous and channels_last; and the same under bfloat16
autocast. Lifting layers are trained as the first layer of a network is, whose images need no gradient, and,
the kinds called images, as the first layer of a discriminator is in a step of the generator. A ratio is the
median over the rounds of ours over the faster of the two dense ones, and beside it that of the smallest
times. Writes results/fast_conv.json after each case; benchmarks/fit_fast_conv.py makes of it what
`EQGAN_CONV=auto` decides by.
"""

import argparse
import itertools
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from speed import alternate, convolutions_by

from eqgan.files import atomic_write
from eqgan.groups import P2, P2MM, P4, P4M, PM, FieldType, PlaneGroup, quotient, regular, scalar
from eqgan.memory import keep_freed_memory
from eqgan.nn import GroupConv2d, UpsampleConv2d
from eqgan.nn.fourier.choice import LIFTING_KINDS, Layer, instruction_set
from eqgan.nn.fourier.native import output_side
from eqgan.training.report import versions

RESULTS = Path(__file__).resolve().parent / "results" / "fast_conv.json"
GROUPS = P2, P4, P4M, PM, P2MM  # what the choice is fitted to
RESULTS_GPU = RESULTS.with_name("fast_conv_cuda.json")


class Case(NamedTuple):
    """One layer and its input."""

    group: PlaneGroup
    fields: tuple[int, int]
    side: int
    size: int
    batch: int
    lifting: bool = False
    stride: int = 1
    transposed: bool = False
    whole: bool = False
    subgroup: PlaneGroup | None = None  # H of fields on G/H in

    @property
    def padding(self) -> int:
        """Keeps the side, or divides it by the stride, or multiplies it, or leaves one site of it."""
        if self.whole:
            return 0
        return self.size // 2 if self.stride == 1 else (self.size - self.stride) // 2

    @property
    def in_type(self) -> FieldType:
        if self.subgroup is not None:
            return quotient(self.group, self.subgroup, self.fields[0])
        return (scalar if self.lifting else regular)(self.group, self.fields[0])

    @property
    def layer(self) -> Layer:
        how = self.lifting, self.stride, self.transposed, self.whole
        members = () if self.subgroup is None else self.in_type.representation.stabiliser
        return Layer(self.group.point_group, self.size, *self.fields, *how, members)

    @property
    def out_side(self) -> int:
        """Of the output, or, transposed, of its blocks."""
        return (
            self.side + 1 if self.transposed else output_side(self.side, self.size, self.padding, self.stride)
        )

    @property
    def name(self) -> dict[str, Any]:
        named = {**self._asdict(), "group": self.group.name, "fields": list(self.fields)}
        named["subgroup"] = None if self.subgroup is None else self.subgroup.name
        usual = {"lifting": False, "stride": 1, "transposed": False, "whole": False, "subgroup": None}
        return {key: value for key, value in named.items() if key not in usual or value != usual[key]}


Function = Callable[[torch.Tensor], torch.Tensor]
# how it is trained, how it is evaluated, and the layout of its maps
Candidate = tuple[Function, Function, torch.memory_format]


def candidates(case: Case, device: str) -> dict[str, Candidate]:
    size, out_type = case.size, regular(case.group, case.fields[1])
    found: dict[str, Candidate] = {}

    def made() -> GroupConv2d:
        if case.transposed:  # a window of one less on doubled maps
            return UpsampleConv2d(case.in_type, out_type, size - 1)
        return GroupConv2d(case.in_type, out_type, size, case.stride, case.padding)

    for name in ("fourier", "bank"):
        with convolutions_by(name):
            layer, kept = made(), made().eval()
        found[name] = layer.to(device), kept.to(device), torch.contiguous_format
    channels = out_type.channels, case.in_type.channels
    for name, layout in (("dense", torch.contiguous_format), ("dense_last", torch.channels_last)):
        shape = (*(reversed(channels) if case.transposed else channels), size, size)
        weight = torch.randn(shape, device=device).to(memory_format=layout).requires_grad_()
        bias = torch.zeros(channels[0], device=device, requires_grad=True)

        def dense(x: torch.Tensor, weight: Any = weight, bias: Any = bias) -> torch.Tensor:
            if case.whole and x.is_contiguous():  # a matrix product is faster than F.conv2d
                return F.linear(x.flatten(1), weight.flatten(1), bias)[:, :, None, None]
            convolve = F.conv_transpose2d if case.transposed else F.conv2d
            return convolve(x, weight, bias, case.stride, case.padding)

        found[name] = dense, dense, layout
    return found


def call(candidate: Candidate, kind: str, x: torch.Tensor, lifting: bool) -> Callable[[], Any]:
    """One training pass, forward and backward, or one forward pass without gradients."""
    train, kept, layout = candidate
    lower = kind.endswith("bf16")
    x = x.to(torch.bfloat16 if lower else torch.float32, memory_format=layout)
    context = torch.autocast(x.device.type, torch.bfloat16, enabled=lower)

    @torch.no_grad()
    def evaluate() -> torch.Tensor:
        with context:
            return wait(kept(x))

    if kind.startswith("eval"):
        return evaluate
    out_gradient = torch.randn_like(evaluate()).to(memory_format=layout)
    wanted = not lifting or kind.startswith("images")
    variable = x.clone(memory_format=torch.preserve_format).requires_grad_(wanted)

    def step() -> None:
        with context:
            out = train(variable)
        out.backward(out_gradient)
        wait(out)

    return step


def wait(x: torch.Tensor) -> torch.Tensor:
    """For a device that works on by itself."""
    if x.is_cuda:
        torch.cuda.synchronize()
    return x


def measure(case: Case, kinds: tuple[str, ...], rounds: int, device: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    x = torch.randn(case.batch, case.in_type.channels, case.side, case.side, device=device)
    made = candidates(case, device)
    for kind in kinds:
        calls = {name: call(candidate, kind, x, case.lifting) for name, candidate in made.items()}
        seconds = alternate(rounds, **calls)
        faster = [min(pair) for pair in zip(seconds["dense"], seconds["dense_last"])]
        found[kind] = {
            "ratio": round(statistics.median(a / b for a, b in zip(seconds["fourier"], faster)), 3),
            "ratio_of_least": round(min(seconds["fourier"]) / min(faster), 3),
            "least_ms": {name: round(1e3 * min(values), 4) for name, values in seconds.items()},
            "median_ms": {name: round(1e3 * statistics.median(v), 4) for name, v in seconds.items()},
        }
    return found


# ---- cases -------------------------------------------------------------------------------------------------


def gates() -> list[Case]:
    """Batch 64, and the ratios that were asked for: see fit_fast_conv.py."""
    wide = [(P4, (8, 32), 28), (P4, (16, 16), 28), (P4M, (16, 16), 28)]
    stated = [(P4, (8, 16), 28), (P4, (16, 32), 14), (P4M, (8, 16), 28), (P4M, (16, 32), 14)]
    small = [(P4, (8, 8), 28), (P4, (8, 16), 14), (P4M, (8, 8), 28), (P4M, (8, 16), 14)]
    return [Case(*case, 3, 64) for case in stated + wide + small]


def grid() -> list[Case]:
    """What the choice is fitted to, down to where nothing is gained."""
    fields = [(4, 4), (8, 16), (32, 8), (32, 32)]
    threes = itertools.product(GROUPS, fields, (28, 14, 7), (3,), (1, 8))
    others = itertools.product((P4, P4M), fields[1:2], (14, 7), (2, 4, 5), (2, 16))
    large = itertools.product(GROUPS, [(16, 32)], (14,), (3,), (64,))
    return [Case(*case) for case in (*threes, *others, *large)]


def held_out(count: int = 48) -> list[Case]:
    """Drawn at random, with sizes that the fit has not seen."""
    draw = random.Random(1)
    return [
        Case(
            draw.choice([P2, P4, P4M]),
            (draw.choice([2, 3, 6, 11, 12, 16, 24]), draw.choice([2, 3, 6, 11, 12, 16, 24])),
            draw.choice([4, 6, 8, 10, 12, 16, 24, 32]),
            draw.choice([3, 3, 3, 4, 5, 7]),
            draw.choice([1, 2, 4, 8, 8, 16, 32]),
        )
        for _ in range(count)
    ]


def mirrors_held_out(count: int = 48) -> list[Case]:
    """The groups that the other draws do not have, over all kinds of layers."""
    draw = random.Random(7)
    found = []
    for _ in range(count):
        kind = draw.choice(["regular", "regular", "halved", "doubled", "lifting", "lifting, halved"])
        lifts, strided = kind.startswith("lifting"), kind.endswith(("halved", "doubled"))
        found.append(
            Case(
                draw.choice([PM, P2MM]),
                (draw.choice([1, 1, 3] if lifts else [2, 3, 6, 12, 24]), draw.choice([3, 6, 11, 16, 24])),
                draw.choice([8, 10, 12, 16, 20, 24, 32]),
                4 if strided else draw.choice([3, 3, 4, 5]),
                draw.choice([1, 4, 8, 16, 32, 64]),
                lifting=lifts,
                stride=2 if strided else 1,
                transposed=kind == "doubled",
            )
        )
    return found


def lifting() -> list[Case]:
    """From one plane and from three."""
    fields = [(1, 8), (1, 32), (3, 16)]
    threes = itertools.product(GROUPS, fields, (28, 10), (3,), (1, 8, 64))
    others = itertools.product((P4, P4M), [(1, 16), (3, 16)], (14,), (2, 4, 5, 7), (4, 32))
    return [Case(*case, lifting=True) for case in (*threes, *others)]


def lifting_held_out(count: int = 32) -> list[Case]:
    """Drawn at random too; with more planes than images have."""
    draw = random.Random(2)
    return [
        Case(
            draw.choice([P2, P4, P4M]),
            (draw.choice([1, 1, 1, 2, 3, 3, 5]), draw.choice([3, 6, 8, 12, 16, 24])),
            draw.choice([6, 8, 12, 16, 24, 32, 48]),
            draw.choice([3, 3, 3, 4, 5, 7]),
            draw.choice([1, 2, 4, 8, 16, 32, 64]),
            lifting=True,
        )
        for _ in range(count)
    ]


def strided() -> list[Case]:
    """A map is halved, as in the default discriminators."""
    fields = [(4, 8), (16, 32), (32, 8)]
    fours = itertools.product(GROUPS, fields, (28, 14), (4,), (8, 64))
    sixes = itertools.product((P4, P4M), [(8, 16)], (16,), (6,), (4, 32))
    return [Case(*case, stride=2) for case in (*fours, *sixes)]


def strided_held_out(count: int = 24) -> list[Case]:
    draw = random.Random(3)
    return [
        Case(
            draw.choice([P2, P4, P4M]),
            (draw.choice([2, 3, 6, 11, 12, 16, 24]), draw.choice([3, 6, 11, 12, 16, 24])),
            draw.choice([8, 12, 16, 20, 24, 32]),
            draw.choice([4, 4, 6]),
            draw.choice([1, 2, 4, 8, 16, 32, 64]),
            stride=2,
        )
        for _ in range(count)
    ]


def strided_lifting() -> list[Case]:
    """Images are halved; three by three only odd sides, exactly."""
    fours = itertools.product(GROUPS, [(1, 8), (1, 32)], (28,), (4,), (1, 8, 64))
    large = itertools.product((P4, P4M), [(1, 16)], (56,), (4,), (16,))
    threes = itertools.product((P4, P4M), [(1, 16), (3, 8)], (15, 29), (3,), (4, 32))
    fives = itertools.product((P4, P4M), [(1, 16)], (29,), (5,), (16,))
    return [Case(*case, lifting=True, stride=2) for case in (*fours, *large, *threes, *fives)]


def strided_lifting_held_out(count: int = 24) -> list[Case]:
    draw = random.Random(5)
    found = []
    for _ in range(count):
        size = draw.choice([3, 4, 4, 5])
        found.append(
            Case(
                draw.choice([P2, P4, P4M]),
                (draw.choice([1, 1, 1, 3]), draw.choice([3, 6, 11, 12, 16, 24])),
                draw.choice([8, 12, 16, 20, 24, 32, 48]) + size % 2,
                size,
                draw.choice([1, 2, 4, 8, 16, 32, 64]),
                lifting=True,
                stride=2,
            )
        )
    return found


def transposed() -> list[Case]:
    """A map is doubled, as in the generators."""
    fields = [(8, 4), (32, 16), (8, 32)]
    fours = itertools.product(GROUPS, fields, (14, 7), (4,), (8, 64))
    sixes = itertools.product((P4, P4M), [(16, 8)], (8,), (6,), (4, 32))
    return [Case(*case, stride=2, transposed=True) for case in (*fours, *sixes)]


def transposed_held_out(count: int = 24) -> list[Case]:
    draw = random.Random(4)
    return [
        Case(
            draw.choice([P2, P4, P4M]),
            (draw.choice([3, 6, 11, 12, 16, 24]), draw.choice([2, 3, 6, 11, 12, 16, 24])),
            draw.choice([4, 6, 8, 10, 12, 16]),
            draw.choice([4, 4, 6]),
            draw.choice([1, 2, 4, 8, 16, 32, 64]),
            stride=2,
            transposed=True,
        )
        for _ in range(count)
    ]


def whole() -> list[Case]:
    """The last layer of a discriminator: maps as large as the window."""
    fields = [(8, 8), (16, 32), (32, 16)]
    sevens = itertools.product(GROUPS, fields, (7,), (1, 8, 64))
    fours = itertools.product((P4, P4M), [(16, 16), (64, 8)], (4,), (4, 32, 128))
    return [Case(g, pair, side, side, batch, whole=True) for g, pair, side, batch in (*sevens, *fours)]


def whole_held_out(count: int = 24) -> list[Case]:
    draw = random.Random(6)
    found = []
    for _ in range(count):
        side = draw.choice([3, 4, 5, 6, 7, 7, 8])
        fields = draw.choice([3, 6, 11, 23, 32, 48]), draw.choice([3, 6, 11, 12, 23, 32])
        batch = draw.choice([1, 2, 4, 8, 16, 32, 64, 128])
        found.append(Case(draw.choice([P2, P4, P4M]), fields, side, side, batch, whole=True))
    return found


def quotients() -> list[Case]:
    """After a pool over the cosets of a subgroup, by each of the square lattice's."""
    pairs = [(P4, P2), (P4M, P4), (P4M, P2MM), (P4M, P2), (P4M, PM), (P2MM, P2), (P2MM, PM)]
    threes = itertools.product(pairs, [(4, 8), (16, 32), (32, 8)], (28, 10), (3,), (1, 8))
    fives = itertools.product(pairs, [(8, 16)], (14,), (5,), (64,))
    return [Case(g, fields, *how, subgroup=h) for (g, h), fields, *how in (*threes, *fives)]


def quotients_held_out(count: int = 24) -> list[Case]:
    draw = random.Random(8)
    found = []
    for _ in range(count):
        group, subgroup = draw.choice([(P4, P2), (P4M, P4), (P4M, P2), (P4M, PM), (P2MM, PM)])
        fields = draw.choice([2, 3, 6, 11, 16, 24]), draw.choice([3, 6, 11, 12, 16, 24])
        side, size = draw.choice([6, 8, 12, 16, 20, 32]), draw.choice([3, 3, 4, 5])
        found.append(Case(group, fields, side, size, draw.choice([1, 2, 4, 16, 32, 64]), subgroup=subgroup))
    return found


def gpu() -> list[Case]:
    """64 to 256 channels, where a GPU has enough to do."""
    channels = [(64, 64), (128, 128), (256, 256)]
    sizes = itertools.product((P4, P4M), channels, (32, 64, 128))
    return [
        Case(g, (a // g.order, b // g.order), side, 3, 64 if side < 128 else 16) for g, (a, b), side in sizes
    ]


ON_CPU = {
    "gates": (gates, 31),
    "grid": (grid, 15),
    "held_out": (held_out, 15),
    "mirrors_held_out": (mirrors_held_out, 9),
    "lifting": (lifting, 9),
    "lifting_held_out": (lifting_held_out, 9),
    "strided": (strided, 9),
    "strided_held_out": (strided_held_out, 9),
    "strided_lifting": (strided_lifting, 9),
    "strided_lifting_held_out": (strided_lifting_held_out, 9),
    "quotient": (quotients, 9),
    "quotient_held_out": (quotients_held_out, 9),
    "whole": (whole, 9),
    "whole_held_out": (whole_held_out, 9),
    "transposed": (transposed, 9),
    "transposed_held_out": (transposed_held_out, 9),
}
PARTS = {**ON_CPU, "gpu": (gpu, 31)}


def quick() -> list[Case]:
    cases = [(P4, (8, 16), 14, 3, 2), (P4M, (4, 8), 14, 3, 2), (P4, (2, 2), 7, 3, 1)]
    return [
        *(Case(*case) for case in cases),
        Case(P4, (1, 8), 14, 3, 2, lifting=True),
        Case(P4, (1, 8), 14, 4, 2, lifting=True, stride=2),
        Case(P4, (2, 4), 14, 4, 2, stride=2),
        Case(P4, (4, 2), 7, 4, 2, stride=2, transposed=True),
        Case(P4, (4, 2), 4, 4, 2, whole=True),
        Case(P4, (4, 2), 7, 3, 2, subgroup=P2),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", nargs="+", choices=PARTS)
    parser.add_argument("--kinds", nargs="+", choices=LIFTING_KINDS, default=list(LIFTING_KINDS))
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--again", action="store_true", help="forget what the file holds of these parts")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    on_cpu = options.device == "cpu"
    options.only = options.only or (list(ON_CPU) if on_cpu else ["gpu"])
    options.out = options.out or (RESULTS if on_cpu else RESULTS_GPU)
    keep_freed_memory()
    started = time.monotonic()
    result: dict[str, Any] = json.loads(options.out.read_text()) if options.out.is_file() else {"cases": []}
    if options.again:
        result["cases"] = [case for case in result["cases"] if case["part"] not in options.only]
    about = {"program": "benchmarks/fast_conv.py", "isa": instruction_set(), "versions": versions()}
    for name, here, there in (
        ("instructions", about["isa"], result.get("isa")),
        ("processor", about["versions"]["hardware"], result.get("versions", {}).get("hardware")),
    ):
        if result["cases"] and here != there:
            parser.error(
                f"{options.out} is of another {name}, {there}, than this, {here}: give another --out"
            )
    result = {**result, **about}
    for part in ["quick"] if options.quick else options.only:
        made, rounds = (quick, 5) if options.quick else PARTS[part]
        for case in made():
            if time.monotonic() - started > 60 * options.minutes:
                print("stopped; call again to go on")
                return
            known = place_for(result["cases"], {"part": part, **case.name})
            missing = tuple(kind for kind in case.layer.kinds if kind in options.kinds and kind not in known)
            if missing:
                known |= {"rounds": options.rounds or rounds, "torch": torch.__version__}
                known |= measure(case, missing, known["rounds"], options.device)
                ratios = (known[kind]["ratio_of_least"] for kind in missing)
                print(part, case[0], *case[1:], *ratios, flush=True)
                write_cases(options.out, result)


def write_cases(path: Path, result: dict[str, Any]) -> None:
    """A case a line."""
    cases = ",\n  ".join(map(json.dumps, result["cases"]))
    rest = json.dumps({name: value for name, value in result.items() if name != "cases"}, indent=1)
    with atomic_write(path) as temporary:
        temporary.write_text(f'{rest[:-2]},\n "cases": [\n  {cases}\n ]\n}}\n')


def place_for(cases: list[dict[str, Any]], name: dict[str, Any]) -> dict[str, Any]:
    """The case of this name, with what is known of it."""
    known = next((case for case in cases if name.items() <= case.items()), None)
    if known is None:
        cases.append(known := dict(name))
    return known


if __name__ == "__main__":
    main()
