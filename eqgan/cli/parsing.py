"""What may be typed to train a GAN: its settings and their short forms."""

from collections.abc import Sequence
from pathlib import Path

import jsonargparse

from eqgan.cli.options import Parser, add_run_settings, expand_words, new_parser, parse_run
from eqgan.data.module import ImageData
from eqgan.groups import SQUARE_PLANE_GROUPS
from eqgan.networks import Discriminator, Generator
from eqgan.training.losses import GANLoss
from eqgan.training.module import GAN
from eqgan.training.penalties import R1Penalty
from eqgan.training.run import EvaluationSettings

CHOICES = {
    "--gen": (
        "--generator",
        {"vanilla": "eqgan.networks.VanillaGenerator", "conv": "eqgan.networks.ConvGenerator"},
    ),
    "--disc-arch": (
        "--discriminator",
        {
            "conv": "eqgan.networks.ConvDiscriminator",
            "p4cnn": "eqgan.networks.P4CNNDiscriminator",
            "dcgan": "eqgan.networks.StridedDiscriminator",
            "mlp": "eqgan.networks.MLPDiscriminator",
        },
    ),
    "--loss": (
        "--loss",
        {
            "ns": "eqgan.training.losses.NonSaturatingLoss",
            "hinge": "eqgan.training.losses.HingeLoss",
            "ra": "eqgan.training.losses.RelativisticAverageLoss",
        },
    ),
}
SHORT = {
    "--data": "--dataset.source",
    "--data-root": "--dataset.root",
    "--size": "--dataset.size",
    "--batch-size": "--dataset.batch_size",
    "--fraction": "--dataset.fraction",
    "--disc": "--discriminator.group",
    "--fid-features": "--evaluation.features",
}

HELP = f"""\
Train a generative adversarial network whose discriminator knows the symmetry of the data.

  python train_gan.py --disc p4                        Rotated MNIST (or the embedded digits)
  python train_gan.py --disc p4m --gen vanilla --loss ns --epochs 40 --seed 1
  python train_gan.py --data photos/ --size 64 --disc p4m
  python train_gan.py --config configs/rotmnist_p4.yaml --gan.lr_generator 2e-4
  python train_gan.py --resume rotmnist-conv-dcgan_p4-ra-s0

short forms (each stands for a nested setting, given in brackets):
  --disc {{{",".join(SQUARE_PLANE_GROUPS)}}}   plane group of the discriminator  [discriminator.group]
  --disc-arch {{dcgan,conv,p4cnn,mlp}}     its body  [discriminator]
  --gen {{vanilla,conv}}                   generator  [generator]
  --loss {{ns,hinge,ra}}                   adversarial loss  [loss]
  --data {{auto,rotmnist,mnist,digits,...,PATH}}  images; PATH is a folder or an .npz  [dataset.source]
  --data-root DIR                        where named sets lie; else EQGAN_DATA, else data/  [dataset.root]
  --size N, --batch-size N, --fraction F [dataset.size, dataset.batch_size, dataset.fraction]
  --symmetrise {{true,false}}              random element of D's group in the latent  (default true)
  --fid-features {{default,inception,MODULE:FACTORY}}  [evaluation.features]
"""


def gan_parser() -> Parser:
    """Every setting of a GAN run; a config file holds the same keys, as constructor calls."""
    parser = new_parser("train_gan.py", HELP, CHOICES, SHORT)
    add_run_settings(
        parser,
        seed="of weights, latents and data",
        epochs="passes over the training images; by default as many as make 3,000 discriminator steps",
    )
    parser.add_argument("--samples_dir", type=Path, default=Path("samples"), help="parent of samples/<run>")
    parser.add_argument(
        "--symmetrise",
        type=bool,
        default=True,
        help="move each sample by a random element of the discriminator's group, which its score cannot see",
    )
    parser.add_class_arguments(ImageData, "dataset", skip={"seed"})
    parser.add_subclass_arguments(
        Generator,
        "generator",
        skip={"image_shape"},
        default={"class_path": "eqgan.networks.ConvGenerator"},
    )
    parser.add_subclass_arguments(
        Discriminator,
        "discriminator",
        skip={"image_shape"},
        default={"class_path": "eqgan.networks.StridedDiscriminator", "init_args": {"group": "p4"}},
    )
    parser.add_subclass_arguments(
        GANLoss, "loss", default={"class_path": "eqgan.training.losses.RelativisticAverageLoss"}
    )
    parser.add_class_arguments(R1Penalty, "penalty")
    parser.add_class_arguments(GAN, "gan", skip={"generator", "discriminator", "loss", "penalty"})
    parser.add_class_arguments(EvaluationSettings, "evaluation")
    return parser


def expand(argv: Sequence[str]) -> list[str]:
    """The words with the short forms of a GAN run replaced by the settings they stand for.

    Example:
        >>> expand(["--disc", "p4", "--loss", "ns"])
        ['--loss', 'eqgan.training.losses.NonSaturatingLoss', '--discriminator.group', 'p4']
    """
    return expand_words(argv, CHOICES, SHORT)


def parse_gan(argv: Sequence[str]) -> tuple[Parser, jsonargparse.Namespace]:
    """The settings of a run, with those of the run to resume under them if one is named."""
    parser = gan_parser()
    return parser, parse_run(parser, expand(argv))
