"""``torch.compile`` for the networks of a run."""

import warnings
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from eqgan.nearest import nearest
from eqgan.nn.norm import FieldBatchNorm2d
from eqgan.nn.spectral import OperatorNorm, SpectralNorm


def require_compiler(backend: str, device: torch.device) -> None:
    """Compiles a trifle on the device that will be used.

    Raises:
        ValueError: for a backend that PyTorch does not know, or one that does not work here.
    """
    known = torch.compiler.list_backends(exclude_tags=())
    if backend not in known:
        raise ValueError(f"--compile: no backend {backend!r}; did you mean {nearest(backend, known)!r}?")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # compilers look at everything that is imported
            torch.compile(_trifle, backend=backend)(torch.ones(8, device=device))
    except Exception as error:  # each backend has its own kinds
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        told = " ".join(" ".join(lines[:2]).split())
        raise ValueError(
            f"--compile: {backend} does not work on this machine ({told}). It needs a C++ compiler (g++ "
            "or clang), for a GPU Triton too; install them, or leave out --compile"
        ) from error
    finally:
        torch.compiler.reset()


def _trifle(x: torch.Tensor) -> torch.Tensor:
    return torch.sin(x) + 1


def compile_network(network: nn.Module, backend: str) -> None:
    """Compiles what the network computes; names of its weights, copies and checkpoints stay as they are."""
    options = {"layout_optimization": False} if backend == "inductor" and _keeps_layout(network) else None
    # few shapes: that of a batch, and of two
    network.compile(backend=backend, dynamic=False, options=options)


def _keeps_layout(network: nn.Module) -> bool:
    """Whether maps should stay as they are: the compiler makes those of all convolutions channels_last, and
    writes slow loops for the norm of a field in them (``benchmarks/compiled.py``); a GPU wants them so."""
    norms = (part for part in network.modules() if isinstance(part, FieldBatchNorm2d))
    return not torch.cuda.is_available() and any(norm.in_type.dim > 1 for norm in norms)


def renew_norms(network: nn.Module) -> None:
    """Gives the power iterations new vectors to write in: compiled code may keep the old ones for its
    backward pass, which another forward pass may come before."""
    for part in network.modules():
        if isinstance(part, SpectralNorm | OperatorNorm):
            for name, vector in part.named_buffers(recurse=False):
                setattr(part, name, vector.clone())


def eager(network: nn.Module) -> AbstractContextManager[object]:
    """Within, a compiled network is computed as it is written: compiled code has no second derivative."""
    compiled = any(part._compiled_call_impl is not None for part in network.modules())
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()
