"""The table at the end of a run, and its record as JSON."""

import json
import platform
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from rich.table import Table

import eqgan
from eqgan.console import console
from eqgan.data.module import ImageData
from eqgan.files import atomic_write
from eqgan.metrics import ClassScores, Scores
from eqgan.metrics.equivariance import invariance_error
from eqgan.networks import Budget, GivenLabel, budget
from eqgan.training.callbacks.evaluation import Evaluation
from eqgan.training.callbacks.record import Recorder, peak_memory_mebibytes
from eqgan.training.folder import RunFolder
from eqgan.training.module import GAN
from eqgan.training.ranks import rank


def summarise(
    gan: GAN,
    recorder: Recorder,
    evaluation: Evaluation,
    rescored: Scores,
    unmoved: Scores | None,
    classes: ClassScores | None,
    final: Scores,
    class_shares: list[float] | None,
    class_shares_real: list[float] | None,
    real: torch.Tensor,
    folder: RunFolder,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Everything worth keeping of a run, as plain values."""
    generator, discriminator = budgets(gan)
    return {
        "run": folder.name,
        "group": str(gan.discriminator.group),
        "group_order": gan.discriminator.group.order,
        "generator": vars(generator),
        "discriminator": vars(discriminator),
        "epochs": len(recorder.rows),
        "generator_steps": int(recorder.rows[-1]["step"]) if recorder.rows else 0,
        **pace(recorder),
        "fid_final": final.fid,
        "fid_min_seen": evaluation.fid_min,
        "fid_min_epoch": evaluation.fid_min_epoch,
        "at_minimum": rescored.as_dict(),
        "classes_at_minimum": None if classes is None else classes.as_dict(),
        "fid_min_without_group_element": None if unmoved is None else unmoved.fid,
        "class_shares_final": class_shares,
        "class_shares_real": class_shares_real,
        "invariance_error": discriminator_error(gan, real),
        "logs": str(folder.logs),
        "samples": str(folder.samples),
        "settings": settings,
        "versions": versions(),
    }


def discriminator_error(gan: GAN, real: torch.Tensor) -> float | None:
    """Invariance error of the discriminator on real images in [-1, 1].

    None where it says nothing: a discriminator that collapsed gives every image the same score."""
    try:
        network = GivenLabel(gan.discriminator, 0) if gan.num_classes else gan.discriminator
        return invariance_error(network, real, gan.discriminator.group)
    except ValueError:
        return None


def budgets(gan: GAN) -> tuple[Budget, Budget]:
    """What generator and discriminator hold and do for one image."""
    latent = gan.generator.draw_latents(1)
    image = latent.new_zeros(1, *gan.discriminator.image_shape)
    label = [torch.zeros(1, dtype=torch.long, device=latent.device)] if gan.num_classes else []
    return budget(gan.generator, latent, *label), budget(gan.discriminator, image, *label)


def show_start(gan: GAN, data: ImageData, folder: RunFolder, settings: list[str]) -> None:
    """What is about to be trained on what, before the progress bar."""
    generator, discriminator = budgets(gan)
    group = gan.discriminator.group
    shape = "x".join(map(str, data.image_shape))
    for line in (
        f"run {folder.name}: {', '.join(settings)}",
        f"data {data.name}: {len(data.train):,} training images {shape}, sha256 {data.sha256}",
        f"generator: {generator.parameters:,} parameters, {generator.multiply_adds:,} multiply-adds an image",
        f"discriminator: {group}, group order {group.order}, {discriminator.parameters:,} parameters, "
        f"{discriminator.multiply_adds:,} multiply-adds an image",
        f"curves: tensorboard --logdir {folder.logs_root}; grids: {folder.samples}",
    ):
        print(line, flush=True)


def versions() -> dict[str, str]:
    """Versions and hardware a record should carry."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    return {
        "eqgan": eqgan.__version__,
        "torch": torch.__version__,
        "pytorch_lightning": pl.__version__,
        "python": platform.python_version(),
        "hardware": f"{device}, {torch.get_num_threads()} threads",
    }


