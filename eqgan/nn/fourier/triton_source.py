"""The same algorithm as source/kernel.cpp for a GPU: a module of Triton kernels, generated from the algebra.

A program takes a tile of output sites. For rows of (cell, field) it reads the co-rotated patches,
transforms them, and multiplies on tensor cores; nothing but the result is written. Packed filters and their
gradients are (entries of the irreps, cells * fields in, fields out), rows cell by cell.
"""

import re
from collections.abc import Iterable, Iterator

import numpy as np

from eqgan.groups.fourier import FloatArray, GroupFourier
from eqgan.nn.fourier.emit import straight_line

_HEADER = """
import triton
import triton.language as tl


# What one element reads of its plane: (sites, rows of the filter), zero outside the map.
@triton.jit
def plane(base, shift, cell, g: tl.constexpr, row, column, there, inside, height, width,
          CELLS: tl.constexpr):
    at = shift + 2 * (g * CELLS + cell)
    r = row[:, None] + tl.load(at, mask=inside, other=0)[None, :]
    c = column[:, None] + tl.load(at + 1, mask=inside, other=0)[None, :]
    mask = there[:, None] & inside[None, :] & (r >= 0) & (r < height) & (c >= 0) & (c < width)
    return tl.load(base + g * height * width + r * width + c, mask=mask, other=0).to(tl.float32)
"""

_PRODUCTS = """
@triton.jit
def products(x, w, bias, out, shift, batch, fields_in, fields_out, height, width, out_height, out_width,
             padding, CELLS: tl.constexpr, HAS_BIAS: tl.constexpr, PRECISION: tl.constexpr,
             TYPE: tl.constexpr,
             X: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    site = tl.program_id(0).to(tl.int64) * X + tl.arange(0, X)
    n = tl.program_id(1) * N + tl.arange(0, N)
    area = out_height * out_width
    there, known = site < batch * area, n < fields_out
    image = site // area
    row = (site % area) // out_width - padding
    column = site % out_width - padding
    rows = CELLS * fields_in
    {zeros}
    for start in range(0, rows, K):
        k = start + tl.arange(0, K)
        inside = k < rows
        cell, field = k // fields_in, k % fields_in
        base = x + (image[:, None] * fields_in + field[None, :]) * ({order} * height * width)
        {planes}
        {features} = analysis({patches})
        at = w + k[:, None] * fields_out + n[None, :]
        mask = inside[:, None] & known[None, :]
        {multiply}
    {values} = synthesis({sums})
    if HAS_BIAS:
        b = tl.load(bias + n, mask=known, other=0)[None, :]
        {add_bias}
    at = out + (image[:, None] * fields_out + n[None, :]) * ({order} * area) + (site % area)[:, None]
    mask = there[:, None] & known[None, :]
    {store}
"""

_CORRELATIONS = """
@triton.jit
def correlations(x, plain, out, shift, batch, fields_in, fields_out, height, width, out_height, out_width,
                 padding, sites_each, CELLS: tl.constexpr, PRECISION: tl.constexpr, TYPE: tl.constexpr,
                 X: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    k = tl.program_id(0) * K + tl.arange(0, K)
    n = tl.program_id(1) * N + tl.arange(0, N)
    split = tl.program_id(2).to(tl.int64)
    area, rows = out_height * out_width, CELLS * fields_in
    inside, known = k < rows, n < fields_out
    cell, field = k // fields_in, k % fields_in
    {zeros}
    for start in range(0, sites_each, X):
        site = split * sites_each + start + tl.arange(0, X)
        there = site < batch * area
        image = site // area
        row = (site % area) // out_width - padding
        column = site % out_width - padding
        base = x + (image[:, None] * fields_in + field[None, :]) * ({order} * height * width)
        {planes}
        {features} = analysis({patches})
        at = plain + (image[:, None] * fields_out + n[None, :]) * ({order} * area) + (site % area)[:, None]
        mask = there[:, None] & known[None, :]
        {plain}
        {plain_features} = analysis({plains})
        {multiply}
    at = out + (split * {entries} * rows + k[:, None]) * fields_out + n[None, :]
    mask = inside[:, None] & known[None, :]
    {store}
"""


