"""In eval, a convolution and the batch norm after it are one convolution."""

from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from eqgan.nn.conv import GroupConv2d, LiftingConv2d, rectify_
from eqgan.nn.eager import only_numbers_wanted
from eqgan.nn.kept import Kept, renewed
from eqgan.nn.norm import FieldBatchNorm2d
from eqgan.nn.pooling import CosetPool, GroupPool
from eqgan.nn.resampled import ConvAvgPool2d, PlainUpsampleConv2d, UpsampleConv2d

Convolution = GroupConv2d | nn.Conv2d
# Themselves and not what is derived of them: what others make of their weight is not known.
_OF_FIELDS = (GroupConv2d, LiftingConv2d, UpsampleConv2d, ConvAvgPool2d)
_OF_CHANNELS = (nn.Conv2d, PlainUpsampleConv2d)
_DTYPES = (torch.float32, torch.float64)


class EvalFusion:
    """``norm(conv(x))``, in eval without gradients on a CPU by one convolution with scaled filters.

    Called with (conv, norm, x): a convolution of this package or ``nn.Conv2d``, the batch norm of its output,
    and maps (batch, channels, height, width). Keep one for each place where it is called; a checkpoint does
    not know of it.

    The convolution is kept until anything changes that it was made of. Where it would not be the same to the
    user (training, gradients wanted, hooks, recording) or is not known to pay (a GPU), the two layers are
    called.
    """

    def __init__(self) -> None:
        self._made: tuple[Kept, Convolution] | None = None

    def __call__(self, conv: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
        both = self.joined(conv, norm)
        return norm(conv(x)) if both is None else both(x)

    def rectified(self, conv: nn.Module, norm: nn.Module, x: Tensor, slope: float = 0.0) -> Tensor:
        """The same and, of values below zero, ``slope`` times each: with a rectifier after the norm."""
        both = self.joined(conv, norm)
        if both is not None:
            return followed(both, x, slope)
        out = norm(conv(x))
        return F.leaky_relu(out, slope) if slope else out.relu()

    def joined(self, conv: nn.Module, norm: nn.Module) -> Convolution | None:
        """The one that does both, where they may be called as one now."""
        if fuses(conv, norm) and isinstance(conv, Convolution) and isinstance(norm, nn.BatchNorm2d):
            return self.convolution(conv, norm)
        return None

    def convolution(self, conv: Convolution, norm: nn.BatchNorm2d) -> Convolution:
        """The one that does both, of two layers that fuse."""
        before = self._made
        sources = (*_sources(conv), *_statistics(norm))
        kept = renewed(None if before is None else before[0], sources, lambda: _folded(conv, norm))
        if before is None or kept is not before[0] or type(before[1]) is not type(conv):
            before = kept, _with_filter(conv, *kept[1])
            self._made = before  # in one write: another thread may be here
        _share_settings(conv, before[1])
        return before[1]

    def clear(self) -> None:
        """Lets what was kept go."""
        self._made = None

    # It belongs to the layers it was made of: a copy of them makes its own.

    def __deepcopy__(self, memo: dict[int, object]) -> "EvalFusion":
        return EvalFusion()

    def __reduce__(self) -> tuple[type["EvalFusion"], tuple[()]]:
        return EvalFusion, ()


def fuses(conv: nn.Module, norm: nn.Module) -> bool:
    """Whether the two layers may be called as one now."""
    if not _are_of_one_kind(conv, norm) or conv.training or norm.training or norm.running_mean is None:
        return False
    if not only_numbers_wanted() or _is_watched(conv) or _is_watched(norm):
        return False
    # on other devices comparing what was kept waits for them, and half types would round the filter anew
    weight, mean = conv.weight, norm.running_mean
    return weight.device.type == "cpu" and weight.dtype == mean.dtype and weight.dtype in _DTYPES


def _are_of_one_kind(conv: nn.Module, norm: nn.Module) -> bool:
    if type(conv) in _OF_FIELDS and type(norm) is FieldBatchNorm2d:
        return bool(conv.out_type == norm.in_type)
    if type(conv) in _OF_CHANNELS and type(norm) is nn.BatchNorm2d:
        return bool(conv.out_channels == norm.num_features)
    return False


def rectifier_slope(activation: nn.Module) -> float | None:
    """What a rectifier that nobody watches multiplies numbers below zero by; None for other layers."""
    if _is_watched(activation):
        return None
    if type(activation) is nn.LeakyReLU:
        return activation.negative_slope
    return 0.0 if type(activation) is nn.ReLU else None


def followed(
    conv: Convolution, x: Tensor, slope: float | None = None, pool: CosetPool | None = None
) -> Tensor:
    """A convolution that nobody watches, a rectifier and a maximum, where only numbers are wanted."""
    if isinstance(conv, GroupConv2d):
        return conv.followed(x, slope, pool)
    out = rectify_(conv(x), slope)
    return out if pool is None else pool(out)


def pool_joined(conv: nn.Module, pool: nn.Module, slope: float | None) -> CosetPool | None:
    """The pool, if it is a maximum over the fields of such a convolution that nobody watches."""
    if type(pool) not in (CosetPool, GroupPool) or type(conv) not in _OF_FIELDS or _is_watched(pool):
        return None
    if not isinstance(pool, CosetPool) or not isinstance(conv, GroupConv2d):  # as the types say
        return None
    fields, falls = conv.out_type, slope is not None and slope < 0
    joins = pool.mode == "max" and pool.in_type == fields and fields.representation.is_regular and not falls
    return pool if joins else None


def is_plain_convolution(layer: nn.Module) -> TypeGuard[Convolution]:
    """Whether it is one of ours or torch's that nobody watches or has derived."""
    return type(layer) in (*_OF_FIELDS, *_OF_CHANNELS) and not _is_watched(layer)


def _is_watched(module: nn.Module) -> bool:
    """Whether somebody else takes part in its calls: a hook, a compiled form, or a ``forward`` of its own."""
    hooks = module._forward_hooks or module._forward_pre_hooks or _has_any_global_hook()
    return bool(hooks) or module._compiled_call_impl is not None or "forward" in module.__dict__


def _sources(conv: Convolution) -> tuple[Tensor, ...]:
    if isinstance(conv, GroupConv2d):
        return conv.sources()
    return (conv.weight,) if conv.bias is None else (conv.weight, conv.bias)


def _statistics(norm: nn.BatchNorm2d) -> tuple[Tensor, ...]:
    """All of it that the one convolution depends on."""
    tensors = (torch.tensor(norm.eps), norm.running_mean, norm.running_var, norm.weight, norm.bias)
    return tuple(tensor for tensor in tensors if tensor is not None)


def _folded(conv: Convolution, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Filter and bias: s (w * x + b - mean) + shift, with s = scale / sqrt(variance + eps)."""
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise ValueError("expected a batch norm with running statistics; ask fuses() first")
    scale = (variance + norm.eps).rsqrt()
    if norm.affine:
        scale = scale * norm.weight
    bias = -mean * scale
    if conv.bias is not None:
        bias = bias + conv.bias * scale
    if norm.affine:
        bias = bias + norm.bias
    weight = conv.normalised_weight() if isinstance(conv, GroupConv2d) else conv.weight
    return weight * scale.view(-1, *[1] * (weight.ndim - 1)), bias


# A bias that is None lies beside the parameters.
_OWN = {"_parameters", "_modules", "_cache", "_packed", "norm", "bias"}


def _with_filter(conv: Convolution, weight: Tensor, bias: Tensor) -> Convolution:
    """The same layer with another filter and no norm; ``_share_settings`` gives it all else."""
    made = object.__new__(type(conv))
    parameters = {
        "weight": nn.Parameter(weight, requires_grad=False),
        "bias": nn.Parameter(bias, requires_grad=False),
    }
    made.__dict__.update(_parameters=parameters, _modules={}, _cache=None, _packed={}, norm=None)
    return made


def _share_settings(conv: Convolution, made: Convolution) -> None:
    """Such as its padding and its fast path, which somebody may have changed meanwhile."""
    made.__dict__.update({name: value for name, value in conv.__dict__.items() if name not in _OWN})
