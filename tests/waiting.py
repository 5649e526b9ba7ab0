"""Meets whatever would make the host wait for a GPU, on any device."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

WAITS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default}


class NoWaiting(TorchDispatchMode):
    """Within it, asking for the value of a tensor, or for as many rows as some are true, is an error."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in WAITS:
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))
