"""Adversarial losses and penalties in plain Python: sums over lists of numbers, integrals over grids."""

import math
from collections.abc import Callable
from statistics import mean

from scipy.optimize import minimize_scalar

Numbers = list[float]


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x > -30 else x


def discriminator(kind: str, real: Numbers, fake: Numbers) -> float:
    """What the discriminator minimises, by the definition in the paper."""
    if kind in ("MinimaxLoss", "NonSaturatingLoss"):
        return -mean(log_sigmoid(r) for r in real) - mean(log_sigmoid(-f) for f in fake)
    if kind == "HingeLoss":
        return mean(max(0, 1 - r) for r in real) + mean(max(0, 1 + f) for f in fake)
    if kind == "LeastSquaresLoss":
        return (mean((r - 1) ** 2 for r in real) + mean(f**2 for f in fake)) / 2
    if kind == "WassersteinLoss":
        return mean(fake) - mean(real)
    if kind == "RelativisticAverageLoss":
        return -mean(log_sigmoid(r - mean(fake)) for r in real) - mean(
            log_sigmoid(-(f - mean(real))) for f in fake
        )
    if kind == "RelativisticPairingLoss":
        return -mean(log_sigmoid(r - f) for r, f in zip(real, fake))
    assert kind == "LipschitzAlphaLoss"
    return mean(conjugate(lambda x: alpha_function(2.0, x), f) for f in fake) - mean(real)


def generator(kind: str, real: Numbers, fake: Numbers) -> float:
    """What the generator minimises."""
    if kind == "MinimaxLoss":
        return mean(log_sigmoid(-f) for f in fake)
    if kind == "NonSaturatingLoss":
        return -mean(log_sigmoid(f) for f in fake)
    if kind in ("HingeLoss", "WassersteinLoss"):
        return -mean(fake)
    if kind == "LeastSquaresLoss":
        return mean((f - 1) ** 2 for f in fake) / 2
    if kind == "LipschitzAlphaLoss":
        return -mean(conjugate(lambda x: alpha_function(2.0, x), f) for f in fake)
    return discriminator(kind, fake, real)


def alpha_function(alpha: float, x: float) -> float:
    """f of the alpha-divergence, for x >= 0."""
    return (x**alpha - 1) / (alpha * (alpha - 1))


def conjugate(f: Callable[[float], float], y: float) -> float:
    """sup over x >= 0 of x y - f(x), by a search."""
    found = minimize_scalar(
        lambda x: f(x) - x * y, bounds=(0, 200), method="bounded", options={"xatol": 1e-10}
    )
    return max(-found.fun, -f(0.0))


def divergence(f: Callable[[float], float], p: Numbers, q: Numbers) -> float:
    """sum q f(p / q) of two distributions on the same points."""
    return sum(b * f(a / b) for a, b in zip(p, q))
