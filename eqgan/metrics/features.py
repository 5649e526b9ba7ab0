"""Feature networks: any nn.Module, with what makes its scores comparable: name, hash, adapted input."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .imported import module_from_path

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_CHANNELS = {None: "as given", 1: "grey (RGB by ITU-R 601 luma)", 3: "RGB (grey by repetition)"}


def module_hash(module: nn.Module) -> str:
    """SHA-256, in hexadecimal, of a module's state dict: names, dtypes, shapes and bytes.

    The same on every device. It says nothing of what the module computes with its state: keep it next to a
    name.

    >>> a, b = nn.Linear(2, 1), nn.Linear(2, 1)
    >>> module_hash(a) == module_hash(a), module_hash(a) == module_hash(b)
    (True, False)
    """
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if isinstance(value, Tensor):
            header, content = [name, str(value.dtype), list(value.shape)], _bytes(value)
        else:  # what a module put there by get_extra_state
            header, content = [name, "extra"], repr(value).encode()
        digest.update(json.dumps([*header, len(content)]).encode())
        digest.update(content)
    return digest.hexdigest()


def _bytes(value: Tensor) -> bytes:
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Run in eval mode, without gradients or autocast; every submodule gets its train flag back."""
    flags = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        # no_grad, not inference_mode: what a module caches in eval mode must not stop it from training.
        state = _state(module)
        with torch.no_grad(), torch.autocast("cpu" if state is None else state.device.type, enabled=False):
            yield
    finally:
        module.train(flags[0][1])  # by its own method, in case it keeps something in eval mode
        for part, flag in flags:
            part.training = flag


def _state(module: nn.Module) -> Tensor | None:
    """A tensor that tells device and dtype of the module, None if it has no state."""
    return next(chain(module.parameters(), module.buffers()), None)


