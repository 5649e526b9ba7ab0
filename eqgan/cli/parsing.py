"""What may be typed to train a GAN: its settings and their short forms."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import jsonargparse

from eqgan.cli.options import (
    FROM_DATA,
    SHORT_FOR_DATA,
    Parser,
    add_run_settings,
    expand_words,
    new_parser,
    parse_run,
)
from eqgan.data.augment import Augmentation
from eqgan.data.module import ImageData
from eqgan.groups import SQUARE_PLANE_GROUPS, plane_group
from eqgan.networks import Discriminator, EquivariantGenerator, Generator
from eqgan.training.losses import GANLoss
from eqgan.training.module import GAN
from eqgan.training.penalties import Penalty
from eqgan.training.run import EvaluationSettings

CHOICES = {
    "--gen": (
        "--generator",
        {
            "vanilla": "eqgan.networks.VanillaGenerator",
            "conv": "eqgan.networks.ConvGenerator",
            **{name: ("eqgan.networks.GroupGenerator", {"group": name}) for name in SQUARE_PLANE_GROUPS},
        },
    ),
    "--gen-arch": (
        "--generator",
        {
            "dey": ("eqgan.networks.GroupGenerator", {"group": "p4"}),
            "residual": ("eqgan.networks.ResidualGenerator", {"group": "p4"}),
        },
    ),
    "--disc-arch": (
        "--discriminator",
        {
            "conv": "eqgan.networks.ConvDiscriminator",
            "p4cnn": "eqgan.networks.P4CNNDiscriminator",
            "dcgan": "eqgan.networks.StridedDiscriminator",
            "residual": "eqgan.networks.ResidualDiscriminator",
            "mlp": "eqgan.networks.MLPDiscriminator",
        },
    ),
    "--loss": (
        "--loss",
        {
            "ns": "eqgan.training.losses.NonSaturatingLoss",
            "minimax": "eqgan.training.losses.MinimaxLoss",
            "hinge": "eqgan.training.losses.HingeLoss",
            "ls": "eqgan.training.losses.LeastSquaresLoss",
            "wasserstein": "eqgan.training.losses.WassersteinLoss",
            "ra": "eqgan.training.losses.RelativisticAverageLoss",
            "rp": "eqgan.training.losses.RelativisticPairingLoss",
            "alpha": "eqgan.training.losses.LipschitzAlphaLoss",
        },
    ),
    "--penalty": (
        "--penalty",
        {
            "none": "eqgan.training.penalties.NoPenalty",
            "r1": "eqgan.training.penalties.R1Penalty",
            "r2": "eqgan.training.penalties.R2Penalty",
            "r1r2": "eqgan.training.penalties.R1R2Penalty",
            "gp": "eqgan.training.penalties.GradientPenalty",
            "lipschitz": "eqgan.training.penalties.LipschitzPenalty",
            "consistency": "eqgan.training.penalties.ConsistencyPenalty",
        },
    ),
    "--augment": (
        "--augment",
        {
            "none": "null",
            "diff": "eqgan.training.augment.DiffAugment",
            "ada": "eqgan.training.augment.AdaptiveAugmentation",
            "rotation": "eqgan.data.augment.RandomRotation",
            "affine": "eqgan.data.augment.RandomAffine",
            "group": ("eqgan.data.augment.GroupAugmentation", {"group": "p4"}),
        },
    ),
}
SHORT = {
    **SHORT_FOR_DATA,
    "--disc": "--discriminator.group",
    "--fid-features": "--evaluation.features",
    "--devices": "--trainer.devices",
    "--accumulate": "--gan.accumulate",
}

HELP = f"""\
Train a generative adversarial network whose discriminator knows the symmetry of the data.

  python train_gan.py --disc p4                        Rotated MNIST (or the embedded digits)
  python train_gan.py --disc p4m --gen vanilla --loss ns --epochs 40 --seed 1
  python train_gan.py --config configs/gegan_rotmnist.yaml --gen p4 --disc p4 --conditional
  python train_gan.py --data photos/ --size 64 --disc p4m
  python train_gan.py --config configs/rotmnist_p4.yaml --gan.lr_generator 2e-4
  python train_gan.py --resume rotmnist-conv-dcgan_p4-ra-s0

