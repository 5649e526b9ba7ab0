"""When a layer may take a shorter way that gives the same numbers and nothing else."""

import torch
from torch import Tensor
from torch.autograd import forward_ad

_WITHOUT_NUMBERS = (torch._C._TorchDispatchModeKey.FAKE, torch._C._TorchDispatchModeKey.PROXY)


def is_differentiated_forwards() -> bool:
    """Whether derivatives go along with the numbers (``torch.func.jvp``, ``forward_ad.dual_level``)."""
    return forward_ad._current_level >= 0


def is_differentiated_by_transform() -> bool:
    """Whether a transform of ``torch.func`` differentiates: ``grad`` and ``jvp`` do, ``vmap`` does not."""
    levels = torch._C._functorch.get_interpreter_stack() or []
    kinds = torch._C._functorch.TransformType
    return any(level.key() in (kinds.Grad, kinds.Jvp) for level in levels)


def is_ordinary_call() -> bool:
    """Whether tensors hold numbers of their own, which may be compared and kept.

    That is, nobody records, transforms or fakes them (compile, export, trace, ``torch.func``, fake tensors).
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined]
        return False
    if is_differentiated_forwards() or torch._C._functorch.peek_interpreter_stack() is not None:
        return False
    return all(torch._C._get_dispatch_mode(mode) is None for mode in _WITHOUT_NUMBERS)


def records_gradient(x: Tensor) -> bool:
    """An ordinary call whose derivative by x is written down."""
    return x.requires_grad and torch.is_grad_enabled() and is_ordinary_call()


def is_batched(x: Tensor) -> bool:
    """Whether it stands for many (``torch.func.vmap``, ``autograd.grad(is_grads_batched=True)``)."""
    return bool(torch._C._functorch.is_batchedtensor(x) or torch._C._functorch.is_legacy_batchedtensor(x))


def only_numbers_wanted() -> bool:
    """An ordinary call without gradients."""
    return not torch.is_grad_enabled() and is_ordinary_call()
