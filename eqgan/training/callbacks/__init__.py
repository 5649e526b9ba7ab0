"""What happens around the training steps: evaluation, grids, records, checkpoints."""

from eqgan.training.callbacks.checkpoint import AtomicCheckpointIO, RunCheckpoint, read_checkpoint
from eqgan.training.callbacks.evaluation import Evaluation
from eqgan.training.callbacks.grid import SampleGrid
from eqgan.training.callbacks.record import ProgressBar, Recorder
from eqgan.training.callbacks.score import EpochScore

__all__ = [
    "AtomicCheckpointIO",
    "EpochScore",
    "Evaluation",
    "ProgressBar",
    "Recorder",
    "RunCheckpoint",
    "SampleGrid",
    "read_checkpoint",
]
