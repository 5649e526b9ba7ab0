"""``eqgan classify``: a classifier from command-line words."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jsonargparse
import pytorch_lightning as pl
import torch

from eqgan.cli.command import named_run
from eqgan.cli.options import (
    SHORT_FOR_DATA,
    Choices,
    Parser,
    add_run_settings,
    expand_words,
    new_parser,
    parse_run,
)
from eqgan.cli.runs import claim, kept_epochs, open_data, shared_parts, short_name, train
from eqgan.data.augment import Augmentation
from eqgan.data.module import ImageData
from eqgan.data.preprocess import Preprocessing
from eqgan.groups import SQUARE_PLANE_GROUPS
from eqgan.networks import IMAGENET, Classifier
from eqgan.training.classification import Classification
from eqgan.training.classification_report import show_start, show_summary
from eqgan.training.classification_run import ClassificationRun, Judging, require_labels
from eqgan.training.finetuning import FineTuning, start_from, torchvision_network
from eqgan.training.folder import RunFolder
from eqgan.training.preprocessed import PreprocessedClassifier
from eqgan.training.rebuild import build
from eqgan.training.schedules import Schedule

SEVEN = "eqgan.networks.P4CNNClassifier"
CHOICES: Choices = {
    "--net": (
        "--network",
        {
            "z2cnn": (SEVEN, {"group": "z2", "width": 20, "dropout": 0.3}),
            "p4cnn-rp": (SEVEN, {"group": "p4", "width": 40, "fiber": "group"}),
            "p4cnn-max": (SEVEN, {"group": "p4", "width": 20, "pool": "max", "dropout": 0.0}),
            "p4cnn-drop": (SEVEN, {"group": "p4", "width": 20, "pool": "mean", "dropout": 0.3}),
            "p4cnn": (SEVEN, {"group": "p4", "width": 20, "pool": "mean", "dropout": 0.0}),
            "p4mcnn": (SEVEN, {"group": "p4m", "width": 20, "pool": "mean", "dropout": 0.0}),
            "allcnn": ("eqgan.networks.AllCNN", {"group": "p4"}),
            "resnet18": ("eqgan.networks.ResNet18", {"group": "p4"}),
            "resnet44": ("eqgan.networks.ResNet44", {"group": "p4m"}),
            "wide": ("eqgan.networks.WideKernelResNet", {"group": "p4", "width": 32}),
        },
    ),
    "--optimizer": (
        "--optimizer",
        {
            "adam": ("torch.optim.Adam", {"fused": True}),
            "adamw": ("torch.optim.AdamW", {"fused": True}),
            "sgd": ("torch.optim.SGD", {"lr": 0.01, "momentum": 0.5, "fused": True}),
        },
    ),
    "--augment": (
        "--augment",
        {
            "none": "null",
            "rotation": "eqgan.data.augment.RandomRotation",
            "affine": "eqgan.data.augment.RandomAffine",
            "flip": "eqgan.data.augment.RandomFlip",
            "shift": "eqgan.data.augment.RandomShift",
        },
    ),
    "--preprocess": (
        "--preprocess",
        {
            "none": "null",
            "contrast": "eqgan.data.preprocess.ContrastNormalization",
            "zca": "eqgan.data.preprocess.ZCAWhitening",
        },
    ),
    "--schedule": (
        "--schedule",
        {
            "constant": "eqgan.training.schedules.ConstantSchedule",
            "one-cycle": "eqgan.training.schedules.OneCycleSchedule",
            "cosine": "eqgan.training.schedules.CosineSchedule",
        },
    ),
}
SHORT = {
    **SHORT_FOR_DATA,
    "--validation-fraction": "--dataset.validation_fraction",
    "--group": "--network.group",
    "--lr": "--optimizer.lr",
    "--patience": "--judging.patience",
    "--train": "--finetune.trainable",
    "--devices": "--trainer.devices",
}

EPOCHS = 100

HELP = f"""\
Train a classifier that knows the symmetry of its images, and test it on upright and rotated ones.

  eqgan classify --net p4cnn --data rotmnist           Rotated MNIST, tested on MNIST too
  eqgan classify --net p4mcnn --data photos/ --size 28 --epochs 40 --patience 10
  eqgan classify --config configs/classify/z2cnn.yaml --seed 1
  eqgan classify --net resnet18 --data bccd --size 65 --network.match none --init torchvision:resnet18
  eqgan classify --resume rotmnist-p4cnn_p4-s0

The epoch that is best on the validation images is the one that is tested, the last one if none are held out
(--validation-fraction 0). Test images are looked at once, at the end.

short forms (each stands for a nested setting, given in brackets):
  --net {{{",".join(CHOICES["--net"][1])}}}
                                         network  [network]; p4cnn-max is the published P4CNN, p4cnn has the
                                         mean for its last maximum; how each is best trained stands in
                                         configs/classify/ (wide_p4.yaml, allcnn_p4_plus.yaml, ...)
  --group {{{",".join(SQUARE_PLANE_GROUPS)}}}  its plane group  [network.group]
  --optimizer {{adam,adamw,sgd}}           [optimizer]
  --lr RATE                              learning rate  [optimizer.lr]
  --schedule {{constant,one-cycle,cosine}}  of the learning rate  [schedule]
  --augment {{none,rotation,affine,flip,shift}}  random changes of the training images  [augment]
  --preprocess {{none,contrast,zca}}       what is done to every image first  [preprocess]
  --data {{auto,rotmnist,mnist,digits,cifar10,mirabest,bccd,...,PATH}}  images; PATH is a folder, an .npz
                                         or a store  [dataset.source]
  --data-root DIR                        where MNIST lies; else EQGAN_DATA, else data/  [dataset.root]
  --size N, --batch-size N, --fraction F [dataset.size, dataset.batch_size, dataset.fraction]
  --validation-fraction F                share of the training images held out, 0.1 if nothing is said; 0 for
                                         none. Of Rotated MNIST always its own last 2,000 of 12,000
                                         [dataset.validation_fraction]
  --train {{head,last-stage,off-identity,everything}}  what may learn  [finetune.trainable]
  --devices N                            processes (GPUs) that share each batch  [trainer.devices]
  --patience N                           epochs without a better one that end the run  [judging.patience]
