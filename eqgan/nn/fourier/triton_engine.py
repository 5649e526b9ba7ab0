"""Group convolution on a GPU by kernels of Triton; the same three operations as engine.py."""

import functools
import hashlib
import importlib.util
import logging
import os
from collections.abc import Sequence
from functools import cache
from math import prod
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eqgan.files import atomic_write, cache_folder
from eqgan.groups import PointGroup
from eqgan.groups.fourier import group_fourier
from eqgan.nn.fourier.native import bias_gradient, output_sides
from eqgan.nn.fourier.tables import filter_tables
from eqgan.nn.fourier.triton_source import module_text

log = logging.getLogger(__name__)

_SITES_A_SPLIT = 4096  # of the filter's gradient: partial sums, added in a fixed order
_MOST_SPLITS = 65_535  # of the third dimension of CUDA's grids
# Sites, fields and rows of a tile, and warps. Few, since each is compiled; the first fits any GPU.
_TILES = {
    "products": [(32, 16, 16, 4), (64, 32, 32, 4), (64, 64, 32, 8), (128, 32, 32, 8)],
    "correlations": [(32, 16, 16, 4), (32, 32, 32, 4), (64, 32, 16, 4), (64, 32, 32, 8)],
}
_SHAPE = ("fields_in", "fields_out", "CELLS", "PRECISION")