def module_text(transform: GroupFourier) -> str:
    """Source of the module with the kernels ``products`` and ``correlations`` of this group."""
    order = transform.order
    entries = sum(irrep.dim**2 for irrep in transform.irreps)
    common = {
        "order": str(order),
        "entries": str(entries),
        "planes": _lines(8, (_plane(g) for g in range(order))),
        "patches": _names("x", order),
        "features": _names("f", order),
    }
    products = {
        "zeros": _lines(4, (f"s{i} = tl.zeros([X, N], tl.float32)" for i in range(order))),
        "multiply": _lines(8, _filter_products(transform)),
        "values": _names("y", order),
        "sums": _names("s", order),
        "add_bias": _lines(8, (f"y{g} += b" for g in range(order))),
        "store": _lines(4, (f"tl.store(at + {g} * area, y{g}, mask=mask)" for g in range(order))),
    }
    correlations = {
        "zeros": _lines(4, (f"s{e} = tl.zeros([K, N], tl.float32)" for e in range(entries))),
        "plain": _lines(8, (_plain(g) for g in range(order))),
        "plains": _names("p", order),
        "plain_features": _names("z", order),
        "multiply": _lines(8, _gradient_products(transform)),
        "store": _lines(
            4, (f"tl.store(at + {e} * rows * fields_out, s{e}, mask=mask)" for e in range(entries))
        ),
    }
    return "\n".join(
        [
            _HEADER,
            _function("analysis", transform.analysis),
            _function("synthesis", transform.analysis.T),
            _PRODUCTS.format(**common, **products),
            _CORRELATIONS.format(**common, **correlations),
        ]
    )


def _names(letter: str, count: int) -> str:
    return ", ".join(f"{letter}{i}" for i in range(count))


def _lines(indent: int, lines: Iterable[str]) -> str:
    return ("\n" + " " * indent).join(lines)


def _plane(g: int) -> str:
    return f"x{g} = plane(base, shift, cell, {g}, row, column, there, inside, height, width, CELLS)"


def _plain(g: int) -> str:
    return f"p{g} = tl.load(at + {g} * area, mask=mask, other=0).to(tl.float32)"


def _function(name: str, matrix: FloatArray) -> str:
    """The straight-line code as a function of Triton, its arrays as single names."""
    lines = [re.sub(r"(\d)f \*", r"\1 *", line.replace("const V ", "")) for line in straight_line(matrix)]
    body = [re.sub(r"([xy])\[(\d+)\]", r"\1\2", line.rstrip(";")) for line in lines]
    rows, columns = matrix.shape
    return "\n".join(
        [
            "@triton.jit",
            f"def {name}({_names('x', columns)}):",
            *(f"    {line}" for line in [*body, f"return {_names('y', rows)}"]),
            "",
        ]
    )


def _entries(transform: GroupFourier) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Each entry (row, column) of each irrep, with the features and products that it joins in each copy."""
    entry = first = 0
    for irrep in transform.irreps:
        for row, column in np.ndindex(irrep.dim, irrep.dim):
            starts = [first + copy * irrep.dim for copy in range(irrep.copies)]
            yield entry, [(start + row, start + column) for start in starts]
            entry += 1
        first += irrep.copies * irrep.dim


def _filter_products(transform: GroupFourier) -> Iterator[str]:
    for entry, joined in _entries(transform):
        yield f"block = tl.load(at + {entry} * rows * fields_out, mask=mask, other=0).to(TYPE)"
        for feature, product in joined:
            terms = f"f{feature}.to(TYPE), block, s{product}"
            yield f"s{product} = tl.dot({terms}, input_precision=PRECISION)"


def _gradient_products(transform: GroupFourier) -> Iterator[str]:
    for entry, joined in _entries(transform):
        for feature, product in joined:
            terms = f"tl.trans(f{feature}).to(TYPE), z{product}.to(TYPE), s{entry}"
            yield f"s{entry} = tl.dot({terms}, input_precision=PRECISION)"
