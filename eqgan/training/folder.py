"""Where a run lies on the disk, and who may write there."""

import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from eqgan.files import make_folder


def is_of_classifier(config: Path) -> bool:
    """Whether the settings of a run are those of a classifier; else they are a GAN's."""
    return "network" in (yaml.safe_load(config.read_text()) or {})


@dataclass(frozen=True)
class RunFolder:
    """The folders of one run: ``logs/<name>`` for curves and checkpoints, ``samples/<name>`` for grids.

    Args:
        name: safe for file names.
        logs_root, samples_root: the parents; without the second, everything lies in ``logs/<name>``.
        score: what the best checkpoint is best in; it names the file.

    Raises:
        ValueError: for a name that is no plain folder name.
    """

    name: str
    logs_root: Path
    samples_root: Path | None = None
    score: str = "fid"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w][\w.+-]*", self.name):
            raise ValueError(
                f"--name {self.name!r}: expected letters, digits and . _ + - (it names folders), "
                "starting with a letter or digit"
            )

    @property
    def logs(self) -> Path:
        return self.logs_root / self.name

    @property
    def samples(self) -> Path:
        return self.logs if self.samples_root is None else self.samples_root / self.name

    @property
    def config(self) -> Path:
        return self.logs / "config.yaml"

    @property
    def summary(self) -> Path:
        return self.logs / "summary.json"

    @property
    def last(self) -> Path:
        return self.logs / "checkpoints" / "last.ckpt"

    @property
    def best(self) -> Path:
        return self.logs / "checkpoints" / f"best-{self.score}.ckpt"

    @property
    def lock(self) -> Path:
        """Beside the folder, which may be replaced while the lock is held."""
        return self.logs_root / f".{self.name}.lock"

    def exists(self) -> bool:
        return self.logs.exists() or self.samples.exists()

    def _foreign(self) -> Path | None:
        """A folder of this name that is none of a run's, if there is such; an empty one is anybody's."""
        if not _holds(self.logs, "config.yaml", "checkpoints", "summary.json"):
            return self.logs
        if not self.logs.exists() and not _holds(self.samples, "metrics.csv", "real.png", "epoch_*.png"):
            return self.samples
        return None

    def numbered(self, number: int) -> "RunFolder":
        """The same name with a number, for runs that were not given a name."""
        name = self.name if number == 1 else f"{self.name}-{number}"
        return replace(self, name=name)

    def first_free(self) -> "RunFolder":
        number = 1
        while self.numbered(number).exists():
            number += 1
        return self.numbered(number)

    def newest(self) -> "RunFolder":
        """The one with the highest number that exists, or this one."""
        number = 1
        while self.numbered(number + 1).exists():
            number += 1
        return self.numbered(number)

    def require_free(self, overwrite: bool) -> None:
        """Looks, and touches nothing.

        Raises:
            FileExistsError: if there is a run of this name, unless told to overwrite it, or something else.
        """
        if overwrite and (other := self._foreign()) is not None:
            raise FileExistsError(
                f"{other}: expected the folder of a run, got another one; it is not replaced. "
                "Choose another --name."
            )
        if self.exists() and not overwrite:
            places = f"{self.logs_root}" + (f" or {self.samples_root}" if self.samples_root else "")
            raise FileExistsError(
                f"a run named {self.name!r} exists in {places}. "
                f"Continue it with --resume {self.name}, choose another --name, or give --overwrite."
            )

    def claim(self, overwrite: bool) -> None:
        """Makes the folders for a new run, in place of an older one if told to.

        Raises:
            FileExistsError: if there is a run of this name, unless told to overwrite it.
            OSError: if they cannot be made.
        """
        self.require_free(overwrite)
        shutil.rmtree(self.logs, ignore_errors=True)
        shutil.rmtree(self.samples, ignore_errors=True)
        for folder in (self.samples, self.last.parent):  # a run is known by the second
            make_folder(folder, "Choose another --log_dir or --samples_dir.")

    def siblings(self) -> list[str]:
        """Names of the runs that could be resumed."""
        return sorted(p.parent.parent.name for p in self.logs_root.glob("*/checkpoints/last.ckpt"))


def _holds(folder: Path, *patterns: str) -> bool:
    """Whether there is no such folder, or an empty one, or one with any of these in it."""
    if not folder.exists():
        return True
    if not folder.is_dir():
        return False
    return not any(folder.iterdir()) or any(any(folder.glob(pattern)) for pattern in patterns)
