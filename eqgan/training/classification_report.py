"""What is said before and after the training of a classifier, and its record as plain values."""

from typing import Any

import torch

from eqgan.console import console
from eqgan.data.module import ImageData
from eqgan.groups import P4, PlaneGroup
from eqgan.metrics.classification import ClassificationScores
from eqgan.metrics.equivariance import invariance_error
from eqgan.networks import Classifier, budget
from eqgan.training.callbacks.confusion import save_confusion
from eqgan.training.callbacks.record import Recorder
from eqgan.training.callbacks.validation import Validation
from eqgan.training.classification import Classification
from eqgan.training.folder import RunFolder
from eqgan.training.preprocessed import without_preprocessing
from eqgan.training.ranks import rank
from eqgan.training.report import add_pace, add_places, new_table, number_of, pace, versions

NO_TEST = "no test images: nothing will be tested (a folder holds them in test/, an .npz in test_images)"


def summarise(
    module: Classification,
    recorder: Recorder,
    judge: Validation,
    tests: dict[str, ClassificationScores],
    unturned: dict[str, ClassificationScores],
    images: torch.Tensor,
    folder: RunFolder,
    data: ImageData,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Everything worth keeping of a run, as plain values; writes the confusion matrices beside it."""
    network = module.judged
    cost = budget(without_preprocessing(network), images[:1])
    pictures = {}
    for name, scores in tests.items():
        pictures[name] = folder.samples / f"confusion_{name}.png"
        if rank() == 0:
            save_confusion(scores.confusion, data.class_names, f"{name}, test", pictures[name])
    scored = judge.best_epoch >= 0
    return {
        "run": folder.name,
        "network": type(network).__name__,
        "group": str(network.group),
        "group_order": network.group.order,
        **vars(cost),
        "data": {"name": data.name, "sha256": data.sha256, "train": len(data.train)},
        "classes": list(data.class_names),
        "epochs": len(recorder.rows),
        "steps": int(recorder.rows[-1]["step"]) if recorder.rows else 0,
        "chosen_epoch": judge.best_epoch if scored else len(recorder.rows) - 1,
        "chosen_by": "validation error" if scored else "last epoch",
        "validation_images": len(data.validation),
        "validation_error": judge.best[0] if scored else None,
        "test": {name: scores.as_dict() for name, scores in tests.items()},
        "turns": module.turns,
        "test_unturned": {name: scores.as_dict() for name, scores in unturned.items()},
        **pace(recorder),
        "invariance_error": _invariance_error(network, images, cost.multiply_adds),
        "invariance_group": str(_asked_of(network)),
        "logs": str(folder.logs),
        "confusion_pictures": {name: str(path) for name, path in pictures.items()},
        "settings": settings,
        "versions": versions(),
    }


def told_in_numbers(summary: dict[str, Any]) -> dict[str, float]:
    """What of a summary is drawn beside the curves."""
    numbers = {key: summary[key] for key in ("parameters", "multiply_adds", "invariance_error")}
    for name, scores in summary["test"].items():
        numbers |= {f"test_{kind}_{name}": scores[kind] for kind in ("error", "auc")}
    return {key: float(value) for key, value in numbers.items() if value is not None}


def _asked_of(network: Classifier) -> PlaneGroup:
    """Whose elements the invariance error is of: a network without a symmetry is asked for quarter turns."""
    return network.group if network.group.order > 1 else P4


def _invariance_error(network: Classifier, images: torch.Tensor, multiply_adds: int) -> float | None:
    """From as many images as seconds allow; None where it says nothing: the same logits for every image."""
    group = _asked_of(network)
    affordable = int(2e11 / (1 + multiply_adds * group.order))
    images = images[: max(8, affordable)]
    try:
        return invariance_error(network, images, group)
    except ValueError:
        return None


def show_start(network: Classifier, data: ImageData, folder: RunFolder, settings: list[str]) -> None:
    """What is about to be trained on what, before the progress bar."""
    cost = budget(without_preprocessing(network), torch.zeros(1, *data.image_shape))
    shape = "x".join(map(str, data.image_shape))
    for line in (
        f"run {folder.name}: {', '.join(settings)}",
        f"data {data.name}: {len(data.train):,} training and {len(data.validation):,} validation images "
        f"{shape}, {data.num_classes} classes, sha256 {data.sha256}",
        *([] if data.has_test_images else [NO_TEST]),
        f"network: {type(network).__name__}, {network.group}, group order {network.group.order}, "
        f"{cost.parameters:,} parameters, {cost.multiply_adds:,} multiply-adds an image",
        f"curves: tensorboard --logdir {folder.logs_root}",
    ):
        print(line, flush=True)


def show_summary(summary: dict[str, Any]) -> None:
    """Prints the table people read at the end."""
    table = new_table(summary)
    table.add_row(
        f"network ({summary['group']}, group order {summary['group_order']})",
        f"{summary['network']}, {summary['parameters']:,} parameters, "
        f"{summary['multiply_adds']:,} multiply-adds an image",
    )
    table.add_row(
        "trained",
        f"{number_of(summary['epochs'], 'epoch')}, {number_of(summary['steps'], 'step')} "
        f"in {summary['training_seconds']:.0f} s (+ {summary['evaluation_seconds']:.0f} s evaluation)",
    )
    add_pace(table, summary)
    if summary["validation_error"] is None:
        chosen = f"epoch {summary['chosen_epoch']} (from 0), the last: no validation images were held out"
    else:
        chosen = (
            f"epoch {summary['chosen_epoch']} (from 0), "
            f"validation error {100 * summary['validation_error']:.2f} % "
            f"of {summary['validation_images']:,} images"
        )
    table.add_row("weights of", chosen)
    for name, scores in summary["test"].items():
        table.add_row(f"test error, {name}", _told(scores) + _compared(summary, name))
    if not summary["test"]:
        table.add_row("test error", NO_TEST)
    error = summary["invariance_error"]
    told = "not defined: it gives every image the same logits" if error is None else f"{error:.1e}"
    under = summary["invariance_group"]
    built = "" if under == summary["group"] else f", which {summary['group']} is not built to keep"
    table.add_row("invariance error", f"{told} under {under}{built}")
    add_places(table, summary)
    for name, path in summary["confusion_pictures"].items():
        table.add_row(f"confusion, {name}", path)
    console().print(table)


def _compared(summary: dict[str, Any], name: str) -> str:
    """What the mean over turns is worth, where there is one."""
    if summary["turns"] == 1:
        return ""
    one = 100 * summary["test_unturned"][name]["error"]
    return f"; mean over {summary['turns']} turns, {one:.2f} % from one"


def _told(scores: dict[str, Any]) -> str:
    auc = "" if scores["auc"] is None else f", AUC {scores['auc']:.4f}"
    return f"{100 * scores['error']:.2f} % of {scores['count']:,} images{auc}"