def apply_features(features: nn.Module | Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Features of a batch: a module is run in eval mode without gradients, another callable is called."""
    if not isinstance(features, nn.Module):
        return features(images)
    with evaluating(features):
        return features(images)


@dataclass(frozen=True, eq=False)
class FeatureExtractor:
    """A feature network with what has to be recorded about it; calling it is `extract`.

    Build one by `from_module`, which hashes the weights and reads what the network declares of its input:
    `image_size` (an int, or two equal ones) and `in_channels` (1 or 3). Images of another size or number of
    channels are adapted to what is declared; a network that declares nothing gets them as they are.

    Args:
        module: from images `(N, C, H, W)` in [-1, 1] to features `(N, d)`.
        name: what people call it.
        sha256: of its state dict, see `module_hash`.
        resize: how images reach its size: None or "bilinear-antialias-<n>".
        channels: number of channels it takes, None if it does not say.

    >>> extractor = FeatureExtractor.from_module(nn.Flatten(), "pixels")
    >>> extractor.extract(torch.zeros(3, 1, 2, 2)).shape
    torch.Size([3, 4])
    """

    module: nn.Module
    name: str
    sha256: str
    resize: str | None = None
    channels: int | None = None

    @classmethod
    def from_module(cls, module: nn.Module, name: str) -> "FeatureExtractor":
        """Hash `module` and read what it declares of its input.

        Raises:
            ValueError: `image_size` is not one size, or `in_channels` neither 1 nor 3.
        """
        channels = getattr(module, "in_channels", None)
        if not (channels is None or (isinstance(channels, int) and channels in _CHANNELS)):
            raise ValueError(
                f"feature network {name} declares in_channels={channels!r}: expected 1 (grey) or 3 (RGB). "
                "Leave the attribute out if images need no adapting."
            )
        size = _declared_size(module, name)
        # A network that resizes inside says so itself.
        resize = getattr(module, "resize", None) if size is None else f"bilinear-antialias-{size}"
        return cls(module, name, module_hash(module), resize if isinstance(resize, str) else None, channels)

    def describe(self) -> dict[str, str | None]:
        """What a score must be recorded with, ready for JSON."""
        channels = _CHANNELS[self.channels]
        return {"name": self.name, "sha256": self.sha256, "resize": self.resize, "channels": channels}

    def extract(self, images: Tensor, batch_size: int = 500) -> Float[Tensor, "samples features"]:
        """Features of all images, in eval mode, in float32, on the network's device.

        Args:
            images: `(N, C, H, W)`, floating in [-1, 1], or uint8 in 0..255 (scaled to [-1, 1]).
            batch_size: images per forward pass; bounds the memory and does not change the result.

        Raises:
            ValueError: No images, not `(N, C, H, W)`, channels that cannot be adapted, or a network whose
                output is not `(N, d)` or not finite.
        """
        if images.ndim != 4 or len(images) == 0 or batch_size < 1:
            raise ValueError(
                f"expected images (N, C, H, W) with N >= 1 and batch_size >= 1, "
                f"got shape {tuple(images.shape)} and batch_size={batch_size}."
            )
        with evaluating(self.module):
            return torch.cat([self._checked(batch) for batch in images.split(batch_size)])

    __call__ = extract

    def _checked(self, images: Tensor) -> Tensor:
        features = self.module(self._adapted(images))
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(images):
            got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(
                f"feature network {self.name}: expected an output of shape ({len(images)}, d), got {got}. "
                "End it with a pooling or nn.Flatten()."
            )
        bad = len(features) - int(features.isfinite().all(dim=1).sum())
        if bad:
            cause = "its weights" if images.isfinite().all() else "the images, which are not finite either"
            raise ValueError(
                f"feature network {self.name}: {bad} of {len(features)} outputs hold NaN or infinity. "
                f"Look for the cause in {cause}."
            )
        return features.float()

    def _adapted(self, images: Tensor) -> Tensor:
        state = _state(self.module)
        images = signed_unit(images if state is None else images.to(state.device))
        images = images.to(state.dtype if state is not None and state.is_floating_point() else torch.float32)
        size = _declared_size(self.module, self.name)
        if size is not None and images.shape[-2:] != (size, size):
            images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
        return self._with_channels(images)

    def _with_channels(self, images: Tensor) -> Tensor:
        got = images.shape[1]
        if self.channels is None or got == self.channels:
            return images
        if (got, self.channels) == (1, 3):
            return images.expand(-1, 3, -1, -1)
        if (got, self.channels) == (3, 1):
            return (images * images.new_tensor(_LUMA)[:, None, None]).sum(dim=1, keepdim=True)
        raise ValueError(
            f"feature network {self.name} takes {self.channels} channels, the images have {got}: "
            "only grey (1) and RGB (3) are converted into each other."
        )


def _declared_size(module: nn.Module, name: str) -> int | None:
    size = getattr(module, "image_size", None)
    if isinstance(size, (tuple, list)) and len(size) == 2 and size[0] == size[1]:
        size = size[0]
    if size is not None and not (isinstance(size, int) and size > 0):
        raise ValueError(f"feature network {name} declares image_size={size!r}: expected one positive int.")
    return size


def signed_unit(images: Tensor) -> Tensor:
    """Images as floats in [-1, 1]: uint8 is scaled from 0..255, floats are taken to be there already.

    >>> signed_unit(torch.tensor([0, 255], dtype=torch.uint8))
    tensor([-1.,  1.])
    """
    if images.dtype == torch.uint8:
        return images.float().div_(127.5).sub_(1)
    if not images.is_floating_point():
        raise ValueError(f"expected floating images in [-1, 1] or uint8 in 0..255, got {images.dtype}.")
    return images


def features_from_path(path: str) -> FeatureExtractor:
    """The user's own feature network, from `"pkg.module:factory"` or `"pkg.module.Class"`.

    What the path names is called without arguments and must return an `nn.Module` from images in [-1, 1] to
    `(N, d)` (an `nn.Module` instance is taken as it is). Modules in the current directory are found. The
    path becomes the name.

    Raises:
        ValueError: as `module_from_path`.

    >>> features_from_path("torch.nn:Flatten").name
    'torch.nn:Flatten'
    """
    return FeatureExtractor.from_module(module_from_path(path, "feature network"), path)
