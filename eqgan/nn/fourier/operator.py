"""``eqgan::group_conv2d``: group convolution to regular fields as one operator of torch.

    torch.ops.eqgan.group_conv2d(
        x, weight, bias, flat_generators(group), size, padding, stride, transposed, cut, stabiliser
    )

takes x (batch, in * order, height, width), field-major, and weight (out, in, order * size^2): for each pair
of fields the filter at the group's identity, element by element, each a window. Or it lifts: planes
x (batch, in, height, width) and weight (out, in, size^2), a window a pair. The stride is 1 if nothing is
said; with one, transposed, the layer is the transpose of a strided one. The result, (batch, out * order,
height', width'), is contiguous. Maps may also come cut into blocks of stride x stride sites, as
``F.pixel_unshuffle`` does; then there is no padding. Or they are fields on G/H, of a plane for
each coset, with H's elements as the stabiliser: in * order / |H| planes, and order / |H| windows a pair.

It is defined for every device and dtype, by the filter bank and an ordinary convolution; a float32 filter
takes the engine of the CPU or the kernels of the GPU where there are any, unless a stride makes no whole
blocks of maps and window, or is above 8, or fields on cosets come with a stride or on a GPU. Both are the
same function up to rounding, and so are their gradients, of any order. Maps may be of another dtype than the
filter, and the result is of theirs: under autocast they are of autocast's, the filter is given in float32.
``group_conv2d_packed`` is the same by the engine of the CPU without gradients, for a filter that
``Engine.pack`` prepared, or to lift as it is. With a slope what is below zero is multiplied by it; with a
pool, which says on which plane each element may be the largest, the largest are what is left
(``native.After``).
"""

import itertools
from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from eqgan.groups import PointGroup
from eqgan.nn.fourier import by_bank
from eqgan.nn.fourier.engine import Engine, engine, is_of_whole_blocks
from eqgan.nn.fourier.lifting import Lifting, serves
from eqgan.nn.fourier.native import After, lifts
from eqgan.nn.fourier.strided import OnPlainFields
from eqgan.nn.fourier.tables import Form
from eqgan.nn.fourier.triton_engine import TritonEngine, triton_engine
from eqgan.nn.fourier.window import (
    Window,
    output_shape,
    refuse_forward_mode,
    require_bias,
    require_gradient,
)

_FORWARD, _BACKWARD, _PACKED = (f"eqgan::group_conv2d{suffix}" for suffix in ("", "_backward", "_packed"))
_GROUP = "int[] generators, int size, int padding"
_STRIDE = "int stride=1, bool transposed=False, bool cut=False, int[] stabiliser=[]"
torch.library.define(_FORWARD, f"(Tensor x, Tensor weight, Tensor? bias, {_GROUP}, {_STRIDE}) -> Tensor")
torch.library.define(
    _BACKWARD,
    f"(Tensor out_gradient, Tensor x, Tensor weight, {_GROUP}, int stride, bool transposed, bool cut,"
    " int[] stabiliser, bool need_x, bool need_weight, bool need_bias) -> (Tensor, Tensor, Tensor)",
)
torch.library.define(
    _PACKED,
    f"(Tensor x, Tensor packed, Tensor? bias, int fields, {_GROUP}, {_STRIDE}, *, float? slope=None,"
    " int[] pool=[]) -> Tensor",
)


# ---- by the engine -----------------------------------------------------------------------------------------


def _engine(
    group: PointGroup, maps: tuple[Tensor, ...], filters: tuple[Tensor | None, ...]
) -> Engine | TritonEngine | None:
    on_cpu = maps[0].device.type == "cpu"
    served = (torch.float32, torch.bfloat16) if on_cpu else (torch.float32, torch.bfloat16, torch.float16)
    known = all(tensor.dtype in served for tensor in maps)
    known &= all(tensor is None or tensor.dtype == torch.float32 for tensor in filters)
    known &= all(tensor is None or tensor.device == maps[0].device for tensor in (*maps, *filters))
    if not known:
        return None
    return engine(group) if on_cpu else triton_engine(group)


