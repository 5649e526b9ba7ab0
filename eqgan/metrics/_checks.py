"""What every metric asks of the features it is given."""

import torch
from torch import Tensor


def checked_features(features: Tensor, what: str, *, minimum: int = 1) -> Tensor:
    """Return `features` as a float64 matrix without gradient, or say what is wrong with them.

    Args:
        features: `(samples, features)`, any floating dtype, finite.
        what: what the rows are, as it appears in messages ("real features").
        minimum: fewest rows the caller can work with.

    Returns:
        `(samples, features)` float64, on the same device (on the CPU where a device has no float64).

    Raises:
        ValueError: Not a floating matrix, no rows or columns, fewer than `minimum` rows, or non-finite rows.
    """
    if features.ndim != 2 or not features.is_floating_point():
        raise ValueError(
            f"{what}: expected a floating (samples, features) matrix, got shape {tuple(features.shape)} "
            f"of {features.dtype}. Flatten each sample's features into one row."
        )
    rows, columns = features.shape
    if rows == 0 or columns == 0:
        raise ValueError(f"{what}: empty, shape {(rows, columns)}. Pass at least {minimum} samples.")
    if rows < minimum:
        raise ValueError(f"{what}: got {rows} samples, at least {minimum} are needed. Pass more samples.")
    bad = rows - int(features.isfinite().all(dim=1).sum())
    if bad:
        raise ValueError(
            f"{what}: {bad} of {rows} rows hold NaN or infinity. Look for diverged weights, "
            "or for images that are not finite."
        )
    features = features.detach()
    return (features.cpu() if features.device.type == "mps" else features).to(torch.float64)


def check_same_width(real: Tensor, fake: Tensor) -> None:
    """Raise ValueError unless both matrices have the same number of features."""
    if real.shape[1] != fake.shape[1]:
        raise ValueError(
            f"real features have {real.shape[1]} columns and fake features {fake.shape[1]}: "
            "both must come from the same feature network."
        )
