"""Straight-line C++ for the transforms of a group, from its algebra: additions shared, zeros left out."""

from collections import Counter
from itertools import combinations

import numpy as np

from eqgan.groups.fourier import FloatArray, GroupFourier

Row = dict[str, float]


def group_header(transform: GroupFourier) -> str:
    """What ``source/kernel.cpp`` includes as group.h."""
    irreps = transform.irreps
    dims = [irrep.dim for irrep in irreps]
    blocks = [(number, irrep.dim) for number, irrep in enumerate(irreps) for _ in range(irrep.copies)]
    lengths = [dim for _, dim in blocks]
    first = np.cumsum([0, *lengths[:-1]]).tolist()
    trivial = int(np.flatnonzero(np.isclose(transform.analysis, 1).all(axis=1))[0])
    numbers = {
        "ORDER": transform.order,
        "IRREPS": len(irreps),
        "BLOCKS": len(blocks),
        "ENTRIES": sum(dim**2 for dim in dims),
        "TRIVIAL": trivial,
        "TRIVIAL_BLOCK": first.index(trivial),
    }
    tables = {
        "IRREP_DIM": dims,
        "BLOCK_IRREP": [number for number, _ in blocks],
        "BLOCK_DIM": lengths,
        "BLOCK_FIRST": first,
    }
    functions = {
        "analysis": transform.analysis,
        "synthesis": transform.analysis.T,
        "filter_blocks": transform.filter_matrix,
        "filter_adjoint": transform.filter_matrix.T,
    }
    lines = [f"const int {name} = {value};" for name, value in numbers.items()]
    lines += [f"const int {name}[] = {{{', '.join(map(str, table))}}};" for name, table in tables.items()]
    return "\n".join(lines + [_function(name, matrix) for name, matrix in functions.items()]) + "\n"


def _function(name: str, matrix: FloatArray) -> str:
    body = "\n".join(f"  {line}" for line in straight_line(matrix))
    return f"template <class V> INLINE void {name}(const V *x, V *y) {{\n{body}\n}}"


def straight_line(matrix: FloatArray) -> list[str]:
    """Statements that compute y = matrix x; a sum of two terms that occurs in several rows is made once.

    The pair that occurs most often goes first, until none occurs twice: six additions for C4.

    Example:
        >>> for line in straight_line(np.array([[1.0, 1.0, 2.0], [1.0, 1.0, 0.0]])):
        ...     print(line)
        const V t0 = x[0] + x[1];
        y[0] = t0 + 2.0f * x[2];
        y[1] = t0;
    """
    rows = [{f"x[{i}]": float(c) for i, c in enumerate(row) if abs(c) > 1e-12} for row in matrix]
    scales = [next(iter({abs(c) for c in row.values()})) if _uniform(row) else 1.0 for row in rows]
    rows = [{name: c / scale for name, c in row.items()} for row, scale in zip(rows, scales)]
    lines: list[str] = []
    while (best := _most_common_pair(rows)) is not None:
        first, second, ratio = best
        name = f"t{len(lines)}"
        lines.append(f"const V {name} = {_sum({first: 1.0, second: ratio})};")
        for row in rows:
            if first in row and second in row and _ratio(row, first, second) == ratio:
                row[name] = row.pop(first)
                del row[second]
    for i, (row, scale) in enumerate(zip(rows, scales)):
        total = _sum(row)
        lines.append(f"y[{i}] = {total};" if scale == 1.0 else f"y[{i}] = {scale!r}f * ({total});")
    return lines


def _uniform(row: Row) -> bool:
    return len({abs(c) for c in row.values()}) == 1


def _ratio(row: Row, first: str, second: str) -> float:
    return round(row[second] / row[first], 9)


def _most_common_pair(rows: list[Row]) -> tuple[str, str, float] | None:
    counts = Counter(
        (first, second, _ratio(row, first, second))
        for row in rows
        for first, second in combinations(sorted(row), 2)
    )
    pair, count = max(counts.items(), key=lambda item: (item[1], item[0]), default=(None, 0))
    return pair if count > 1 else None


def _sum(row: Row) -> str:
    # A positive term first, where there is one, saves a negation.
    terms = sorted(row.items(), key=lambda item: (item[1] < 0, item[0]))
    text = ""
    for name, c in terms:
        size = name if abs(c) == 1.0 else f"{abs(c)!r}f * {name}"
        text += (f" {'-' if c < 0 else '+'} " if text else ("-" if c < 0 else "")) + size
    return text
