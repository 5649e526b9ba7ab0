"""The feature network behind the default Fréchet distance: small, plain, and able to see orientation."""

import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import Any

from jaxtyping import Float
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from eqgan.groups import Z2, scalar
from eqgan.nn import FusedSequential, MaxPool2d

_WEIGHTS = "feature_network.safetensors"


class FeatureNetwork(nn.Module):
    """A plain CNN from 28x28 grey images to 64 features, from which class *and* orientation can be read.

    It is not invariant on purpose: an invariant network would not see that a generator draws every digit at
    one angle. Two linear heads were trained on the features, the class and (cos, sin) of the angle.
    """

    image_size = 28
    in_channels = 1
    feature_dim = 64

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, padding in ((1, 16, 1), (16, 32, 1), (32, 64, 1), (64, 64, 0)):
            layers += [
                nn.Conv2d(before, after, 3, padding=padding, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
            if after in (16, 64) and padding:
                layers.append(MaxPool2d(scalar(Z2, after), 2))  # 28 to 14, 14 to 7
        self.layers = FusedSequential(*layers, nn.Flatten(), nn.Linear(64 * 5 * 5, self.feature_dim))
        self.classifier = nn.Linear(self.feature_dim, classes)
        self.angle = nn.Linear(self.feature_dim, 2)

    def forward(self, x: Float[Tensor, "batch 1 28 28"]) -> Float[Tensor, "batch 64"]:
        """Features of images in [-1, 1]."""
        return self.layers(x)

    def heads(self, features: Float[Tensor, "batch 64"]) -> tuple[Tensor, Tensor]:
        """Class logits (batch, classes) and (cos, sin) of the angle (batch, 2)."""
        rectified = features.relu()
        return self.classifier(rectified), self.angle(rectified)


@cache
def feature_network() -> FeatureNetwork:
    """The trained network shipped with the package, in eval mode, its file checked against its known hash.

    Raises:
        RuntimeError: if the file in the installed package is damaged.
    """
    payload = (files("eqgan.networks") / _WEIGHTS).read_bytes()
    found, expected = hashlib.sha256(payload).hexdigest(), feature_network_record()["sha256"]
    if found != expected:
        raise RuntimeError(
            f"the feature network's file is damaged: expected sha256 {expected}, got {found}. "
            "Reinstall eqgan."
        )
    network = FeatureNetwork()
    network.load_state_dict(load_safetensors(payload))
    return network.eval().requires_grad_(False)


@cache
def feature_network_record() -> dict[str, Any]:
    """Name, accuracy, data and hash of the shipped network, as its training program wrote them."""
    return json.loads((files("eqgan.networks") / "feature_network.json").read_text())
