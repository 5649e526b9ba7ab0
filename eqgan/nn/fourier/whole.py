"""A window as large as its map, as a group convolution of one cell whose sites are the items of a batch."""

from dataclasses import dataclass

import torch
from torch import Tensor

from eqgan.nn.fourier.choice import KINDS, NEVER, Layer, least_sites
from eqgan.nn.fourier.operator import flat_generators
from eqgan.nn.fourier.permuted import Permutation
from eqgan.nn.fourier.tables import Blocks, block_tables

_WIDTHS = 16, 8, 4  # of vectors: rows are what threads share


@dataclass(frozen=True)
class WholeMap:
    """What a window of k x k does with a map of k x k, without padding: one output site an item.

    Such a map is a block (``BlockTables``), k^2 regular fields of one site for each field of the map, and the
    window is one of a single cell on them. What an engine takes for the sites of a row are here the items of
    the batch, so that it has rows to read.
    """

    generators: list[int]
    channels: Permutation  # of the block: which number of a map each holds
    size: int
    least_items: dict[str, int]  # of a batch from which on it is taken, for each of ``choice.KINDS``

    @classmethod
    def of(cls, layer: Layer) -> "WholeMap | None":
        """None for a layer that never takes it."""
        group, size, fields_in, *_ = layer
        least = {kind: least_sites(kind, layer._replace(whole=True)) for kind in KINDS}
        if min(least.values()) == NEVER:
            return None
        tables = block_tables(group, size)
        plane, row, column = torch.from_numpy(tables.source.astype("int64")).T
        of_field = ((plane * size + row) * size + column).unflatten(0, (-1, 1, group.order))
        channels = torch.arange(fields_in)[:, None] * of_field.numel() + of_field
        return cls(flat_generators(group), Permutation.of(channels.flatten()), size, least)

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """x (batch, in * order, k, k) to (batch, out * order, 1, 1)."""
        how = self.generators, 1, 0, 1, *self.blocks
        return _items(torch.ops.eqgan.group_conv2d(self._row(x), weight, bias, *how))

    def apply_packed(self, x: Tensor, packed: Tensor, bias: Tensor | None, fields: int) -> Tensor:
        """The same without gradients, for a filter that was packed as one of ``blocks``."""
        how = self.generators, 1, 0, fields
        return _items(torch.ops.eqgan.group_conv2d_packed(self._row(x), packed, bias, *how))

    @property
    def blocks(self) -> Blocks:
        return Blocks(self.size, 1)

    def _row(self, x: Tensor) -> Tensor:
        """One map, (1, channels of the blocks, rows, batch / rows), of as many rows as fill vectors."""
        rows = next((len(x) // width for width in _WIDTHS if len(x) % width == 0), 1)
        return self.channels(x.flatten(1).t().contiguous(), 0).unflatten(1, (rows, -1))[None]


def _items(row: Tensor) -> Tensor:
    return row[0].flatten(1).t()[:, :, None, None]
