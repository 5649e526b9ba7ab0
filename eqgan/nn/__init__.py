"""Equivariant layers on the square lattice. Feature maps are plain tensors; types sit on the modules."""

from eqgan.nn.action import act, act_each
from eqgan.nn.conv import GroupConv2d, LiftingConv2d, by_filter_banks
from eqgan.nn.fusion import EvalFusion
from eqgan.nn.geometry import output_size
from eqgan.nn.norm import ConditionalFieldBatchNorm2d, FieldBatchNorm2d
from eqgan.nn.pooling import (
    AvgPool2d,
    CosetPool,
    GlobalPool2d,
    GroupPool,
    MaxPool2d,
    Restrict,
    SubgroupPool,
    Upsample2d,
)
from eqgan.nn.resampled import ConvAvgPool2d, PlainUpsampleConv2d, UpsampleConv2d
from eqgan.nn.sequential import FieldSequential, FusedSequential
from eqgan.nn.spectral import (
    OperatorNorm,
    SpectralKind,
    SpectralLinear,
    SpectralNorm,
    iterate_norms,
    linear,
)

__all__ = [
    "AvgPool2d",
    "ConditionalFieldBatchNorm2d",
    "ConvAvgPool2d",
    "CosetPool",
    "EvalFusion",
    "FieldBatchNorm2d",
    "FieldSequential",
    "FusedSequential",
    "GlobalPool2d",
    "GroupConv2d",
    "GroupPool",
    "LiftingConv2d",
    "MaxPool2d",
    "OperatorNorm",
    "PlainUpsampleConv2d",
    "Restrict",
    "SpectralKind",
    "SpectralLinear",
    "SpectralNorm",
    "SubgroupPool",
    "Upsample2d",
    "UpsampleConv2d",
    "act",
    "act_each",
    "by_filter_banks",
    "iterate_norms",
    "linear",
    "output_size",
]