"""


def classify_parser() -> Parser:
    """Every setting of a classifier's run; a config file holds the same keys, as constructor calls."""
    parser = new_parser("eqgan classify", HELP, CHOICES, SHORT)
    add_run_settings(
        parser,
        seed="of weights, data and augmentation",
        epochs=f"passes over the training images; {EPOCHS}, or those of the run to resume, if none are given",
    )
    parser.add_argument(
        "--init",
        type=Path | None,
        help="weights to start from: a run of the same network or its checkpoint, a state dict, or "
        "torchvision:resnet18 (downloaded once); those of a plain residual network are inflated",
    )
    parser.add_class_arguments(ImageData, "dataset", skip={"seed"})
    parser.add_subclass_arguments(
        Classifier,
        "network",
        skip={"image_shape", "num_classes"},
        default={"class_path": SEVEN, "init_args": {"group": "p4"}},
    )
    parser.add_subclass_arguments(
        torch.optim.Optimizer,
        "optimizer",
        skip={"params"},
        default={"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-3, "fused": True}},
    )
    parser.add_subclass_arguments(
        Schedule, "schedule", default={"class_path": "eqgan.training.schedules.ConstantSchedule"}
    )
    parser.add_subclass_arguments(Augmentation, "augment", required=False, default=None)
    parser.add_subclass_arguments(
        Preprocessing, "preprocess", skip={"image_shape"}, required=False, default=None
    )
    parser.add_class_arguments(FineTuning, "finetune")
    skipped = {"network", "optimizer", "schedule", "augment", "finetuning"}
    parser.add_class_arguments(Classification, "fit", skip=skipped)
    parser.add_class_arguments(Judging, "judging")
    data = {"batch_size": 128, "validation_fraction": 0.1, "drop_last": False}
    parser.set_defaults({f"dataset.{name}": value for name, value in data.items()})
    return parser


def parse_classify(argv: Sequence[str]) -> tuple[Parser, jsonargparse.Namespace]:
    """The settings of a run, with those of the run to resume under them if one is named."""
    parser = classify_parser()
    return parser, parse_run(parser, expand_words(argv, CHOICES, SHORT))


def prepare_classify(parser: Parser, config: jsonargparse.Namespace) -> tuple[ClassificationRun, bool]:
    """Everything that can go wrong before a step is taken goes wrong here, before a file is written."""
    if config.epochs is not None and config.epochs < 1:
        raise ValueError(f"--epochs: expected at least 1, got {config.epochs}")
    data = open_data(config)
    require_labels(data)
    pl.seed_everything(config.seed, workers=False, verbose=False)
    borrowed = config.init is not None and torchvision_network(config.init)
    if borrowed:
        as_trained(config.network)
    network = build(config.network, image_shape=data.image_shape, num_classes=data.num_classes)
    if config.preprocess is not None:
        if dict(config.preprocess.get("init_args") or {}).get("group", network.group) is None:
            config.preprocess.init_args.group = network.group
        preprocess = build(config.preprocess, image_shape=data.image_shape)
        network = PreprocessedClassifier(preprocess, network)
        preprocess.fit(data.train.blocks())
    if config.init is not None:
        start_from(network, config.init if borrowed else named_run(str(config.init), config.log_dir))
    module = Classification(
        network,
        partial(build_optimizer, config.optimizer),
        build(config.schedule),
        build(config.augment),
        FineTuning(**config.finetune),
        **config.fit,
    )
    named = default_name(config, data) if config.name is None else config.name
    folder = RunFolder(named, config.log_dir, score="validation")
    if config.epochs is None:
        config.epochs = kept_epochs(folder, config) or EPOCHS
    shared, resuming = shared_parts(parser, config, folder)
    run = ClassificationRun(classification=module, judging=Judging(**config.judging), data=data, **shared)
    claim(run, config, resuming)
    return run, resuming


def as_trained(spec: jsonargparse.Namespace) -> None:
    """Standardises images as those of torchvision's weights were, unless the settings say how."""
    arguments = spec.init_args
    if "input_mean" in arguments and arguments.input_mean is None and arguments.input_deviation is None:
        for key, values in IMAGENET.items():
            arguments[key] = values


def build_optimizer(spec: jsonargparse.Namespace, parameters: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimiser of these settings for these parameters."""
    return build(spec, params=parameters)


def default_name(config: jsonargparse.Namespace, data: ImageData) -> str:
    """Named after what tells runs apart: data really used, network, group, seed."""
    net = short_name(CHOICES, "--net", config.network)
    group = dict(config.network.get("init_args") or {}).get("group")
    return "-".join([data.name, net if group is None else f"{net}_{group}", f"s{config.seed}"])


def classify(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Trains a classifier from command-line words; the summary of the run is returned and printed."""
    return train(
        classify,
        sys.argv[2:] if argv is None else argv,
        parse=parse_classify,
        prepare=prepare_classify,
        show_start=lambda run, told: show_start(run.classification.network, run.data, run.folder, told),
        show_summary=show_summary,
        length="up to {} epoch(s)",
        smaller="--batch-size or --network.width",
    )
