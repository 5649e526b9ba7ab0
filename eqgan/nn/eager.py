"""When a layer may take a shorter way that gives the same numbers and nothing else."""

import torch


def only_numbers_wanted() -> bool:
    """Whether no gradients are wanted and nobody writes the operations down (compile, export, trace)."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    return not torch.jit.is_tracing()  # type: ignore[attr-defined]