def _processor() -> str:
    """Its name, and what tells generations of one name apart: ``AMD EPYC (family 26, model 2)``."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        known = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return f"{known['model name']} (family {known['cpu family']}, model {known['model']})"
    except (OSError, KeyError):
        return platform.processor() or platform.machine()


def pace(recorder: Recorder) -> dict[str, float | None]:
    """What a run took: the speed is the median over epochs."""
    rates = sorted(row["images_per_second"] for row in recorder.rows)
    return {
        "training_seconds": recorder.seconds,
        "evaluation_seconds": recorder.spent_evaluating,
        "images_per_second": rates[len(rates) // 2] if rates else None,
        "peak_memory_mebibytes": peak_memory_mebibytes(),
    }


def write_summary(summary: dict[str, Any], path: Path) -> None:
    """Keeps it as JSON; of several processes the first one does."""
    if rank() > 0:
        return
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(summary, indent=2) + "\n")


def told_paths(summary: dict[str, Any]) -> str:
    """How the group convolutions of each network were computed (docs/fast_group_convolution.md)."""
    told = []
    for role, paths in summary["convolution_paths"].items():
        fast = list(paths.values()).count("fourier")
        if paths:
            told.append(
                f"{role}: {fast or 'all'} of {len(paths)} by {'the fast path' if fast else 'filter banks'}"
            )
    return ", ".join(told)


def number_of(count: int, what: str) -> str:
    """``1 epoch``, ``3,000 epochs``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def new_table(summary: dict[str, Any]) -> Table:
    """An empty table of two columns under the name of the run."""
    table = Table(title=f"run {summary['run']}", show_header=False, title_justify="left")
    table.add_column()
    table.add_column(overflow="fold")
    return table


def add_pace(table: Table, summary: dict[str, Any]) -> None:
    """The rows of speed, how it came about, and memory."""
    table.add_row("speed", f"{summary['images_per_second'] or 0:.0f} images/s")
    table.add_row("group convolutions", told_paths(summary) or "none")
    table.add_row("peak memory", f"{summary['peak_memory_mebibytes']:.0f} MiB")


def add_class_shares(table: Table, name: str, shares: list[float], real: list[float]) -> None:
    """Of samples, and of real images as the same network sees them: it may take one class for another."""
    for what, each in ((name, shares), ("  of real images", real)):
        table.add_row(what, " ".join(f"{100 * share:.1f}" for share in each))


def add_places(table: Table, summary: dict[str, Any]) -> None:
    """The rows that say where curves and weights lie."""
    table.add_row("curves", f"tensorboard --logdir {Path(summary['logs']).parent}")
    table.add_row("checkpoints", f"{summary['logs']}/checkpoints")


def show_summary(summary: dict[str, Any]) -> None:
    """Prints the table people read at the end."""
    table = new_table(summary)
    for role in ("generator", "discriminator"):
        counted = summary[role]
        cost = f"{counted['parameters']:,} parameters, {counted['multiply_adds']:,} multiply-adds an image"
        order = (
            f" ({summary['group']}, group order {summary['group_order']})" if role == "discriminator" else ""
        )
        table.add_row(role + order, cost)
    scores = summary["at_minimum"]
    table.add_row(
        "trained",
        f"{number_of(summary['epochs'], 'epoch')}, {number_of(summary['generator_steps'], 'generator step')} "
        f"in {summary['training_seconds']:.0f} s (+ {summary['evaluation_seconds']:.0f} s evaluation)",
    )
    if rollbacks := summary.get("rollbacks"):
        table.add_row("rolled back", "; ".join(f"{r['why']}, rates halved" for r in rollbacks))
    add_pace(table, summary)
    table.add_row("FID at the end", f"{summary['fid_final']:.2f}")
    table.add_row(
        "minimum FID",
        f"{scores['fid']:.2f}, scored again on fresh latents "
        f"(epoch {summary['fid_min_epoch']}; {summary['fid_min_seen']:.2f} when chosen)",
    )
    if (unmoved := summary["fid_min_without_group_element"]) is not None:
        table.add_row("without the group element", f"{unmoved:.2f}: an invariant D cannot teach orientations")
    if (classes := summary["classes_at_minimum"]) is not None:
        accuracy = "not known" if classes["accuracy"] is None else f"{100 * classes['accuracy']:.1f} %"
        within = "not known" if classes["intra_fid"] is None else f"{classes['intra_fid']:.2f}"
        table.add_row(
            "classes at the minimum", f"intra-class FID {within}; samples of the class asked for: {accuracy}"
        )
    shares = ", ".join(f"{k} {scores[k]:.3f}" for k in ("precision", "recall", "density", "coverage"))
    table.add_row("at the minimum", shares)
    if summary["class_shares_final"]:
        add_class_shares(
            table, "classes at the end, %", summary["class_shares_final"], summary["class_shares_real"]
        )
    error = summary["invariance_error"]
    told = "not defined: it gives every image the same score" if error is None else f"{error:.1e}"
    table.add_row("invariance error of D", f"{told} under {summary['group']}")
    provenance = scores["provenance"]
    features, data = provenance["features"], provenance["data"]
    table.add_row(
        "FID is against",
        f"{data['count']:,} images of {data['name']} ({data['split']}), {provenance['samples']:,} samples, "
        f"features {features['name']} {features['sha256'][:8]}, resize {features['resize']}",
    )
    add_places(table, summary)
    table.add_row("sample grids", summary["samples"])
    console().print(table)
