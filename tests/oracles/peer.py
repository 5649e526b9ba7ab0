"""A peer library, e2cnn (Weiler & Cesa, arXiv:1911.08251): its layers, and how to read them as ours."""

import warnings

import torch
from torch import Tensor

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from e2cnn import gspaces
    from e2cnn import nn as e2nn

SPACES = {
    "p2": lambda: gspaces.Rot2dOnR2(2),
    "p4": lambda: gspaces.Rot2dOnR2(4),
    "p4m": lambda: gspaces.FlipRot2dOnR2(4),
}
# where our elements stand among those of the peer, whose mirror is about the other axis
ELEMENTS = {"p2": [0, 1], "p4": [0, 1, 2, 3], "p4m": [0, 1, 2, 3, 6, 7, 4, 5]}


def field_type(group: str, multiplicity: int, scalar: bool = False) -> "e2nn.FieldType":
    space = SPACES[group]()
    return e2nn.FieldType(space, multiplicity * [space.trivial_repr if scalar else space.regular_repr])


def convolution(in_type: "e2nn.FieldType", out_type: "e2nn.FieldType", size: int, **options) -> "e2nn.R2Conv":
    """With random filters, in float64."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = e2nn.R2Conv(in_type, out_type, size, **options).double()
    torch.nn.init.normal_(made.weights)
    torch.nn.init.normal_(made.bias)
    return made


def as_ours(maps: Tensor, group: str, dim: int = 1) -> Tensor:
    """Channels of regular fields along a dimension in the order of our elements."""
    order = ELEMENTS[group]
    return (
        maps.unflatten(dim, (-1, len(order))).index_select(dim + 1, torch.tensor(order)).flatten(dim, dim + 1)
    )
