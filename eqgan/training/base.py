"""What every run shares, whatever it trains: Lightning's Trainer, the callbacks' order, resuming."""

import copy
import logging
import math
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from eqgan.data.module import ImageData
from eqgan.files import atomic_write
from eqgan.training.batch_norm import share_batch_norm
from eqgan.training.callbacks import AtomicCheckpointIO, ProgressBar, Recorder, RunCheckpoint
from eqgan.training.callbacks.checkpoint import read_checkpoint
from eqgan.training.callbacks.divergence import DivergedError, DivergenceGuard
from eqgan.training.callbacks.record import EpochClock
from eqgan.training.compiling import eager, require_compiler
from eqgan.training.folder import RunFolder
from eqgan.training.lock import NoLock, RunLock
from eqgan.training.ranks import rank, world_size
from eqgan.training.shared_batch import environments, require_equal_shares, trainer_options

log = logging.getLogger("eqgan")


@dataclass(kw_only=True)
class TrainingRun(ABC):
    """One training from its parts to its summary; made by the command line, or by hand.

    Args:
        data: set up already.
        folder: claimed already, or holding the run to resume.
        epochs: to train in all.
        seed: of what is drawn while training.
        settings: plain values that describe the run; kept in every record.
        config: the same as YAML, kept in every checkpoint.
        trainer: further arguments of Lightning's Trainer.
        rollbacks: how often the run may go back to a good state after it diverged.
        deterministic: use only algorithms that give the same bits every time, also where they are slower.
        progress_bar: whether one is shown.
        compile: the backend of ``torch.compile`` for the networks; None leaves them as they are.

    Class attributes:
        roles: the settings that say whose weights a checkpoint holds; they must be those of this run.
        metric: what the run is listed by in TensorBoard.
        advice: what to do when training diverges.
        shown_steps, shown_epochs: what the progress bar shows.
    """

    data: ImageData
    folder: RunFolder
    epochs: int
    seed: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    config: str = ""
    trainer: dict[str, Any] = field(default_factory=dict)
    rollbacks: int = 3
    deterministic: bool = False
    progress_bar: bool = True
    compile: str | None = None
    lock: RunLock | NoLock = field(init=False, repr=False)

    roles: ClassVar[tuple[str, ...]]
    metric: ClassVar[str]
    advice: ClassVar[str]
    shown_steps: ClassVar[tuple[str, ...]] = ()
    shown_epochs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        self.lock = RunLock(self.folder.lock) if rank() == 0 else NoLock()

    @property
    @abstractmethod
    def module(self) -> pl.LightningModule:
        """What is trained; keeps what a step gave in ``records``."""

    @property
    def micro_batches(self) -> int:
        """In how many parts, one after the other, a process goes through its share of a batch."""
        return 1

    @abstractmethod
    def judge(self) -> Any:
        """The callback that scores the epochs, an ``EpochScore``."""

    def callbacks(self, judge: Any) -> Sequence[pl.Callback]:
        """What else happens at the end of an epoch, after it was scored and recorded."""
        return ()

    def description(self) -> dict[str, Any]:
        """Plain values kept in every checkpoint, enough to build the networks again."""
        return {"config": self.config, "image_shape": list(self.data.image_shape)}

    @abstractmethod
    def finish(self, judge: Any, recorder: Recorder, trainer: pl.Trainer) -> dict[str, Any]:
        """What is left to do after the last epoch; the summary of the run."""

    @abstractmethod
    def convolution_paths(self) -> dict[str, dict[str, str]]:
        """Which way each group convolution took in training, by network and layer."""

    def fit(self, resume: bool = False) -> dict[str, Any]:
        """Trains to the end and returns the summary.

        A run that diverges goes back to its last checkpoint, or to its start, with halved learning rates.

        Raises:
            DivergedError: if it does so more often than ``rollbacks``.
            BlockingIOError: if another process writes this run.
        """
        share_batch_norm(self.module)
        if self.compile is not None:
            self.module.compile_networks(self.compile)
        with self.lock, _deterministic(self.deterministic):
            start = copy.deepcopy(self.module.state_dict())
            guard = DivergenceGuard()
            while True:
                try:
                    return {**self._attempt(resume, guard), "rollbacks": guard.rollbacks}
                except DivergedError as error:
                    guard = self._rolled_back(error, guard)
                    self.module.load_state_dict(start)
                    resume = True

    def _attempt(self, resume: bool, guard: DivergenceGuard) -> dict[str, Any]:
        judge = self.judge()
        recorder = Recorder(self.folder.samples / "metrics.csv", judge, self.shown_steps, self.shown_epochs)
        checkpoint = self.folder.last if resume and self.folder.last.exists() else None
        step = self._own_checkpoint(checkpoint)["global_step"] if checkpoint else None
        if checkpoint and self.folder.config.is_file():
            self._keep_epochs()
        # a stream of its own: it depends neither on the networks nor on what this process drew before
        torch.manual_seed((1 << 32) + self.seed)
        trainer = self._trainer(judge, recorder, guard, -1 if step is None and guard.rollbacks else step)
        # before Lightning does, which restores a checkpoint first: float64 would go through float32
        trainer.precision_plugin.convert_module(self.module)
        with _quiet():
            trainer.fit(self.module, datamodule=self.data, ckpt_path=checkpoint, weights_only=True)
        with eager(self.module):
            summary = self.finish(judge, recorder, trainer)
            with trainer.precision_plugin.forward_context():
                return {**summary, "convolution_paths": self.convolution_paths()}

    def _rolled_back(self, error: DivergedError, guard: DivergenceGuard) -> DivergenceGuard:
        """What guards the next attempt; the last straw is raised again with an explanation."""
        count = len(guard.rollbacks)
        best = self.folder.best
        if count >= self.rollbacks:
            tried = f" after {count} rollback(s), each with halved learning rates" if count else ""
            kept = f"; {best.name} holds the best epoch so far" if best.exists() else ""
            raise DivergedError(f"training diverged{tried}: {error}. {self.advice}{kept}") from error
        last = self.folder.last
        epoch = read_checkpoint(last)["epoch"] if last.exists() else None
        to = "its start" if epoch is None else f"the end of epoch {epoch}"
        log.warning(
            "training diverged (%s): back to %s with halved learning rates (rollback %d of %d)",
            *(error, to, count + 1, self.rollbacks),
        )
        return DivergenceGuard(
            [*guard.rollbacks, {"why": str(error), "back_to_epoch": epoch, "rates_times": 0.5}]
        )

    def check(self) -> None:
        """Meets, before the run's folder is touched, whatever would stop it before the first step.

        Raises:
            ValueError: for an argument that Lightning's Trainer does not take, or a number out of range.
        """
        if self.rollbacks < 0:
            raise ValueError(f"--rollbacks: expected at least 0, got {self.rollbacks}")
        own = ("logger", "callbacks", "plugins", "max_epochs", "num_sanity_val_steps")
        own = (*own, "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
        own = (*own, "max_time", "fast_dev_run", "overfit_batches")
        if taken := sorted({*own} & {*self.trainer}):
            raise ValueError(f"trainer: {', '.join(taken)} cannot be set, a run sets it itself")
        try:
            options = trainer_options(self.trainer)
            trainer = pl.Trainer(logger=False, enable_checkpointing=False, plugins=environments(), **options)
        except (TypeError, MisconfigurationException) as error:
            raise ValueError(f"trainer: {str(error).replace('Trainer.__init__() ', '')}") from error
        for name in ("max_steps", "limit_train_batches"):
            if getattr(trainer, name) == 0:
                raise ValueError(f"trainer.{name}: expected at least one step, got 0")
        if trainer.world_size != world_size():
            raise ValueError(
                f"trainer: expected {world_size()} device(s), one a process, got {trainer.world_size}. On "
                "the command line --devices N starts N processes; elsewhere torchrun does"
            )
        if self.compile is not None:
            require_compiler(self.compile, trainer.strategy.root_device)
        require_equal_shares(self.data.batch_size, world_size(), self.micro_batches)

    def _own_checkpoint(self, path: Path) -> dict[str, Any]:
        """The checkpoint, whose weights might fit other networks too: p2 and pm have the same shapes."""
        checkpoint = read_checkpoint(path)
        there, here = (yaml.safe_load(text) or {} for text in (checkpoint["eqgan"]["config"], self.config))
        for role in self.roles:
            if there.get(role) != here.get(role):
                raise ValueError(
                    f"{path} belongs to another run: its {role} is {there.get(role)}, not {here.get(role)}"
                )
        if checkpoint["epoch"] + 1 > self.epochs:
            raise ValueError(
                f"--epochs {self.epochs}: run {self.folder.name!r} has {checkpoint['epoch'] + 1} behind it"
            )
        return checkpoint

    def _keep_epochs(self) -> None:
        """The number of epochs of a resumed run may be new; a bare --resume needs it later."""
        if rank() > 0:
            return
        kept = {**yaml.safe_load(self.folder.config.read_text()), "epochs": self.epochs}
        with atomic_write(self.folder.config) as temporary:
            temporary.write_text(yaml.safe_dump(kept, sort_keys=False))

    def _trainer(
        self, judge: Any, recorder: Recorder, guard: DivergenceGuard, purge: int | None
    ) -> pl.Trainer:
        options = {"accelerator": "auto", "log_every_n_steps": 25, **trainer_options(self.trainer)}
        logger = TensorBoardLogger(
            self.folder.logs_root,
            name="",
            version=self.folder.name,
            default_hp_metric=False,
            purge_step=None if purge is None else purge + 1,
        )
        if purge is None:
            logger.log_hyperparams(dict(flatten(self.settings)), {self.metric: math.nan})
        callbacks = [
            guard,  # first: before records are cleared, or anything is made of weights that are no good
            EpochClock(recorder),
            judge,
            recorder,
            *self.callbacks(judge),
            RunCheckpoint(self.folder, judge, self.description()),
            *([ProgressBar(recorder)] if self.progress_bar else []),
        ]
        return pl.Trainer(
            max_epochs=self.epochs,
            logger=logger,
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO(), *environments()],
            enable_checkpointing=True,
            enable_progress_bar=self.progress_bar,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            **options,
        )


@contextmanager
def _deterministic(on: bool) -> Iterator[None]:
    """Algorithms that give the same bits every time, if asked for; afterwards as it was before."""
    if not on:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's advice that does not apply here."""
    with warnings.catch_warnings():
        # data come from one tensor on the device: there are no worker processes to advise about
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # an averaged network is in eval mode on purpose, small sets have short epochs, epochs are judged by
        # a callback, and Lightning itself uses a part of torch that is being renamed
        for known in (
            *(".*in eval mode at the start.*", ".*smaller than the logging.*", ".*treespec.*"),
            ".*Skipping val loop.*",
            *(
                ".*lru_cache.*",
                "The .grad attribute of a Tensor.*",
            ),  # torch.compile, of group tables and itself
        ):
            warnings.filterwarnings("ignore", message=known)
        yield


def flatten(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings as pairs of a dotted key and a plain value."""
    flat: list[tuple[str, Any]] = []
    for key, value in settings.items():
        if isinstance(value, dict):
            flat += flatten(value, f"{prefix}{key}.")
        else:
            flat.append((prefix + key, value if isinstance(value, int | float | str | bool) else str(value)))
    return flat
