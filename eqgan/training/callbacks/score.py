"""What records and checkpoints need to know of the callback that judges an epoch."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class EpochScore(Protocol):
    """A callback that scores the epochs of a run; the FID of samples, the error on validation images.

    Attributes:
        improved: whether this epoch is the best so far; its checkpoint is then kept.
    """

    improved: bool

    def values(self) -> dict[str, float]:
        """The scores of this epoch by name, empty if it was not scored."""
