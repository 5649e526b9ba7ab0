"""Group convolution by the compiled code of one group, on plain CPU tensors."""

import ctypes
from functools import cache

import torch
from torch import Tensor

from eqgan.groups import PointGroup
from eqgan.groups.fourier import group_fourier
from eqgan.nn.fourier.build import load
from eqgan.nn.fourier.emit import group_header
from eqgan.nn.fourier.native import (
    NOTHING,
    NOTHING_MORE,
    OTHER,
    PATCHED,
    SIZES,
    After,
    Filter,
    Native,
    Task,
    address,
    bias_gradient,
    which_are_bfloat16,
)
from eqgan.nn.fourier.tables import (
    PLAIN,
    Form,
    layout,
    packed_entries,
    sites_of_block,
)

_WEIGHTS = 16_384  # at least, of a filter that is packed in parts
_POSITIONS = 224  # at most in a block: its features stay in the second level of cache


class Engine(Native):
    """Group convolution from regular fields, or fields on cosets, to regular ones, on contiguous CPU tensors.

    Maps are float32 or bfloat16, filters, biases and the filters' gradients float32. The stride is 1, or that
    of a ``Form``, whose maps are of whole blocks (``is_of_whole_blocks``).
    """

    # ---- the three operations ------------------------------------------------------------------------------

    def forward(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        size: int,
        padding: int,
        form: Form = PLAIN,
    ) -> Tensor:
        """x (batch, in * planes, h, w), weight (out, in, planes * size^2), bias (out) or None.

        A regular field has ``order`` planes, one on G/H ``order / |H|``.
        """
        packed = self.pack(weight, size, form)
        return self.forward_packed(x, packed, bias, len(weight), size, padding, form)

    def forward_packed(
        self,
        x: Tensor,
        packed: Tensor,
        bias: Tensor | None,
        fields: int,
        size: int,
        padding: int,
        form: Form = PLAIN,
        after: After = NOTHING_MORE,
    ) -> Tensor:
        """For a filter that was packed, and what follows; no pool of a transposed layer."""
        after.require_sense(self.group.order)
        if after.pool and form.of_output:
            raise ValueError("expected no pool after a transposed convolution, which writes block by block")
        sides = (form.output_side(side, size, padding) for side in x.shape[2:])
        out = x.new_empty(len(x), fields * (after.planes or self.group.order), *sides)
        if bias is not None:
            bias = bias.repeat(form.sites[1]) if form.of_output else bias.contiguous()
        pads = form.padding(size, padding), padding
        tensors = {"filter": packed.contiguous(), "bias": bias, "out": out}
        self._run(x, out, size, pads, form, tensors, after=after)
        return out

    def backward(
        self,
        out_gradient: Tensor,
        x: Tensor,
        weight: Tensor,
        size: int,
        padding: int,
        need: tuple[bool, bool, bool],
        form: Form = PLAIN,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of x, of the weight and of the bias, of those that are needed (else empty tensors)."""
        nothing, cells, ahead = weight.new_empty(0), size // form.side, form.padding(size, padding)
        x_gradient, own, sums = torch.empty_like(x) if need[0] else nothing, nothing, None
        of_x, of_weight, of_bias = need
        alone = not of_x and weight.shape[1] * form.sites[0] <= len(weight) * form.sites[1]
        # of one cell there is no neighbourhood that both could take from
        if of_weight and (cells == 1 or alone):
            maps: dict[str, Tensor | None] = {"plain": out_gradient}
            packed, sums = self._run(x, out_gradient, size, (ahead, padding), form, maps, of_sums=of_bias)
            own, of_weight = self._unpack(packed, weight, size, form, transposed=False), False
        if of_x or of_weight:
            tensors: dict[str, Tensor | None] = {"plain": x} if of_weight else {}
            if of_x:
                tensors |= {"filter": self.pack(weight, size, form, transposed=True), "out": x_gradient}
            pads, of_sums = (cells - 1 - ahead, padding), of_bias and sums is None
            packed, found = self._run(out_gradient, x, size, pads, form, tensors, back=True, of_sums=of_sums)
            sums = found if sums is None else sums
            if of_weight:
                own = self._unpack(packed, weight, size, form, transposed=True)
        if not of_bias:
            return x_gradient, own, nothing
        if sums is None:
            return x_gradient, own, bias_gradient(out_gradient, weight)
        return x_gradient, own, sums.view(-1, len(weight)).sum(0, dtype=torch.float32)

    def packed_size(self, fields_in: int, fields_out: int, size: int, form: Form) -> int:
        """Numbers in a packed filter."""
        sites, cells = form.sites, layout(self.group, size, form, False).cells
        return int(self.library.packed_size(self.isa, fields_in * sites[0], fields_out * sites[1], cells))

    # ---- filters -------------------------------------------------------------------------------------------

    def pack(self, weight: Tensor, size: int, form: Form = PLAIN, transposed: bool = False) -> Tensor:
        """The filter's blocks, in the order in which they are multiplied."""
        weight = weight.contiguous()
        filter = self._filter(weight, size, form, transposed)
        floats = self.library.packed_size(self.isa, filter.fields_in, filter.other, filter.cells)
        packed = weight.new_empty(floats)
        filter.packed = packed.data_ptr()
        self.library.pack(self.isa, ctypes.byref(filter), _slices_of(weight), self.team)
        return packed

    def _unpack(self, packed: Tensor, like: Tensor, size: int, form: Form, transposed: bool) -> Tensor:
        weight = torch.empty(like.shape, dtype=torch.float32)  # whatever torch's default is
        filter = self._filter(weight, size, form, transposed)
        filter.packed, filter.gradients = packed.data_ptr(), len(packed)
        self.library.unpack(self.isa, ctypes.byref(filter), _slices_of(weight), self.team)
        return weight

    def _filter(self, weight: Tensor, size: int, form: Form, transposed: bool) -> Filter:
        fields_out, fields_in, entries = weight.shape
        sides = list(zip((fields_in, fields_out), (entries, fields_in * entries), form.sites))
        (n_in, in_stride, in_sites), (other, other_stride, other_sites) = sides[::-1] if transposed else sides
        return Filter(
            weight=weight.data_ptr(),
            entry=packed_entries(self.group, size, form, transposed).ctypes.data,
            fields_in=n_in * in_sites,
            other=other * other_sites,
            layer_in=n_in,
            layer_other=other,
            in_stride=in_stride,
            other_stride=other_stride,
            cells=layout(self.group, size, form, transposed).cells,
        )

    # ---- a pass --------------------------------------------------------------------------------------------

    def _run(
        self,
        patched: Tensor,
        other: Tensor,
        size: int,
        pads: tuple[int, int],
        form: Form,
        tensors: dict[str, Tensor | None],
        back: bool = False,
        after: After = NOTHING_MORE,
        of_sums: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Runs source/engine.h's task.

        Returns:
            The packed filter gradient, in parts that are its summands (slices, floats), empty if none was
            asked for; and so the sums of the output's gradient over planes and sites (slices, fields), None
            if they were not asked for or no one cell sees all of it.

        Args:
            patched, other: maps of both sides; ``other`` says how large out and plain are.
            pads: padding of the convolution of stride 1, and of the layer.
            tensors: filter, bias, out, plain.
            back: patched is the gradient of the output.
            after: what follows, of out.
            of_sums: of the gradient of the output, which is patched or plain.
        """
        blocked = NOTHING
        if form.side > 1:
            blocked = PATCHED if back == form.of_output else OTHER
        found = layout(self.group, size, form, back)
        planes = found.planes[0], after.planes or found.planes[1]
        fields_in, height, width = _fields_and_sides(patched, planes[0], form, pads[1], blocked == PATCHED)
        fields, out_height, out_width = _fields_and_sides(other, planes[1], form, pads[1], blocked == OTHER)
        batch = len(patched)
        rows = _rows_in_block(batch * out_height, out_width, self.lanes)
        slices = max(1, min(torch.get_num_threads(), -(-batch * out_height // rows)))
        gradient = torch.empty(0, 0, dtype=torch.float32)
        if tensors.get("plain") is not None:
            floats = self.library.gradient_size(self.isa, fields_in, fields, found.cells)
            gradient = torch.zeros(slices, floats, dtype=torch.float32)
        sums = None
        if of_sums and (not back or (blocked != PATCHED and pads[0] >= size // form.side // 2)):
            sums = torch.zeros(slices, fields_in if back else fields, dtype=torch.float64)
        if batch and out_height and out_width:
            numbers = (batch, fields_in, fields, height, width, out_height, out_width)
            maps = patched, tensors.get("out"), tensors.get("plain")
            map_height, map_width = (patched if blocked == PATCHED else other).shape[2:]
            task = Task(
                **found.told | after.told(),
                **{name: address(tensor) for name, tensor in tensors.items()},
                filter_gradient=gradient.data_ptr(),
                patched=patched.data_ptr(),
                **dict(zip(SIZES, numbers)),
                **{"padding": pads[0], "rows": rows, "slices": slices},
                bfloat16=which_are_bfloat16(*maps),
                **{"blocked": blocked, "map_height": map_height, "map_width": map_width},
                map_padding=pads[1],
                sums=address(sums),
            )
            self.execute(task)
        elif (out := tensors.get("out")) is not None:
            out.zero_()
        return gradient, sums


def _fields_and_sides(
    maps: Tensor, planes: int, form: Form, padding: int, blocked: bool
) -> tuple[int, int, int]:
    _, channels, height, width = maps.shape
    fields = channels // planes
    if not blocked or form.cut:
        return fields, height, width
    height, width = ((side + 2 * padding) // form.side for side in (height, width))
    return fields * form.side**2, height, width


def is_of_whole_blocks(x: Tensor, size: int, padding: int, form: Form) -> bool:
    """Whether the engine takes maps and window in these blocks: both are made of whole ones."""
    if form.side == 1 or form.cut:
        return True
    whole = form.of_output or all((side + 2 * padding) % form.side == 0 for side in x.shape[2:])
    return whole and sites_of_block(size, form.side) is not None


def _slices_of(weight: Tensor) -> int:
    """Parts that threads pack; of a small filter waking them takes as long."""
    return max(1, min(torch.get_num_threads(), weight.numel() // _WEIGHTS))


@cache
def _rows_in_block(rows: int, width: int, lanes: int) -> int:
    """As many output rows as fill the vectors best."""

    def filled(count: int) -> float:
        return count * width / (-(-count * width // lanes) * lanes)

    most = max(1, min(rows, _POSITIONS // max(width, 1)))
    return max(range(max(1, most // 2), most + 1), key=lambda count: (round(filled(count), 2), count))


@cache
def engine(group: PointGroup) -> Engine | None:
    """The engine of this group, compiled at the first call; None where it cannot be."""
    library = load(group_header(group_fourier(group)))
    return None if library is None else Engine(group, library)
