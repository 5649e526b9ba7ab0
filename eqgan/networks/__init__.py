"""Generators, discriminators, classifiers, bodies and feature networks: plain modules, no losses, no data."""

from eqgan.networks.bodies import ConvBody, P4CNNBody, StridedBody
from eqgan.networks.budget import Budget, Match, budget, fields_for
from eqgan.networks.classifiers import Classifier, P4CNNClassifier
from eqgan.networks.discriminators import (
    ConvDiscriminator,
    Discriminator,
    MLPDiscriminator,
    P4CNNDiscriminator,
    StridedDiscriminator,
)
from eqgan.networks.equivariant import EquivariantGenerator, GroupGenerator, OrbitGenerator, symmetrised
from eqgan.networks.fiber import FiberPool, fiber_pool
from eqgan.networks.generators import ConvGenerator, Generator, VanillaGenerator
from eqgan.networks.residual import ResidualBody, ResidualDiscriminator, ResidualGenerator

__all__ = [
    "Budget",
    "Classifier",
    "ConvBody",
    "ConvDiscriminator",
    "ConvGenerator",
    "Discriminator",
    "EquivariantGenerator",
    "FiberPool",
    "Generator",
    "GroupGenerator",
    "MLPDiscriminator",
    "Match",
    "OrbitGenerator",
    "P4CNNBody",
    "P4CNNClassifier",
    "P4CNNDiscriminator",
    "ResidualBody",
    "ResidualDiscriminator",
    "ResidualGenerator",
    "StridedBody",
    "StridedDiscriminator",
    "VanillaGenerator",
    "budget",
    "fiber_pool",
    "fields_for",
    "symmetrised",
]
