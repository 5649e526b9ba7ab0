"""Convolutional bodies over any plane group: from an image to pooled, invariant features.

One set of bodies serves discriminators, classifiers and feature networks.
"""

from torch import nn

from eqgan.groups import FieldType, PlaneGroup, regular, scalar
from eqgan.networks.budget import Match, fields_for
from eqgan.networks.fiber import FiberPool, pools_after
from eqgan.networks.parts import ChainBody, conv_layer, doubled_widths, halved, square_side
from eqgan.nn import (
    AvgPool2d,
    FieldSequential,
    GlobalPool2d,
    GroupConv2d,
    GroupPool,
    LiftingConv2d,
    MaxPool2d,
    SpectralKind,
)
from eqgan.nn.pooling import PoolMode


class ConvBody(ChainBody):
    """Up to three blocks [3x3 convolution, LeakyReLU, average pool 2], then the pools over fiber and space.

    The third pool of Dey et al. takes 7 to 3 and drops a row, which breaks the symmetry; here a block pools
    only while the side is even, and an image that cannot be halved once is refused.

    Args:
        image_shape: (channels, side, side).
        group: plane group of the square lattice.
        width: Z2-equivalent width of the first block; the others have 2 and 4 times as many.
        match: what stays equal between groups (``budget.fields_for``).
        spectral: kind of spectral norm, or None.
        pool: over the fiber, ``"max"`` or ``"mean"``.

    References:
        Dey et al., arXiv:2005.01683, appendix (Rotated MNIST).
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        group: PlaneGroup,
        width: int = 32,
        match: Match = "parameters",
        spectral: SpectralKind | None = "bank",
        pool: PoolMode = "max",
        kernel_size: int = 3,
    ) -> None:
        super().__init__()
        side = square_side(image_shape, group, "ConvBody")
        if side % 2 or side < 4:
            raise ValueError(
                f"size {side}: the pooling of the conv body halves an even side of at least 4, dropping no "
                f"row. Use --size {side + side % 2 if side >= 4 else 4}, or --disc-arch mlp."
            )
        gain = nn.init.calculate_gain("leaky_relu", 0.2)
        layers: list[nn.Module] = []
        current = scalar(group, image_shape[0])
        for factor in (1, 2, 4):
            following = regular(group, fields_for(factor * width, group, match))
            conv = LiftingConv2d if factor == 1 else GroupConv2d
            layers += [
                conv(
                    current,
                    following,
                    kernel_size,
                    padding="same",
                    spectral=spectral,
                    input_size=side,
                    gain=gain,
                ),
                nn.LeakyReLU(0.2),
            ]
            if side % 2 == 0 and side >= 4:
                layers.append(AvgPool2d(following, 2))
                side //= 2
            current = following
        self.maps = FieldSequential(*layers, GroupPool(current, pool), GlobalPool2d("mean"))
        self.features, self.group = current.multiplicity, group


class P4CNNBody(ChainBody):
    """The seven-layer network of Cohen & Welling with any plane group: six valid 3x3 convolutions, a max pool
    after the second, and a top convolution as large as what is left (28-26-24-[pool]-12-10-8-6-4-[4x4]-1).

    Args:
        image_shape: (channels, side, side); the side must be even and at least 22.
        group: plane group of the square lattice.
        width: Z2-equivalent width of every layer (20 in the paper).
        match: what stays equal between groups; 20 under p4 with ``"parameters"`` gives the paper's 10 fields.
        top_width: Z2-equivalent width of the top layer; default ``width``.
        top_fields: fields of the top layer as they are, whatever the group: the paper's are the classes.
        spectral: kind of spectral norm, or None.
        batch_norm: batch norm per field after each layer but the top, as in the paper.
        pool: over the fiber, after the top layer.
        slope: negative slope of the rectifier; 0 is the paper's ReLU.
        dropout: after layers 1 and 3 to 6.
        fiber: pool over part of the fiber after some of layers 1 to 6; ``FiberPool()`` is P4CNN-RP.

    Attributes:
        group: under which the features are invariant: smaller than the one given after a subgroup pool.

    References:
        Cohen & Welling, arXiv:1602.07576, section 8.1.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        group: PlaneGroup,
        width: int = 20,
        match: Match = "parameters",
        top_width: int | None = None,
        spectral: SpectralKind | None = None,
        batch_norm: bool = True,
        pool: PoolMode = "max",
        slope: float = 0.0,
        dropout: float = 0.0,
        fiber: FiberPool | None = None,
        top_fields: int | None = None,
    ) -> None:
        super().__init__()
        side = square_side(image_shape, group, "P4CNNBody")
        left = (side - 4) // 2 - 8
        if side % 2 or left < 1:
            raise ValueError(
                f"size {side}: the P4CNN body pools {side - 4} sites by 2, then takes off 8: it needs an "
                f"even size of at least 22. Use --size {max(22, side + side % 2)}, or --disc-arch conv "
                "(a classifier: --net wide)."
            )
        form = {"spectral": spectral, "batch_norm": batch_norm, "slope": slope}
        if fiber is not None:
            fiber.check(6, "P4CNNBody")
        fields = fields_for(width, group, match)
        layers: list[nn.Module] = []
        current: FieldType = scalar(group, image_shape[0])
        for depth in range(1, 7):
            layers += conv_layer(current, fields, 3, side, **form)
            current = regular(current.group, fields)
            for pooling in pools_after(depth, current, fiber):
                layers.append(pooling)
                current = pooling.out_type
            layers += [nn.Dropout(dropout)] if dropout and depth != 2 else []
            side -= 2
            if depth == 2:
                layers.append(MaxPool2d(current, 2))
                side //= 2
        fields = top_fields or fields_for(top_width or width, group, match)
        layers += conv_layer(current, fields, side, side, **form)[:1]
        top = regular(current.group, fields)
        self.maps = FieldSequential(*layers, GroupPool(top, pool))
        self.features, self.group = top.multiplicity, top.group


