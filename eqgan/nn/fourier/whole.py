"""A window as large as its map, as a group convolution of one cell whose sites are the items of a batch."""

from dataclasses import dataclass

import torch
from torch import Tensor

from eqgan.nn.fourier.choice import KINDS, NEVER, Layer, least_sites
from eqgan.nn.fourier.native import After
from eqgan.nn.fourier.window import Window, flat_generators

_WIDTHS = 16, 8, 4  # of vectors: rows are what threads share


@dataclass(frozen=True)
class WholeMap:
    """What a window of k x k does with a map of k x k, without padding: one output site an item.

    Such a map is a block (``BlockTables``), k^2 regular fields of one site for each field of the map, and the
    window is one of a single cell on them. What an engine takes for the sites of a row are here the items of
    the batch, so that it has rows to read.
    """

    window: Window
    least_items: dict[str, int]  # of a batch from which on it is taken, for each of ``choice.KINDS``

    @classmethod
    def of(cls, layer: Layer) -> "WholeMap | None":
        """None for a layer that never takes it."""
        group, size, *_ = layer
        least = {kind: least_sites(kind, layer._replace(whole=True)) for kind in KINDS}
        if min(least.values()) == NEVER:
            return None
        return cls(Window(flat_generators(group), size, 0, size, cut=True), least)

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """x (batch, in * order, k, k) to (batch, out * order, 1, 1)."""
        return _items(torch.ops.eqgan.group_conv2d(_row(x), weight, bias, *self.window))

    def apply_packed(
        self, x: Tensor, packed: Tensor, bias: Tensor | None, fields: int, after: After
    ) -> Tensor:
        """Without gradients, and what follows, for a filter that was packed as one of ``window``."""
        operator = torch.ops.eqgan.group_conv2d_packed
        return _items(operator(_row(x), packed, bias, fields, *self.window, **after._asdict()))


def _row(x: Tensor) -> Tensor:
    """One map, (1, in * order * k^2, rows, batch / rows), of as many rows as fill vectors."""
    rows = next((len(x) // width for width in _WIDTHS if len(x) % width == 0), 1)
    return x.flatten(1).t().unflatten(1, (rows, -1))[None]


def _items(row: Tensor) -> Tensor:
    return row[0].flatten(1).t()[:, :, None, None]