def _serving(
    made: Engine | TritonEngine | None, x: Tensor, weight: Tensor, window: Window, shape: list[Any]
) -> tuple[Any, tuple[int, ...], tuple[Form, ...]] | None:
    """Who serves such a filter, and the numbers and the form that it is told; None: the bank does.

    On a GPU the dense convolution lifts; and so it does what ``Lifting`` does not serve.
    """
    _, size, padding, stride, *_ = window
    form = window.form
    if lifts(weight, size):
        planes, channels = weight.shape[1] * size**2, shape[1]
        if not isinstance(made, Engine) or not serves(planes, channels, shape[2] * shape[3]):
            return None
        return Lifting(made), (size, padding, stride), ()
    if made is None or not is_of_whole_blocks(x, size, padding, form):
        return None
    if isinstance(made, Engine):
        return (made, (size, padding), (form,)) if not form.stabiliser or form.side == 1 else None
    if form.stabiliser:
        return None
    if not made.counts(shape[0], x.shape[2:], shape[2:]):
        return None
    return (made if form.side == 1 else OnPlainFields(made, form)), (size, padding), ()


def _forward_fast(x: Tensor, weight: Tensor, bias: Tensor | None, *how: Any) -> Tensor:
    window = Window(*how)
    shape, made = output_shape(x, weight, window), _engine(window.group, (x,), (weight, bias))
    require_bias(bias, len(weight))
    if (served := _serving(made, x, weight, window, shape)) is None:
        return by_bank.forward(x, weight, bias, *how)
    by, numbers, form = served
    out: Tensor = by.forward(x.contiguous(), weight, bias, *numbers, *form)
    return out


def _backward_fast(
    out_gradient: Tensor, x: Tensor, weight: Tensor, *how_and_need: Any
) -> tuple[Tensor, Tensor, Tensor]:
    window, need = Window(*how_and_need[:-3]), how_and_need[-3:]
    shape = output_shape(x, weight, window)
    require_gradient(out_gradient, shape)
    made = _engine(window.group, (out_gradient, x), (weight,))
    if (served := _serving(made, x, weight, window, shape)) is None:
        return by_bank.backward(out_gradient, x, weight, *how_and_need)
    by, numbers, form = served
    gradients: tuple[Tensor, Tensor, Tensor] = by.backward(
        out_gradient.contiguous(), x.contiguous(), weight, *numbers, need, *form
    )
    return gradients