class StridedBody(ChainBody):
    """Strided 4x4 convolutions that halve the map, then one as large as what is left: DCGAN over any group.

    A 4x4 window with stride 2 and padding 1 keeps every even size exactly. Most of the work is done on small
    maps, and the top layer sees where things stand, which a mean over space would not.

    Args:
        image_shape: (channels, side, side); the side is halved while it is even and above 8.
        group: plane group of the square lattice.
        width: Z2-equivalent width of the first layer; it doubles at each halving, up to 8 times.
        match: what stays equal between groups.
        spectral: kind of spectral norm, or None.
        pool: over the fiber.

    References:
        Radford et al., arXiv:1511.06434.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        group: PlaneGroup,
        width: int = 32,
        match: Match = "parameters",
        spectral: SpectralKind | None = None,
        pool: PoolMode = "max",
    ) -> None:
        super().__init__()
        side = square_side(image_shape, group, "StridedBody")
        gain = nn.init.calculate_gain("leaky_relu", 0.2)
        layers: list[nn.Module] = []
        current: FieldType = scalar(group, image_shape[0])
        halvings, left = halved(side, above=8)
        if not halvings or left > 16:
            raise ValueError(
                f"size {image_shape[1]}: the strided body halves the image down to at most 16 sites without "
                "dropping a row; sizes such as 16, 28, 32, 48, 64, 96 and 128 work (--size)."
            )
        for channels in doubled_widths(width, halvings)[:-1]:
            following = regular(group, fields_for(channels, group, match))
            layers += [
                GroupConv2d(current, following, 4, 2, 1, spectral=spectral, input_size=side, gain=gain),
                nn.LeakyReLU(0.2),
            ]
            current, side = following, side // 2
        top = regular(group, fields_for(2 * width, group, match))
        layers.append(GroupConv2d(current, top, side, spectral=spectral, input_size=side, gain=gain))
        self.maps = FieldSequential(*layers, GroupPool(top, pool))
        self.features, self.group = top.multiplicity, group
