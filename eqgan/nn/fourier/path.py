"""Which layers take the fast group convolution, and when."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from eqgan.groups import FieldType, PointGroup
from eqgan.nn.eager import is_differentiated_by_transform, is_differentiated_forwards
from eqgan.nn.fourier.choice import NEVER, Layer, least_sites, mode
from eqgan.nn.fourier.engine import engine
from eqgan.nn.fourier.lifting import Lifting, serves
from eqgan.nn.fourier.native import NOTHING_MORE, After, output_side
from eqgan.nn.fourier.tables import sites_of_block
from eqgan.nn.fourier.triton_engine import triton_engine
from eqgan.nn.fourier.whole import WholeMap
from eqgan.nn.fourier.window import Window, flat_generators

DTYPES = {"cpu": (torch.float32, torch.bfloat16), "cuda": (torch.float32, torch.bfloat16, torch.float16)}


def _has_engine(group: PointGroup, device: str) -> bool:
    return (engine(group) if device == "cpu" else triton_engine(group)) is not None


_available: Callable[[PointGroup, str], bool] = torch.compiler.assume_constant_result(_has_engine)
_transformed: Callable[[], bool] = torch.compiler.assume_constant_result(is_differentiated_by_transform)


@dataclass(frozen=True)
class FourierPath:
    """The fast path of one layer, and from how many output sites (batch x height x width) on it is taken on a
    CPU, for each of ``Layer.kinds``. On a GPU it is taken only if forced.

    Where it cannot be taken (no compiler, another dtype or device, export, forward-mode differentiation) or
    is not known to pay, the filter bank serves the same numbers.
    """

    group: PointGroup
    generators: list[int]
    size: int
    padding: int
    stride: int
    fields: int
    least_sites: dict[str, int]
    forced: bool
    lifting: bool = False
    transposed: bool = False  # the stride is of the output: it is the transpose of a strided convolution
    whole: WholeMap | None = field(default=None, compare=False, repr=False)  # of maps as large as the window
    stabiliser: tuple[int, ...] = ()  # H of fields on G/H in; none of regular ones

    @classmethod
    def of(
        cls,
        in_type: FieldType,
        out_type: FieldType,
        size: int,
        stride: int,
        padding: int,
        transposed: bool = False,
    ) -> "FourierPath | None":
        """None for a layer that always takes the bank."""
        group, fiber = in_type.group.point_group, in_type.representation
        lifting = fiber.is_trivial
        stabiliser = () if lifting or fiber.is_regular else fiber.stabiliser
        if not out_type.representation.is_regular or group.order == 1 or (lifting and transposed):
            return None
        if stabiliser and (stride > 1 or transposed):
            return None
        if stride > 1 and not lifting and sites_of_block(size, stride) is None:
            return None
        multiplicities = in_type.multiplicity, out_type.multiplicity
        layer = Layer(group, size, *multiplicities, lifting, stride, transposed, stabiliser=stabiliser)
        least = {kind: least_sites(kind, layer) for kind in layer.kinds}
        may_cover = stride == 1 and not padding and size > 1 and not lifting and not stabiliser
        whole = WholeMap.of(layer) if may_cover else None
        if min(least.values()) == NEVER and whole is None:
            return None
        forced, fields = mode() == "fourier", out_type.multiplicity
        numbers, generators = (size, padding, stride, fields), flat_generators(group)
        return cls(group, generators, *numbers, least, forced, lifting, transposed, whole, stabiliser)

    def takes(self, x: Tensor, weight: Tensor) -> bool:
        device = x.device.type
        if x.ndim != 4 or x.device != weight.device:
            return False  # the convolution says what is wrong
        if (self.lifting or self.stabiliser) and device != "cpu":
            return False
        if device not in DTYPES or weight.dtype != torch.float32 or not (self.forced or device == "cpu"):
            return False
        if _recorded():  # before a size is compared: a recorded one may be any
            return False
        lower = torch.is_autocast_enabled(device)
        if not _dtype_serves(x, device, lower):
            return False
        if (whole := self._whole_of(x)) is not None:
            enough = x.shape[0] >= max(1, whole.least_items[self._kind(x, lower)])
            return enough and (self.forced or not _channels_last(x)) and _available(self.group, device)
        least = self.least_sites[self._kind(x, lower)]
        sides = self._side(x.shape[2]), self._side(x.shape[3])
        if min(sides) < 1:
            return False  # the convolution says what is wrong
        sites = sides[0] * sides[1]
        if x.shape[0] * sites < least:
            return False
        if self.lifting and not serves(x.shape[1] * self.size**2, self.fields * self.group.order, sites):
            return False
        window = self.size if self.lifting else self.size // self.stride
        if not self.forced and (_channels_last(x) or min(sides) < window):
            return False  # not measured; and of a window that is mostly padding, a dense one skips most
        return _available(self.group, device)

    def covers(self, x: Tensor) -> bool:
        """Whether the window is as large as the maps, which are then taken as one cell each."""
        return self._whole_of(x) is not None

    def _whole_of(self, x: Tensor) -> WholeMap | None:
        return self.whole if x.shape[2] == x.shape[3] == self.size and x.device.type == "cpu" else None

    def _kind(self, x: Tensor, lower: bool) -> str:
        training = "images" if self.lifting and x.requires_grad else "training"
        return (training if torch.is_grad_enabled() else "eval") + ("_bf16" if lower else "")

    def _side(self, length: int) -> int:
        if self.transposed:  # of the blocks
            return length + self.size // self.stride - 1
        return output_side(length, self.size, self.padding, self.stride)

    @property
    def _window(self) -> Window:
        numbers = self.size, self.padding, self.stride, self.transposed
        return Window(self.generators, *numbers, stabiliser=self.stabiliser)

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if (whole := self._whole_of(x)) is not None:
            return whole.apply(x, weight, bias)
        out: Tensor = torch.ops.eqgan.group_conv2d(x, weight, bias, *self._window)
        return out

    def pack(self, weight: Tensor, whole: bool = False) -> Tensor:
        """What ``apply_packed`` takes, for maps as large as the window or others.

        A filter that lifts is small and goes as it is.
        """
        if self.lifting:
            return weight
        if (made := engine(self.group)) is None:
            raise ValueError(f"expected an engine for {self.group}, there is none; ask takes() first")
        if whole and self.whole is not None:
            return made.pack(weight.detach(), self.size, self.whole.window.form)
        return made.pack(weight.detach(), self.size, self._window.form)

    def apply_packed(
        self, x: Tensor, packed: Tensor, bias: Tensor | None, after: After = NOTHING_MORE
    ) -> Tensor:
        """Without gradients, and what follows."""
        if self.lifting and after == NOTHING_MORE:
            return self.apply(x, packed, bias)
        if (whole := self._whole_of(x)) is not None:
            return whole.apply_packed(x, packed, bias, self.fields, after)
        operator = torch.ops.eqgan.group_conv2d_packed
        out: Tensor = operator(x, packed, bias, self.fields, *self._window, **after._asdict())
        return out

    def pools(self, x: Tensor) -> bool:
        """Whether ``apply_packed`` takes a pool over the fiber along."""
        made = engine(self.group)
        if made is None or self.transposed or self.covers(x):
            return False
        return not self.lifting or Lifting(made).pools()


def _dtype_serves(x: Tensor, device: str, lower: bool) -> bool:
    if not lower:
        return x.dtype == torch.float32
    return x.dtype in DTYPES[device] and torch.get_autocast_dtype(device) in DTYPES[device]


def _channels_last(x: Tensor) -> bool:
    if x.shape[1] == 1:  # every format holds one channel: what the strides say is what convolutions follow
        return x.stride(1) == 1 and x.shape[2] * x.shape[3] > 1
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _recorded() -> bool:
    """Whether the operations are written down for elsewhere, or differentiated forwards."""
    exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
    if exporting() or torch.jit.is_tracing():  # type: ignore[attr-defined]
        return True
    if _transformed():  # operators of Python have no derivatives there
        return True
    return not torch.compiler.is_compiling() and is_differentiated_forwards()


@torch.no_grad()
def convolution_paths(network: nn.Module, *inputs: Any) -> dict[str, str]:
    """Which way each group convolution of a network takes for these inputs: ``{"body.3": "fourier", ...}``.

    In training of this network, where all but the first layer pass gradients on to their inputs, and the
    first one if an input requires them; under autocast if it is called there. ``"bank"`` is the dense
    convolution with the expanded filter.
    """
    network = copy.deepcopy(network).eval()
    wanted = any(isinstance(each, Tensor) and each.requires_grad for each in inputs)
    found: dict[str, str] = {}

    def watch(name: str) -> Any:
        def hook(module: Any, inputs: tuple[Tensor, ...]) -> None:
            path = module._fourier
            with torch.enable_grad():
                x = inputs[0].detach().requires_grad_(wanted or bool(found))
                taken = path is not None and path.takes(x, module.weight)
            found[name] = "fourier" if taken else "bank"

        return hook

    for name, module in network.named_modules():
        if hasattr(module, "_fourier"):
            module.register_forward_pre_hook(watch(name))
    network(*inputs)
    return found