def _packed_cpu(
    x: Tensor,
    packed: Tensor,
    bias: Tensor | None,
    fields: int,
    *how: Any,
    slope: float | None = None,
    pool: Sequence[int] = (),
) -> Tensor:
    window, after = Window(*how), After(slope, tuple(pool))
    if packed.ndim == 3:
        return _lifted_cpu(x, packed, bias, fields, window, after)
    group, size, padding, form = window.group, window.size, window.padding, window.form
    made = _engine(group, (x,), (packed, bias))
    if not isinstance(made, Engine):
        raise ValueError(
            "expected float32 or bfloat16 maps and a filter packed by the engine; use group_conv2d"
        )
    refuse_forward_mode()
    window.require_sense()
    require_bias(bias, fields)
    fiber = form.planes(group) * (form.side**2 if form.cut else 1)
    fits = not form.stabiliser or form.side == 1
    fits = fits and x.ndim == 4 and x.shape[1] >= fiber and x.shape[1] % fiber == 0 and fields > 0
    fits = fits and is_of_whole_blocks(x, size, padding, form)
    if not fits or packed.numel() != made.packed_size(x.shape[1] // fiber, fields, size, form):
        raise ValueError(
            f"expected maps (batch, in * {group.order}, height, width) and the filter that was packed for "
            f"them, got {tuple(x.shape)} and {packed.numel()} numbers"
        )
    window.output_shape(x, fields)
    return made.forward_packed(x.contiguous(), packed, bias, fields, size, padding, form, after)


def _lifted_cpu(
    x: Tensor, weight: Tensor, bias: Tensor | None, fields: int, window: Window, after: After
) -> Tensor:
    shape = output_shape(x, weight, window)
    require_bias(bias, fields)
    made = _engine(window.group, (x,), (weight, bias))
    served = _serving(made, x, weight, window, shape) if lifts(weight, window.size) else None
    if served is None or len(weight) != fields:
        raise ValueError(
            f"expected planes and a filter ({fields}, in, size^2) that the engine lifts, "
            f"got {tuple(x.shape)} and {tuple(weight.shape)}; use group_conv2d"
        )
    out: Tensor = served[0].forward(x.contiguous(), weight, bias, *served[1], after)
    return out


# ---- what torch asks of an operator ------------------------------------------------------------------------


def _forward_fake(x: Tensor, weight: Tensor, bias: Tensor | None, *how: Any) -> Tensor:
    return x.new_empty(output_shape(x, weight, Window(*how)))


def _backward_fake(
    out_gradient: Tensor, x: Tensor, weight: Tensor, *how_and_need: Any
) -> tuple[Tensor, Tensor, Tensor]:
    need_x, need_weight, need_bias = how_and_need[-3:]
    return (
        x.new_empty(x.shape if need_x else (0,)),
        weight.new_empty(weight.shape if need_weight else (0,)),
        weight.new_empty(weight.shape[:1] if need_bias else (0,)),
    )


def _packed_fake(
    x: Tensor,
    packed: Tensor,
    bias: Tensor | None,
    fields: int,
    *how: Any,
    slope: float | None = None,
    pool: Sequence[int] = (),
) -> Tensor:
    batch, channels, *sides = Window(*how).output_shape(x, fields)
    return x.new_empty(batch, fields * (After(slope, tuple(pool)).planes or channels // fields), *sides)


class _Differentiated(torch.autograd.Function):
    """As ``torch.library.register_autograd`` would make it, whose calls take longer."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, how: tuple[Any, ...], keys: Any
    ) -> Tensor:
        ctx.geometry = Window(*how)  # the dispatcher leaves out what is as the schema has it
        ctx.save_for_backward(x, weight)
        return _below_autograd(keys, x, weight, bias, how)

    @staticmethod
    def backward(ctx: Any, out_gradient: Tensor) -> tuple[Any, ...]:
        x, weight = ctx.saved_tensors
        return *_gradients(out_gradient, x, weight, ctx.geometry, *ctx.needs_input_grad[:3]), None, None


def _below_autograd(
    keys: Any, x: Tensor, weight: Tensor, bias: Tensor | None, how: tuple[Any, ...]
) -> Tensor:
    with torch._C._AutoDispatchBelowAutograd():
        operator = torch.ops.eqgan.group_conv2d.default
        out: Tensor = operator.redispatch(keys & torch._C._after_autograd_keyset, x, weight, bias, *how)
        return out


def _with_gradients(keys: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *how: Any) -> Tensor:
    wanted = x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    if wanted and torch.is_grad_enabled():
        out: Tensor = _Differentiated.apply(x, weight, bias, how, keys)
        return out
    return _below_autograd(keys, x, weight, bias, how)


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    out_gradient, x, weight, *ctx.geometry, need_x, need_weight, need_bias = inputs
    ctx.needed = need_x, need_weight, need_bias
    ctx.save_for_backward(out_gradient, x, weight)


def _differentiate_backward(ctx: Any, for_x: Tensor, for_weight: Tensor, for_bias: Tensor) -> tuple[Any, ...]:
    """The operator is bilinear: what it is of each pair, its second derivatives are of the same pairs."""
    out_gradient, x, weight = ctx.saved_tensors
    need_out, need_x, need_weight = ctx.needs_input_grad[:3]
    through_x, through_weight, through_bias = ctx.needed
    parts = []
    if need_out and through_x:
        parts.append(torch.ops.eqgan.group_conv2d(for_x, weight, None, *ctx.geometry))
    if need_out and through_weight:
        parts.append(torch.ops.eqgan.group_conv2d(x, for_weight, None, *ctx.geometry))
    if need_out and through_bias:
        wide = for_bias.repeat_interleave(Window(*ctx.geometry).group.order).to(out_gradient.dtype)
        parts.append(wide[:, None, None].expand_as(out_gradient))
    of_x = of_weight = None
    if need_x and through_weight:
        of_x, *_ = _gradients(out_gradient, x, for_weight, ctx.geometry, True, False, False)
    if need_weight and through_x:
        _, of_weight, _ = _gradients(out_gradient, for_x, weight, ctx.geometry, False, True, False)
    return sum(parts[1:], parts[0]) if parts else None, of_x, of_weight, *(None,) * 10


def _gradients(
    out_gradient: Tensor, x: Tensor, weight: Tensor, geometry: Sequence[Any], *need: bool
) -> tuple[Tensor | None, ...]:
    """Of x, the weight and the bias; None for what is not needed."""
    if not any(need):
        return None, None, None
    found = torch.ops.eqgan.group_conv2d_backward(out_gradient, x, weight, *geometry, *need)
    return tuple(gradient if needed else None for gradient, needed in zip(found, need))


for _name, _device, _kernel in (
    (_FORWARD, "default", by_bank.forward),
    (_FORWARD, ("cpu", "cuda"), _forward_fast),
    (_BACKWARD, "default", by_bank.backward),
    (_BACKWARD, ("cpu", "cuda"), _backward_fast),
    (_PACKED, "cpu", _packed_cpu),
):
    torch.library.impl(_name, _device, _kernel)
for _name, _kernel in ((_FORWARD, _forward_fake), (_BACKWARD, _backward_fake), (_PACKED, _packed_fake)):
    torch.library.register_fake(_name, _kernel)
torch.library.register_autograd(_BACKWARD, _differentiate_backward, setup_context=_save_backward)


def _refuse_gradients(ctx: Any, out_gradient: Tensor) -> Any:
    raise RuntimeError("group_conv2d_packed has no gradients, use group_conv2d")


torch.library.register_autograd(_PACKED, _refuse_gradients)


def _autocast(name: str, device: str) -> Any:
    """The maps are cast as those of any convolution; filters are not, since they are transformed first."""
    operator = getattr(torch.ops.eqgan, name.split("::")[1])

    def cast(x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any, **named: Any) -> Tensor:
        if x.dtype != torch.float64:  # which autocast leaves alone everywhere
            x = x.to(torch.get_autocast_dtype(device))
        with torch.autocast(device, enabled=False):
            return operator(x, weight, bias, *rest, **named)

    return cast


_fragment = torch.library.Library("eqgan", "FRAGMENT")
for _name, _device in itertools.product((_FORWARD, _PACKED), ("cpu", "cuda")):
    _fragment.impl(_name.split("::")[1], _autocast(_name, _device), f"Autocast{_device.upper()}")
_fragment.impl("group_conv2d", _with_gradients, "Autograd", with_keyset=True)


def _map_over(name: str) -> None:
    """vmap: item by item. The layer does not choose this operator there; it is for whoever calls it."""
    operator = getattr(torch.ops.eqgan, name.split("::")[1])

    def mapped(info: Any, in_dims: tuple[Any, ...], *arguments: Any, **named: Any) -> tuple[Any, Any]:
        if not info.batch_size:
            raise ValueError(f"expected something to map {name} over, got a dimension of size 0")
        items = []
        for i in range(info.batch_size):
            one = [
                a.select(d, i) if isinstance(a, Tensor) and d is not None else a
                for a, d in zip(arguments, in_dims)
            ]
            items.append(operator(*one, **named))
        if isinstance(items[0], Tensor):
            return torch.stack(items), 0
        return tuple(torch.stack(parts) for parts in zip(*items)), (0,) * len(items[0])

    torch.library.register_vmap(name, mapped)


for _name in (_FORWARD, _BACKWARD, _PACKED):
    _map_over(_name)


def _multiply_adds(x: Any, window: Window, out_shape: Any) -> int:
    """Of the dense convolution, so that a network's count does not depend on the machine."""
    if window.transposed:
        return prod(x) * out_shape[1] * window.size**2
    return prod(out_shape) * x[1] * (window.size // window.stride if window.cut else window.size) ** 2


@register_flop_formula(torch.ops.eqgan.group_conv2d)
def _flops(x: Any, _: Any, bias: Any, *how: Any, out_shape: Any, **options: Any) -> int:
    return 2 * _multiply_adds(x, Window(*how), out_shape)


@register_flop_formula(torch.ops.eqgan.group_conv2d_packed)
def _packed_flops(x: Any, _: Any, bias: Any, fields: int, *how: Any, out_shape: Any, **options: Any) -> int:
    return 2 * _multiply_adds(x, Window(*how), out_shape)


@register_flop_formula(torch.ops.eqgan.group_conv2d_backward)
def _backward_flops(out_gradient: Any, x: Any, _: Any, *how_and_need: Any, **options: Any) -> int:
    how, (need_x, need_weight, _) = Window(*how_and_need[:-3]), how_and_need[-3:]
    return 2 * _multiply_adds(x, how, out_gradient) * (need_x + need_weight)
