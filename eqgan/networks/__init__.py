"""Generators, discriminators, bodies and feature networks: plain modules, no losses, no data."""

from eqgan.networks.bodies import ConvBody, P4CNNBody, StridedBody
from eqgan.networks.budget import Budget, Match, budget, fields_for
from eqgan.networks.discriminators import (
    ConvDiscriminator,
    Discriminator,
    MLPDiscriminator,
    P4CNNDiscriminator,
    StridedDiscriminator,
)
from eqgan.networks.generators import ConvGenerator, Generator, OrbitGenerator, VanillaGenerator

__all__ = [
    "Budget",
    "ConvBody",
    "ConvDiscriminator",
    "ConvGenerator",
    "Discriminator",
    "Generator",
    "MLPDiscriminator",
    "Match",
    "OrbitGenerator",
    "P4CNNBody",
    "P4CNNDiscriminator",
    "StridedBody",
    "StridedDiscriminator",
    "VanillaGenerator",
    "budget",
    "fields_for",
]