class TritonEngine:
    """Group convolution of regular fields, stride 1, on contiguous tensors of a GPU.

    Maps are float32, bfloat16 or float16; the filter and its gradient are float32. Float32 maps are
    multiplied in TF32 where ``torch.backends.cudnn.allow_tf32`` lets convolutions do so.

    Args:
        group: the point group.
        module: what ``load_module`` made for it.
    """

    def __init__(self, group: PointGroup, module: ModuleType) -> None:
        self.group = group
        self.products = _tuned(module.products, _TILES["products"])
        self.correlations = _tuned(module.correlations, _TILES["correlations"])

    def counts(self, batch: int, in_sides: Sequence[int], out_sides: Sequence[int]) -> bool:
        """Whether the kernels can count the sites of such maps: in 32 bits, and in splits of a grid."""
        fiber = self.group.order * max(prod(in_sides), prod(out_sides))
        return fiber < 2**31 and batch * prod(out_sides) <= _SITES_A_SPLIT * _MOST_SPLITS

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None, size: int, padding: int) -> Tensor:
        """x (batch, in * order, h, w), weight (out, in, order * size^2), bias (out) or None."""
        return self._products(
            x, self.pack(weight, size), bias, size, padding, *output_sides(x, size, padding)
        )

    def backward(
        self,
        out_gradient: Tensor,
        x: Tensor,
        weight: Tensor,
        size: int,
        padding: int,
        need: tuple[bool, bool, bool],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of x, of the weight and of the bias, of those that are needed (else empty tensors)."""
        x_gradient, w_gradient = x.new_empty(0), weight.new_empty(0)
        if need[0]:
            packed = self.pack(weight, size, transposed=True)
            back = size - 1 - padding
            x_gradient = self._products(out_gradient, packed, None, size, back, *x.shape[2:]).to(x.dtype)
        if need[1]:
            w_gradient = self._correlations(x, out_gradient, weight, size, padding)
        of_bias = bias_gradient(out_gradient, weight) if need[2] else weight.new_empty(0)
        return x_gradient, w_gradient, of_bias

    # ---- filters -------------------------------------------------------------------------------------------

    def pack(self, weight: Tensor, size: int, transposed: bool = False) -> Tensor:
        """(entries of the irreps, cells * fields in, fields out), in float32."""
        weight = weight.transpose(0, 1) if transposed else weight
        matrix, entry = self._tables(weight, size, transposed)
        blocks = torch.einsum("eu,oiuc->ecio", matrix, weight.float()[:, :, entry])
        return blocks.flatten(1, 2).contiguous()

    def _unpack(self, packed: Tensor, weight: Tensor, size: int) -> Tensor:
        matrix, entry = self._tables(weight, size, False)
        fields_out, fields_in = weight.shape[:2]
        blocks = packed.view(len(packed), size * size, fields_in, fields_out)
        spread = torch.einsum("eu,ecio->oiuc", matrix, blocks).flatten(2)
        return torch.zeros_like(weight).index_copy_(2, entry.flatten(), spread.to(weight.dtype))

    def _tables(self, weight: Tensor, size: int, transposed: bool) -> tuple[Tensor, Tensor]:
        return _device_tables(self.group, size, transposed, weight.device)

    # ---- launches ------------------------------------------------------------------------------------------

    def _products(
        self, x: Tensor, packed: Tensor, bias: Tensor | None, size: int, padding: int, height: int, width: int
    ) -> Tensor:
        fields = packed.shape[2]
        out = x.new_empty(len(x), fields * self.group.order, height, width)
        sites = len(x) * height * width
        if not out.numel():
            return out
        packed = packed.to(x.dtype)
        shift = _shift(self.group, size, x.device)
        _launch(
            self.products,
            lambda tile: (_ceil(sites, tile["X"]), _ceil(fields, tile["N"])),
            *(x, packed, packed if bias is None else bias.contiguous(), out, shift),
            *(len(x), x.shape[1] // self.group.order, fields, *x.shape[2:], height, width, padding),
            CELLS=size * size,
            HAS_BIAS=bias is not None,
        )
        return out

    def _correlations(self, x: Tensor, plain: Tensor, weight: Tensor, size: int, padding: int) -> Tensor:
        fields_out, fields_in = weight.shape[:2]
        rows, sites = size * size * fields_in, len(x) * plain.shape[2] * plain.shape[3]
        splits = _ceil(max(sites, 1), _SITES_A_SPLIT)
        entries = sum(irrep.dim**2 for irrep in group_fourier(self.group).irreps)
        partial = torch.zeros(splits, entries, rows, fields_out, device=x.device, dtype=torch.float32)
        if sites:
            _launch(
                self.correlations,
                lambda tile: (_ceil(rows, tile["K"]), _ceil(fields_out, tile["N"]), splits),
                *(x, plain.to(x.dtype), partial, _shift(self.group, size, x.device)),
                *(len(x), fields_in, fields_out, *x.shape[2:], *plain.shape[2:], padding, _SITES_A_SPLIT),
                CELLS=size * size,
            )
        return self._unpack(partial.sum(0), weight, size)


def _launch(kernel: Any, grid: Any, x: Tensor, *arguments: Any, **constants: Any) -> None:
    """Of maps x, on their device: Triton would take the current one, whichever holds them."""
    with torch.cuda.device_of(x):
        kernel[grid](x, *arguments, **constants, PRECISION=_precision(x), TYPE=_multiplied_as(x.dtype))


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def _precision(x: Tensor) -> str:
    return "tf32" if x.dtype == torch.float32 and x.is_cuda and _convolutions_in_tf32() else "ieee"


def _convolutions_in_tf32() -> bool:
    """``cudnn.allow_tf32`` raises an error where recurrent layers are set otherwise."""
    convolutions = getattr(torch.backends.cudnn, "conv", None)  # from torch 2.9 on
    if convolutions is None:
        return torch.backends.cudnn.allow_tf32
    return bool(convolutions.fp32_precision == "tf32")


@cache
def _multiplied_as(dtype: torch.dtype) -> Any:
    """The type of the factors; sums are in float32. The interpreter cannot multiply bfloat16."""
    import triton.language as tl

    types = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
    return tl.float32 if interpreted() else types[dtype]


def interpreted() -> bool:
    """Whether Triton runs its kernels in Python, on the CPU: slow, and for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def _tuned(kernel: Any, tiles: list[tuple[int, int, int, int]]) -> Any:
    """Tile sizes chosen by trying them, once for each shape of layer."""
    import triton

    if interpreted():
        return _Fixed(kernel, {"X": 256, "N": 16, "K": 64})
    configs = [
        triton.Config({"X": x, "N": n, "K": k}, num_warps=warps, num_stages=2) for x, n, k, warps in tiles
    ]
    return triton.autotune(configs, key=list(_SHAPE))(kernel)


class _Fixed:
    """Launches with one tile size."""

    def __init__(self, kernel: Any, tile: dict[str, int]) -> None:
        self.kernel, self.tile = kernel, tile

    def __getitem__(self, grid: Any) -> Any:
        return functools.partial(self.kernel[grid(self.tile)], **self.tile)


@cache
def _device_tables(
    group: PointGroup, size: int, transposed: bool, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The filter's transform, and where each (element, cell) stands among the entries of a pair."""
    matrix = torch.tensor(group_fourier(group).filter_matrix, dtype=torch.float32, device=device)
    tables = filter_tables(group, size)
    entry = tables.transposed_entry if transposed else tables.entry
    return matrix, torch.tensor(np.asarray(entry, dtype=np.int64), device=device)


@cache
def _shift(group: PointGroup, size: int, device: torch.device) -> Tensor:
    return torch.tensor(filter_tables(group, size).shift, device=device)


def load_module(group: PointGroup) -> ModuleType:
    """The generated kernels: in a file, since Triton reads the source of what it compiles."""
    text = module_text(group_fourier(group))
    name = f"group_convolution_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    path = cache_folder() / "engine" / f"{name}.py"
    if not path.exists() or path.read_bytes() != text.encode():  # one that is damaged is written again
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_bytes(text.encode())
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(
            f"expected the generated kernels in {path}; remove it, and it is written again"
        )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def triton_engine(group: PointGroup) -> TritonEngine | None:
    """The kernels of this group; None, with a line in the log if it is there, where Triton does not serve."""
    if importlib.util.find_spec("triton") is None:
        return None
    try:
        return TritonEngine(group, load_module(group))
    except (ImportError, OSError, RuntimeError) as error:
        log.warning("no fast group convolution on a GPU, filter banks serve instead: %s", error)
        return None