short forms (each stands for a nested setting, given in brackets):
  --disc {{{",".join(SQUARE_PLANE_GROUPS)}}}   plane group of the discriminator  [discriminator.group]
  --disc-arch {{dcgan,conv,p4cnn,residual,mlp}}  its body  [discriminator]
  --gen {{vanilla,conv,{",".join(SQUARE_PLANE_GROUPS)}}}
                                         generator; a plane group: equivariant under it  [generator]
  --gen-arch {{dey,residual}}              layers of an equivariant generator  [generator]
  --conditional                          both networks are told the class  [conditional]
  --loss {{ns,minimax,hinge,ls,wasserstein,ra,rp,alpha}}  adversarial loss  [loss]
  --penalty {{none,r1,r2,r1r2,gp,lipschitz,consistency}}  on the discriminator  [penalty]
  --augment {{none,diff,ada,rotation,affine,group}}  of all that the discriminator sees  [augment]
  --data {{auto,rotmnist,mnist,digits,...,PATH}}  images; PATH is a folder or an .npz  [dataset.source]
  --data-root DIR                        where named sets lie; else EQGAN_DATA, else data/  [dataset.root]
  --size N, --batch-size N, --fraction F [dataset.size, dataset.batch_size, dataset.fraction]
  --devices N                            processes (GPUs) that share each batch  [trainer.devices]
  --accumulate N                         micro-batches of a batch, to save memory  [gan.accumulate]
  --symmetrise {{true,false}}              random group element in the latent  (default true)
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
        help="move each sample by a random element of the generator's group, if that has the "
        "discriminator's, or else of the discriminator's, which its score cannot see",
    )
    parser.add_argument(
        "--conditional",
        type=bool,
        nargs="?",
        const=True,
        default=False,
        help="train on the labels too: the generator draws a class, the discriminator is told it",
    )
    parser.add_class_arguments(ImageData, "dataset", skip={"seed"})
    parser.add_subclass_arguments(
        Generator,
        "generator",
        skip={*FROM_DATA},
        default={"class_path": "eqgan.networks.ConvGenerator"},
    )
    parser.add_subclass_arguments(
        Discriminator,
        "discriminator",
        skip={*FROM_DATA},
        default={"class_path": "eqgan.networks.StridedDiscriminator", "init_args": {"group": "p4"}},
    )
    parser.add_subclass_arguments(
        GANLoss, "loss", default={"class_path": "eqgan.training.losses.RelativisticAverageLoss"}
    )
    parser.add_subclass_arguments(
        Penalty, "penalty", default={"class_path": "eqgan.training.penalties.R1Penalty"}
    )
    parser.add_subclass_arguments(Augmentation, "augment", required=False, default=None)
    own = {"generator", "discriminator", "loss", "penalty", "augmentation"}
    parser.add_class_arguments(GAN, "gan", skip=own)
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
    """The settings of a run, with those of the run to resume under them if one is named.

    A plane group after --gen changes the group alone of an equivariant generator that a config file or
    --gen-arch chose, and else chooses that of Dey et al.
    """
    parser = gan_parser()
    words, group = _without_group(argv)
    if group is not None:
        chosen = parse_run(parser, expand(_without_arguments(words))).generator
        arch = [] if _is_equivariant(chosen.class_path) else ["--gen-arch", "dey"]
        words = [*words, *arch, "--generator.group", group]
    return parser, parse_run(parser, expand(words))


def _without_group(argv: Sequence[str]) -> tuple[list[str], str | None]:
    """The words without a plane group after --gen, and the last such group."""
    words: list[str] = []
    group = None
    rest = iter(argv)
    for word in rest:
        option, inline, value = word.partition("=")
        if option != "--gen":
            words.append(word)
            continue
        chosen = value if inline else next(rest, None)
        if chosen is not None and _is_group(chosen):
            group = chosen
        else:
            group = None
            words += [option] if chosen is None else [option, chosen]
    return words, group


def _without_arguments(argv: Sequence[str]) -> list[str]:
    """The words without arguments of the generator, which may be those of one yet to be chosen."""
    words: list[str] = []
    rest = iter(argv)
    for word in rest:
        if word.startswith("--generator."):
            if "=" not in word:
                next(rest, None)
        else:
            words.append(word)
    return words


def _is_group(name: str) -> bool:
    try:
        return bool(plane_group(name))
    except ValueError:
        return False


def _is_equivariant(class_path: str) -> bool:
    module, _, name = class_path.rpartition(".")
    return issubclass(getattr(import_module(module), name), EquivariantGenerator)
