"""The generator of Dey et al. written out in NumPy, on the loops of the convolution oracle."""

import numpy as np

from tests.oracles.conv import GROUPS, elements, group_convolution, lifting_convolution, move

Weights = dict[str, np.ndarray]


def enlarge(x: np.ndarray) -> np.ndarray:
    """Each value as a square of 2 x 2."""
    return np.kron(x, np.ones((2, 2)))


def normalise(x: np.ndarray, w: Weights, name: str, condition: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    """(1 + gamma) (x - mean) / deviation + beta, one of each a field; x (batch, fields, order, h, w)."""
    mean, variance = w[f"{name}.norm.running_mean"], w[f"{name}.norm.running_var"]
    gamma, beta = (
        condition @ w[f"{name}.{part}.weight"].T + w[f"{name}.{part}.bias"] for part in ("gamma", "beta")
    )
    x = (x - mean[:, None, None, None]) / np.sqrt(variance + eps)[:, None, None, None]
    return (1 + gamma)[:, :, None, None, None] * x + beta[:, :, None, None, None]


def dey_generator(
    name: str, w: Weights, z: np.ndarray, label: np.ndarray, start: tuple[int, int, int], turn: int = 0
) -> np.ndarray:
    """Images of latents and labels, without spectral norm, its batch norms in evaluation.

    Args:
        name: of the plane group, a key of ``tests.oracles.conv.GROUPS``.
        w: parameters and running statistics by their names in a state dict.
        start: (channels, side, side) of the first map.
        turn: number of the element that moves the first map.
    """
    order = len(elements(name))
    assert name in GROUPS
    condition = np.concatenate([z, w["class_embedding.weight"][label]], 1)
    first = (condition @ w["project.weight"].T + w["project.bias"]).reshape(-1, *start)
    first = move(name, elements(name)[turn], first)

    def filters(key: str, inner: int) -> np.ndarray:
        weight = w[key]
        shape = weight.shape[:2] + ((inner,) if inner else ()) + (3, 3)
        return weight.reshape(shape)

    x = lifting_convolution(name, first, filters("lift.weight", 0), padding=1)
    x = np.maximum(x + w["lift.bias"][:, None, None, None], 0)
    for block in ("blocks.0", "blocks.1"):
        x = group_convolution(name, enlarge(x), filters(f"{block}.conv.weight", order), padding=1)
        x = np.maximum(normalise(x, w, f"{block}.norm", condition), 0)
    x = group_convolution(name, x, filters("last.weight", order), padding=1)
    return np.tanh(x.max(2))
