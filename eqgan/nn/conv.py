"""Group convolution: a gather of the base filter, then one ordinary convolution."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from eqgan.groups import FieldType, intertwiner_index
from eqgan.nn.eager import is_ordinary_call
from eqgan.nn.fourier import FourierPath
from eqgan.nn.fourier.native import After
from eqgan.nn.geometry import check_channels, output_size
from eqgan.nn.kept import Kept, renewed
from eqgan.nn.pooling import CosetPool
from eqgan.nn.spectral import SPECTRAL_KINDS, OperatorNorm, SpectralKind, SpectralNorm

SMALL = 8192
"""Entries up to which the time of a gather is that of starting its operations."""


class GroupConv2d(nn.Module):
    """Equivariant convolution between fields of any two permutation types on the square lattice.

    For regular fields, with y over the window and t over the group,

        out[s](x) = sum_y sum_t w[s^-1 t](s^-1 (y - x)) in[t](y);

    in general the bank is constant on the orbits of G on (out fiber x in fiber x window), which is the full
    space of equivariant filters. Only one weight an orbit is stored.

    Args:
        in_type, out_type: field types of one plane group.
        kernel_size: side of the window, odd or even.
        stride, padding: as in ``nn.Conv2d``; a stride that would drop rows is refused (``nn.geometry``).
            ``padding="same"`` keeps the size, for odd kernels.
        bias: one number a field.
        spectral: ``"filter"`` divides by the norm of the stored filter, ``"bank"`` by that of the expanded
            bank as a matrix, ``"operator"`` by that of the convolution on ``input_size`` maps; None divides
            by nothing.
        input_size: side of the maps, needed by ``"operator"``; when given, exactness is checked at once.
        gain: standard deviation of an output value when the inputs are independent with variance one.

    Shape:
        (batch, in_type.channels, height, width) to (batch, out_type.channels, height', width').

    Raises:
        ValueError: for types of different groups, or a size that breaks the symmetry.

    References:
        Cohen & Welling, arXiv:1602.07576, equations 10 and 11; other types: Cohen et al., arXiv:1811.02017.

    Example:
        >>> from eqgan.groups import P4, regular
        >>> GroupConv2d(regular(P4, 2), regular(P4, 5), kernel_size=3)
        GroupConv2d(2 x p4 regular -> 5 x p4 regular, kernel_size=3, stride=1, padding=0)
    """

    index: Tensor
    field_of_channel: Tensor

    def __init__(
        self,
        in_type: FieldType,
        out_type: FieldType,
        kernel_size: int,
        stride: int = 1,
        padding: int | str = 0,
        bias: bool = True,
        spectral: SpectralKind | None = None,
        input_size: int | None = None,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        _check_arguments(in_type, out_type, kernel_size, stride, padding, spectral)
        self.in_type, self.out_type = in_type, out_type
        self.kernel_size, self.stride = kernel_size, stride
        self.padding = kernel_size // 2 if isinstance(padding, str) else padding
        self.spectral = spectral
        table, self.orbits = intertwiner_index(out_type.representation, in_type.representation, kernel_size)
        self.register_buffer("index", self._gather_table(torch.tensor(table)), persistent=False)
        self.weight = nn.Parameter(torch.empty(out_type.multiplicity, in_type.multiplicity, self.orbits))
        self.bias = nn.Parameter(torch.empty(out_type.multiplicity)) if bias else None
        fields = torch.arange(out_type.multiplicity).repeat_interleave(out_type.dim)
        self.register_buffer("field_of_channel", fields, persistent=False)
        self.gain = gain
        self.reset_parameters()
        if input_size is not None:
            self.output_size(input_size)
        self.norm = self._make_norm(input_size)
        self._cache: Kept | None = None
        self._packed: dict[bool, Kept] = {}  # for maps as large as the window, and for others
        self._fourier = self._make_path()

    def _make_path(self) -> FourierPath | None:
        return FourierPath.of(self.in_type, self.out_type, self.kernel_size, self.stride, self.padding)

    def _gather_table(self, table: Tensor) -> Tensor:
        """Position in the flattened weight of each entry of the bank."""
        n_out, n_in = self.out_type.multiplicity, self.in_type.multiplicity
        pair = torch.arange(n_out * n_in).view(n_out, 1, n_in, 1, 1) * self.orbits
        entries = pair + table[None, :, None]
        return entries.view(self.out_type.channels, self.in_type.channels, *[self.kernel_size] * 2)

    def _make_norm(self, input_size: int | None) -> SpectralNorm | OperatorNorm | None:
        norm: SpectralNorm | OperatorNorm
        if self.spectral is None:
            return None
        if self.spectral == "operator":
            if input_size is None:
                raise ValueError("spectral='operator' is the norm on maps of one size: give input_size")
            shape = (self.in_type.channels, input_size, input_size)
            norm = OperatorNorm(shape, self.stride, self.padding)
        else:
            norm = SpectralNorm(*self._normed().shape)
        with torch.no_grad():
            norm.iterate(self._normed(), 15)
        return norm

    def _normed(self) -> Tensor:
        """Whose norm is taken."""
        if self.spectral == "operator":
            return self.expand(self.weight)
        return (self.weight if self.spectral == "filter" else self.expand(self.weight)).flatten(1)

    @torch.no_grad()
    def iterate_norm(self, steps: int = 1) -> None:
        """Steps of the power iteration, as training passes make them; none without a norm."""
        if self.norm is not None:
            self.norm.iterate(self._normed(), steps)

    def reset_parameters(self) -> None:
        """Normal weights that give the *bank* (not the base filter) the stated gain; zero bias."""
        fan_in = self.in_type.channels * self.kernel_size**2
        nn.init.normal_(self.weight, std=self.gain * fan_in**-0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def output_size(self, size: int) -> int:
        """Side of the output for maps of this side.

        Raises:
            ValueError: if the stride would break the symmetry.
        """
        group = self.in_type.group
        return output_size(size, self.kernel_size, self.stride, self.padding, group, type(self).__name__)

    def expand(self, weight: Tensor) -> Tensor:
        """The bank, (out channels, in channels, kernel_size, kernel_size), of a base filter."""
        if self.in_type.group.order == 1:
            return weight.view_as(self.index)
        return _gather(weight, self.index)

    def filter_bank(self) -> Tensor:
        """The bank the convolution uses, normalised; kept in eval until anything it depends on changes."""
        return self._bank_and_bias()[0]

    def _bank_and_bias(self) -> tuple[Tensor, Tensor | None]:
        if self.training or not self._may_cache():
            return self._normalised_bank(), self._bias_of_channels()
        self._cache = renewed(
            self._cache, self.sources(), lambda: (self._normalised_bank(), self._bias_of_channels())
        )
        bank, bias = self._cache[1]
        return bank, bias

    def _bias_of_channels(self) -> Tensor | None:
        if self.bias is None or self.out_type.dim == 1:
            return self.bias
        return _gather(self.bias, self.field_of_channel)

    def sources(self) -> tuple[Tensor, ...]:
        """All that may change and that what is kept depends on; the index table never does."""
        parameters = (self.weight,) if self.bias is None else (self.weight, self.bias)
        return parameters if self.norm is None else (*parameters, *self.norm.buffers())

    def _may_cache(self) -> bool:
        if torch.is_grad_enabled() and (
            self.weight.requires_grad or (self.bias is not None and self.bias.requires_grad)
        ):
            return False
        # On a GPU comparing values would wait for the device, and the gather is one small kernel there.
        return self.weight.device.type == "cpu" and is_ordinary_call()

    def normalised_weight(self) -> Tensor:
        """The base filter of the normalised bank: the division is by one number."""
        return self.weight if self.norm is None else self.weight / self.norm(self._normed())

    def _filter_of_path(self) -> Tensor:
        """The base filter of what the fast path computes."""
        return self.normalised_weight()

    def _normalised_bank(self) -> Tensor:
        bank = self.expand(self.weight)
        if self.norm is None:
            return bank
        if self.spectral == "operator":
            return bank / self.norm(bank)
        return bank / self.norm((self.weight if self.spectral == "filter" else bank).flatten(1))

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch out_channels height2 width2"]:
        return self._convolved(x)

    def followed(
        self,
        x: Float[Tensor, "batch channels height width"],
        slope: float | None = None,
        pool: CosetPool | None = None,
    ) -> Float[Tensor, "batch pooled_channels height2 width2"]:
        """The layer, a rectifier with this slope below zero, and a maximum over cosets: on the fast path in
        eval without gradients at once. A slope before a pool is not negative.
        """
        return self._convolved(x, slope, pool)

    def _convolved(self, x: Tensor, slope: float | None = None, pool: CosetPool | None = None) -> Tensor:
        check_channels(x.shape[1], self.in_type, type(self).__name__)
        if self._may_refuse:
            self.output_size(x.shape[2]), self.output_size(x.shape[3])
        if self._fourier is not None and self._fourier.takes(x, self.weight):
            return self._fourier_forward(self._fourier, x, slope, pool)
        return _after(self._dense(x, *self._bank_and_bias()), slope, pool)

    @property
    def _may_refuse(self) -> bool:
        """Whether there are sizes that break the symmetry."""
        return self.stride > 1

    def _dense(self, x: Tensor, bank: Tensor, bias: Tensor | None) -> Tensor:
        if self.padding == 0 and x.shape[2:] == bank.shape[2:]:
            # One site out: a matrix product, of which convolutions take twice the time to train.
            return F.linear(x.flatten(1), bank.flatten(1), bias)[:, :, None, None]
        return F.conv2d(x, bank, bias, self.stride, self.padding)

    def _fourier_forward(
        self, path: FourierPath, x: Tensor, slope: float | None, pool: CosetPool | None
    ) -> Tensor:
        """The same numbers in fewer multiplications (docs/fast_group_convolution.md)."""
        as_it_is = path.lifting and self.norm is None  # of a small filter, comparing is what takes time
        learning = torch.is_grad_enabled() and x.requires_grad  # what lies before a frozen layer does
        followed = slope is not None or pool is not None
        if self.training or learning or (as_it_is and not followed) or not self._may_cache():
            return _after(path.apply(x, self._filter_of_path(), self.bias), slope, pool)
        after = After(slope, pool.plane_of if pool is not None and path.pools(x) else ())
        out = path.apply_packed(
            x, self.weight if as_it_is else self._packed_filter(path, x), self.bias, after
        )
        return out if pool is None or after.pool else pool(out)

    def _packed_filter(self, path: FourierPath, x: Tensor) -> Tensor:
        """Kept in eval until anything that it was made of changes."""
        whole = path.covers(x)
        kept = renewed(
            self._packed.get(whole), self.sources(), lambda: (path.pack(self._filter_of_path(), whole),)
        )
        self._packed[whole] = kept
        packed: Tensor = kept[1][0]
        return packed

    def train(self, mode: bool = True) -> "GroupConv2d":
        self._cache, self._packed = None, {}
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_cache": None, "_packed": {}}

    def extra_repr(self) -> str:
        text = f"{self.in_type} -> {self.out_type}, kernel_size={self.kernel_size}, "
        text += f"stride={self.stride}, padding={self.padding}"
        return text if self.spectral is None else f"{text}, spectral={self.spectral!r}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"


class LiftingConv2d(GroupConv2d):
    """Group convolution whose input is scalar, an image: lifts it to the group.

    Raises:
        ValueError: if ``in_type`` is not scalar.
    """

    def __init__(self, in_type: FieldType, out_type: FieldType, kernel_size: int, **options: Any) -> None:
        if not in_type.representation.is_trivial:
            raise ValueError(f"LiftingConv2d expected scalar input fields, got {in_type}; use GroupConv2d")
        super().__init__(in_type, out_type, kernel_size, **options)


def rectify_(x: Tensor, slope: float | None) -> Tensor:
    """In place, what is below zero times the slope; without one, as it is."""
    if slope is None:
        return x
    return F.leaky_relu_(x, slope) if slope else F.relu_(x)


def _after(x: Tensor, slope: float | None, pool: CosetPool | None) -> Tensor:
    """A rectifier that writes where it reads, and a pool."""
    x = rectify_(x, slope)
    return x if pool is None else pool(x)


@contextmanager
def by_filter_banks(network: nn.Module) -> Iterator[None]:
    """Within, every group convolution of the network takes its filter bank."""
    paths = {layer: layer._fourier for layer in network.modules() if isinstance(layer, GroupConv2d)}
    try:
        for layer in paths:
            layer._fourier = None
        yield
    finally:
        for layer, path in paths.items():
            layer._fourier = path


def _gather(values: Tensor, index: Tensor) -> Tensor:
    """The entries at these positions of the flattened values, in the shape of the index."""
    if index.numel() <= SMALL and values.device.type == "cpu":
        return torch.take(values, index)  # one operation; on a GPU its gradient has no deterministic form
    return values.flatten().index_select(0, index.flatten()).view_as(index)


def _check_arguments(
    in_type: FieldType, out_type: FieldType, kernel_size: int, stride: int, padding: Any, spectral: Any
) -> None:
    if in_type.group != out_type.group:
        raise ValueError(
            f"expected one group, got {in_type} in and {out_type} out; use Restrict to change it"
        )
    if in_type.group.lattice != "square":
        raise ValueError(f"expected a group of the square lattice, got {in_type.group}")
    if kernel_size < 1 or stride < 1:
        raise ValueError(f"expected kernel_size and stride of at least 1, got {kernel_size} and {stride}")
    if not isinstance(padding, str) and padding < 0:
        raise ValueError(f"expected a padding of at least 0, got {padding}; crop the maps instead")
    if isinstance(padding, str) and (padding != "same" or kernel_size % 2 == 0 or stride != 1):
        raise ValueError(
            "padding='same' needs an odd kernel and stride 1; "
            f"got padding={padding!r}, kernel_size={kernel_size}, stride={stride}. Use a number instead."
        )
    if spectral is not None and spectral not in SPECTRAL_KINDS:
        raise ValueError(f"expected spectral in {SPECTRAL_KINDS} or None, got {spectral!r}")
