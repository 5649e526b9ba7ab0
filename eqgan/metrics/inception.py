"""Inception-v3 as feature network, in the form torchmetrics and torch-fidelity made of it."""

import hashlib
import importlib.util
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from .features import FeatureExtractor

_REMEDY = (
    'Install it with `pip install -e ".[inception]"` (the weights, 96 MB, are downloaded at first use and '
    "need the network once), or use the feature network that ships with eqgan: `--fid-features default`."
)


class InceptionFeatures(nn.Module):
    """Inception-v3 behind the input convention of this package.

    Args:
        inception: from uint8 RGB images `(N, 3, H, W)`, which it resizes itself, to features `(N, d)`.
    """

    in_channels = 3
    resize = "bilinear-antialias-299"  # inside the network, after rounding to bytes, as in torchmetrics

    def __init__(self, inception: nn.Module) -> None:
        super().__init__()
        self.inception = inception

    def forward(self, images: Tensor) -> Tensor:
        """Features of images in [-1, 1], rounded to the nearest of 0..255 first.

        Raises:
            ValueError: Images that are not finite, which bytes would hide.
        """
        if not images.isfinite().all():
            raise ValueError("images hold NaN or infinity. Look for a generator that diverged.")
        return self.inception(images.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8))


def inception_features() -> FeatureExtractor:
    """The 2,048 features of Inception-v3 ("inception-v3-compat": the weights of the original FID).

    Downloads 96 MB once, into torch's hub folder, unless the environment variable EQGAN_NO_DOWNLOAD is set.

    Raises:
        RuntimeError: torch-fidelity is not installed, or its weights are neither on disk nor to be had.
            Says what to do.

    References:
        Heusel et al. 2017, arXiv:1706.08500. Parmar et al. 2022, arXiv:2104.11222, on resizing.
    """
    if importlib.util.find_spec("torch_fidelity") is None:
        raise RuntimeError(f"Inception-v3 needs torch-fidelity, which is not installed. {_REMEDY}")
    from torchmetrics.image.fid import NoTrainInceptionV3

    network = NoTrainInceptionV3("inception-v3-compat", ["2048"], str(_weights()))
    return FeatureExtractor.from_module(InceptionFeatures(network), "inception-v3-compat")


def _weights() -> Path:
    """Where the weights lie, downloaded if need be and checked: their name ends in the head of their hash."""
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    path = Path(torch.hub.get_dir()) / "checkpoints" / URL_INCEPTION_V3.rsplit("/", 1)[1]
    expected = path.stem.rsplit("-", 1)[1]
    if path.exists():
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if not found.startswith(expected):
            raise RuntimeError(
                f"the weights of Inception-v3 in {path} are damaged: expected a SHA-256 that starts with "
                f"{expected}, got {found[:8]}. Delete the file, so that it is downloaded again."
            )
        return path
    if os.environ.get("EQGAN_NO_DOWNLOAD"):
        raise RuntimeError(f"no weights of Inception-v3 at {path}, and EQGAN_NO_DOWNLOAD is set. {_REMEDY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(URL_INCEPTION_V3, str(path), hash_prefix=expected)
    except (OSError, RuntimeError) as error:
        raise RuntimeError(f"cannot download the weights of Inception-v3 ({error}). {_REMEDY}") from error
    return path
