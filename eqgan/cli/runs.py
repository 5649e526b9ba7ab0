"""From words to the summary, for any run: names become objects here, once, and nowhere below."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jsonargparse
import torch
import yaml

from eqgan.cli.guard import preparing, running
from eqgan.cli.options import Choices, Parser
from eqgan.cli.together import Command, announce, processes_to_start, together
from eqgan.data.module import ImageData
from eqgan.files import atomic_write
from eqgan.nn.fourier.choice import cpu_multiplies_bf16
from eqgan.training.base import TrainingRun, flatten
from eqgan.training.folder import RunFolder
from eqgan.training.ranks import decided, first_alone, rank
from eqgan.training.report import write_summary
from eqgan.training.shared_batch import require_equal_shares

AnyRun = TypeVar("AnyRun", bound=TrainingRun)

# Settings that do not change what a run computes; a resumed run may differ in them.
FREE_ON_RESUME = (
    "config",
    "name",
    "epochs",
    "resume",
    "overwrite",
    "log_dir",
    "samples_dir",
    "dataset.root",
    "trainer",
    "rollbacks",
    "deterministic",
    "compile",
    "judging.rotated",
    "judging.batch_size",
)


def short_name(choices: Choices, option: str, spec: jsonargparse.Namespace) -> str:
    """What is typed after this option for this class; the class's own name if it has no short one.

    Of several short names of one class, the one whose arguments are those of ``spec``; the width may differ,
    and the group too where no other fits.
    """
    class_name = spec.class_path.rpartition(".")[2]
    arguments = {key: str(value) for key, value in dict(spec.get("init_args") or {}).items()}
    for free in ({"width"}, {"width", "group"}):
        for name, named in choices[option][1].items():
            path, its_own = (named, {}) if isinstance(named, str) else named
            same = {key: str(value) for key, value in its_own.items() if key not in free}
            if path.rpartition(".")[2] == class_name and same.items() <= arguments.items():
                return name
    return class_name


def precision_for(asked: str) -> str:
    """bf16 where the hardware multiplies it natively, else float32."""
    if asked != "auto":
        return asked
    native = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else cpu_multiplies_bf16()
    return "bf16-mixed" if native else "32-true"


def plain_settings(parser: Parser, config: jsonargparse.Namespace) -> dict[str, Any]:
    """The settings as YAML would hold them, without those that only say how to start."""
    settings = yaml.safe_load(parser.dump(config, skip_unset=False))  # a null is a setting too
    return {k: v for k, v in settings.items() if k not in ("config", "resume", "overwrite")}


def choose_folder(
    folder: RunFolder, parser: Parser, config: jsonargparse.Namespace, settings: dict[str, Any]
) -> tuple[RunFolder, bool]:
    """The folder of a new run, not yet made, or that of the run to resume, its settings checked.

    Args:
        folder: under the name that was given, or the one made from the settings; then it may get a number.
        settings: as ``plain_settings`` tells them.
    """
    return decided(lambda: _choose_folder(folder, parser, config, settings))


def _choose_folder(
    folder: RunFolder, parser: Parser, config: jsonargparse.Namespace, settings: dict[str, Any]
) -> tuple[RunFolder, bool]:
    if not config.resume:
        if config.name is None and not config.overwrite:
            folder = folder.first_free()
        folder.require_free(config.overwrite)
        return folder, False
    if config.name is None:
        folder = folder.newest()
    if not folder.config.is_file():
        raise FileNotFoundError(
            f"--resume: no run named {folder.name!r} in {folder.logs_root}. "
            f"Runs there: {', '.join(folder.siblings()) or 'none'}."
        )
    # parsed once more, a setting that came with an update has its default
    stored = parser.parse_object(yaml.safe_load(folder.config.read_text()))
    _require_same(plain_settings(parser, stored), settings, folder.name)
    return folder, True


def kept_epochs(folder: RunFolder, config: jsonargparse.Namespace) -> int | None:
    """Those of the run to resume; None if there is none."""
    kept = (folder.newest() if config.name is None else folder).config
    return yaml.safe_load(kept.read_text())["epochs"] if config.resume and kept.is_file() else None


def _require_same(stored: dict[str, Any], given: dict[str, Any], name: str) -> None:
    before, now = dict(flatten(stored)), dict(flatten(given))
    different = [
        key
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key) and not key.startswith(FREE_ON_RESUME)
    ]
    if different:
        listed = "; ".join(f"{k} was {before.get(k)}, now {now.get(k)}" for k in different)
        raise ValueError(
            f"run {name!r} was trained with other settings ({listed}). Resume it by its name alone, "
            f"--resume {name}, or start a new run under another --name."
        )


def open_data(config: jsonargparse.Namespace) -> ImageData:
    """The images of a run, read; the settings then name the source that was really used."""
    data = ImageData(**config.dataset, seed=config.seed)
    with first_alone():
        data.setup()
    if config.dataset.source == "auto":
        config.dataset.source = data.train.name  # a resumed run must find it again
    return data


def shared_parts(
    parser: Parser, config: jsonargparse.Namespace, folder: RunFolder
) -> tuple[dict[str, Any], bool]:
    """The arguments that every ``TrainingRun`` takes from its settings, and whether it is one to resume.

    Args:
        folder: as ``choose_folder``.
    """
    config.precision = precision_for(config.precision)  # as used: another machine must resume with the same
    settings = plain_settings(parser, config)
    folder, resuming = choose_folder(folder, parser, config, settings)
    config.name = folder.name
    shared = {
        "folder": folder,
        "epochs": config.epochs,
        "seed": config.seed,
        "settings": settings,
        "config": yaml.safe_dump(plain_settings(parser, config), sort_keys=False),
        "trainer": {**config.trainer, "precision": config.precision},
        "rollbacks": config.rollbacks,
        "deterministic": config.deterministic,
        "compile": config.compile,
    }
    return shared, resuming


def claim(run: TrainingRun, config: jsonargparse.Namespace, resuming: bool) -> None:
    """Takes the folder of a run that can start for this process; a new one is made, with the settings in it.

    Raises:
        ValueError: as ``TrainingRun.check``.
        BlockingIOError: if another process writes the run.
    """
    with first_alone():
        run.check()
    run.lock.acquire()
    announce(run.folder.name)
    if resuming or rank() > 0:
        return
    try:
        run.folder.claim(config.overwrite)
        with atomic_write(run.folder.config) as temporary:
            temporary.write_text(run.config)
    except BaseException:
        run.lock.release()
        raise


def train(
    command: Command,
    words: Sequence[str],
    *,
    parse: Callable[[Sequence[str]], tuple[Parser, jsonargparse.Namespace]],
    prepare: Callable[[Parser, jsonargparse.Namespace], tuple[AnyRun, bool]],
    show_start: Callable[[AnyRun, list[str]], None],
    show_summary: Callable[[dict[str, Any]], None],
    length: str,
    smaller: str,
) -> dict[str, Any]:
    """One run from command-line words to its summary, which is written, shown and returned.

    Args:
        command: what called this; where the settings ask for several processes, each calls it again.
        words: of the command line.
        parse: to the settings.
        prepare: from these to the run, and whether it is one to resume.
        show_start: of the run, given what else is known of it.
        show_summary: the table people read at the end.
        length: how the number of epochs is told.
        smaller: the settings that save memory.
    """
    with preparing():
        parser, config = parse(words)
        count = processes_to_start(config.trainer)
        if count:  # before any of them is
            require_equal_shares(config.dataset.batch_size, count)
    if count:
        return together(command, words, count)
    with preparing():
        run, resuming = prepare(parser, config)
    told = ["resumed" if resuming else "new", length.format(run.epochs), f"seed {run.seed}"]
    if rank() == 0:
        show_start(run, [*told, run.trainer["precision"]])
    with running(run.folder.name, smaller):
        summary = run.fit(resume=resuming)
        write_summary(summary, run.folder.summary)
    if rank() == 0:
        show_summary(summary)
    return summary
