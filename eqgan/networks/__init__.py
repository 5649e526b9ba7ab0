"""Generators, discriminators, classifiers, bodies and feature networks: plain modules, no losses, no data."""

from eqgan.networks.allcnn import AllCNN, AllCNNBody
from eqgan.networks.bodies import ConvBody, P4CNNBody, StridedBody
from eqgan.networks.budget import Budget, Match, budget, fields_for
from eqgan.networks.classifiers import BodyClassifier, Classifier, P4CNNClassifier
from eqgan.networks.conditional import Conditioning, GivenLabel, ProjectionHead
from eqgan.networks.discriminators import (
    ConvDiscriminator,
    Discriminator,
    MLPDiscriminator,
    P4CNNDiscriminator,
    StridedDiscriminator,
)
from eqgan.networks.equivariant import EquivariantGenerator, GroupGenerator, OrbitGenerator, symmetrised
from eqgan.networks.fiber import FiberPool, fiber_pool
from eqgan.networks.freezing import freeze, parameter_groups
from eqgan.networks.generators import ConvGenerator, Generator, VanillaGenerator
from eqgan.networks.inflation import (
    IMAGENET,
    inflate,
    initialise,
    plain_resnet,
    read_weights,
    torchvision_weights,
)
from eqgan.networks.parts import Body
from eqgan.networks.residual import ResidualBody, ResidualDiscriminator, ResidualGenerator
from eqgan.networks.resnet import GroupResNet, ResNet18, ResNet44, WideKernelResNet
from eqgan.networks.resnet_body import ResNetBody

__all__ = [
    "IMAGENET",
    "AllCNN",
    "AllCNNBody",
    "Body",
    "BodyClassifier",
    "Budget",
    "Classifier",
    "Conditioning",
    "ConvBody",
    "ConvDiscriminator",
    "ConvGenerator",
    "Discriminator",
    "EquivariantGenerator",
    "FiberPool",
    "Generator",
    "GivenLabel",
    "GroupGenerator",
    "GroupResNet",
    "MLPDiscriminator",
    "Match",
    "OrbitGenerator",
    "P4CNNBody",
    "P4CNNClassifier",
    "P4CNNDiscriminator",
    "ProjectionHead",
    "ResNet18",
    "ResNet44",
    "ResNetBody",
    "ResidualBody",
    "ResidualDiscriminator",
    "ResidualGenerator",
    "StridedBody",
    "StridedDiscriminator",
    "VanillaGenerator",
    "WideKernelResNet",
    "budget",
    "fiber_pool",
    "fields_for",
    "freeze",
    "inflate",
    "initialise",
    "parameter_groups",
    "plain_resnet",
    "read_weights",
    "symmetrised",
    "torchvision_weights",
]
