"""Residual generators and discriminators over any plane group, for images of 32 to 128 pixels."""

import itertools

from jaxtyping import Float
from torch import Tensor, nn

from eqgan.groups import FieldType, PlaneGroup, regular, scalar
from eqgan.networks.budget import Match, fields_for
from eqgan.networks.conditional import Conditioning
from eqgan.networks.discriminators import BodyDiscriminator
from eqgan.networks.equivariant import EquivariantGenerator
from eqgan.networks.parts import ChainBody, doubled_widths, halved, square_side
from eqgan.nn import (
    AvgPool2d,
    ConditionalFieldBatchNorm2d,
    ConvAvgPool2d,
    FieldBatchNorm2d,
    FieldSequential,
    GlobalPool2d,
    GroupConv2d,
    GroupPool,
    LiftingConv2d,
    SpectralKind,
    Upsample2d,
    UpsampleConv2d,
    linear,
)
from eqgan.nn.pooling import PoolMode

SLOPE = 0.2


def halvings(side: int, what: str) -> int:
    """How often a side is halved while it is even and above 7.

    Raises:
        ValueError: if that leaves more than 7 sites.
    """
    count, left = halved(side, above=7)
    if left > 7 or not count:
        raise ValueError(
            f"size {side}: {what} halves or doubles between the image and a map of 3 to 7 sites a side: "
            "a power of two times 4, 5, 6 or 7, such as 28, 32, 48, 64, 96 and 128. Use --size with one."
        )
    return count


def _widths(width: int, count: int, group: PlaneGroup, match: Match) -> list[FieldType]:
    """From full size on: doubled with each halving, up to 8 times."""
    return [regular(group, fields_for(n, group, match)) for n in doubled_widths(width, count)]


class UpBlock(nn.Module):
    """x2: [norm, ReLU, nearest x2, 3x3, norm, ReLU, 3x3], added to [nearest x2, 1x1].

    Without norms the branch starts at a tenth of its size, so that a deep chain starts as the identity.

    Args:
        before, after: types of the maps.
        side: of the maps that come in.
        condition: length of the condition of the norms, or None for no norms.
        spectral: kind of spectral norm, or None.

    References:
        He et al., arXiv:1603.05027; in a generator: Miyato et al., arXiv:1802.05957, appendix B.
    """

    def __init__(
        self,
        before: FieldType,
        after: FieldType,
        side: int,
        condition: int | None,
        spectral: SpectralKind | None,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        self.in_type, self.out_type = before, after
        options = {"padding": "same", "spectral": spectral, "input_size": 2 * side}
        plain = condition is None
        self.norms = nn.ModuleList(
            ConditionalFieldBatchNorm2d(kind, condition, spectral is not None, momentum)
            for kind in (() if plain else (before, after))
        )
        gain = nn.init.calculate_gain("leaky_relu", SLOPE)
        self.first = UpsampleConv2d(
            before, after, 3, bias=plain, gain=gain, spectral=spectral, input_size=2 * side
        )
        self.up = Upsample2d(after)
        self.second = GroupConv2d(after, after, 3, gain=0.1 if plain else gain, **options)
        self.skip = nn.Identity() if before == after else GroupConv2d(before, after, 1, bias=False, **options)

    def forward(
        self,
        x: Float[Tensor, "batch channels height width"],
        condition: Float[Tensor, "batch condition"],
    ) -> Float[Tensor, "batch out_channels height2 width2"]:
        branch = self.first(self._act(0, x, condition))
        return self.second(self._act(1, branch, condition)) + self.up(self.skip(x))  # 1x1: in either order

    def _act(self, number: int, x: Tensor, condition: Tensor) -> Tensor:
        if self.norms:
            return self.norms[number](x, condition).relu()
        return nn.functional.leaky_relu(x, SLOPE)


class DownBlock(nn.Module):
    """[LeakyReLU, 3x3, LeakyReLU, 3x3, mean over 2x2], added to [mean over 2x2, 1x1].

    Args:
        before, after: types of the maps.
        side: of the maps that come in, even.
        spectral: kind of spectral norm, or None; without one the branch starts at a tenth of its size.
        first: whether this is the first block, whose input, an image, is not rectified.
    """

    def __init__(
        self,
        before: FieldType,
        after: FieldType,
        side: int,
        spectral: SpectralKind | None,
        first: bool = False,
    ) -> None:
        super().__init__()
        self.in_type, self.out_type = before, after
        gain = nn.init.calculate_gain("leaky_relu", SLOPE)
        options = {"padding": "same", "spectral": spectral}
        self.branch = FieldSequential(
            *([] if first else [nn.LeakyReLU(SLOPE)]),
            GroupConv2d(before, after, 3, input_size=side, gain=1.0 if first else gain, **options),
            nn.LeakyReLU(SLOPE),
            ConvAvgPool2d(
                after, after, 3, input_size=side, gain=gain if spectral or first else 0.1, spectral=spectral
            ),
        )
        self.skip = FieldSequential(
            AvgPool2d(before, 2),
            *([] if before == after else [GroupConv2d(before, after, 1, input_size=side // 2, **options)]),
        )

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch out_channels height2 width2"]:
        return self.branch(x) + self.skip(x)


class ResidualGenerator(EquivariantGenerator):
    """A dense layer to a map of 4 to 7 sites a side, a lifting convolution, residual blocks that double it, a
    convolution to one field a colour, the maximum over the fiber, tanh.

    Args:
        image_shape: (channels, side, side); the side is halved while it is even and above 7.
        group: plane group of the square lattice.
        latent_dim: length of the latent.
        width: Z2-equivalent width at full size; it doubles with each halving, up to 8 times.
        start: channels of the first map; default 8 times ``width``.
        match: what stays equal between groups.
        spectral: kind of spectral norm, or None.
        norm: conditional field batch norm in the blocks; without it the latent enters by the first map alone.
        momentum: of the batch norms, the weight of the new batch.
        num_classes, embedding: classes, and the length of their embedding beside the latent.

    References:
        Dey et al., arXiv:2005.01683 (the larger sets); without norms: Huang et al., arXiv:2501.05441 (R3GAN).
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        group: PlaneGroup,
        latent_dim: int = 128,
        width: int = 16,
        start: int | None = None,
        match: Match = "parameters",
        spectral: SpectralKind | None = None,
        norm: bool = True,
        momentum: float = 0.1,
        num_classes: int = 0,
        embedding: int = 64,
    ) -> None:
        super().__init__(image_shape, latent_dim, num_classes, embedding)
        side = square_side(image_shape, group, "ResidualGenerator")
        count = halvings(side, "ResidualGenerator")
        types = _widths(width, count, group, match)[::-1]
        side //= 2**count
        self.group = group
        self.start_shape = (start or 8 * width, side, side)
        dense = spectral is not None
        self.project = linear(self.condition_dim, self.start_shape[0] * side * side, dense)
        options = {"kernel_size": 3, "padding": "same", "spectral": spectral}
        self.lift = LiftingConv2d(scalar(group, self.start_shape[0]), types[0], input_size=side, **options)
        self.blocks = nn.ModuleList()
        for before, after in itertools.pairwise(types):
            condition = self.condition_dim if norm else None
            self.blocks.append(UpBlock(before, after, side, condition, spectral, momentum))
            side *= 2
        self.norm = FieldBatchNorm2d(types[-1], momentum=momentum) if norm else nn.Identity()
        colours = regular(group, image_shape[0])
        self.last = GroupConv2d(types[-1], colours, input_size=side, **options)
        self.pool = GroupPool(colours)

    def draw(
        self, first: Float[Tensor, "batch channels side side"], condition: Float[Tensor, "batch condition"]
    ) -> Float[Tensor, "batch colours height width"]:
        x = self.lift(first)
        for block in self.blocks:
            x = block(x, condition)
        return self.pool(self.last(nn.functional.leaky_relu(self.norm(x), SLOPE))).tanh()


class ResidualBody(ChainBody):
    """Residual blocks that halve the map down to 4 to 7 sites a side, then the pools over fiber and space.

    Args:
        image_shape: (channels, side, side); the side is halved while it is even and above 7.
        group: plane group of the square lattice.
        width: Z2-equivalent width of the first block; it doubles with each block, up to 8 times.
        match: what stays equal between groups.
        spectral: kind of spectral norm, or None.
        pool: over the fiber.

    References:
        Miyato et al., arXiv:1802.05957, appendix B; over a group: Dey et al., arXiv:2005.01683.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        group: PlaneGroup,
        width: int = 16,
        match: Match = "parameters",
        spectral: SpectralKind | None = None,
        pool: PoolMode = "max",
    ) -> None:
        super().__init__()
        side = square_side(image_shape, group, "ResidualBody")
        current: FieldType = scalar(group, image_shape[0])
        layers: list[nn.Module] = []
        for following in _widths(width, halvings(side, "ResidualBody"), group, match)[1:]:
            layers.append(DownBlock(current, following, side, spectral, first=not layers))
            current, side = following, side // 2
        pools = GroupPool(current, pool), GlobalPool2d("mean")
        self.maps = FieldSequential(*layers, nn.LeakyReLU(SLOPE), *pools)
        self.features, self.group = current.multiplicity, group


class ResidualDiscriminator(BodyDiscriminator):
    """A residual body and a dense head over any plane group.

    Args:
        image_shape: (channels, side, side); 4 to 7 times a power of two.
        group: plane group of the square lattice.
        width: Z2-equivalent width at full size; blocks have 2, 4 and 8 times as many.
        num_classes, conditioning: classes, and what their labels do (``HeadedDiscriminator``).
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        group: PlaneGroup,
        width: int = 16,
        match: Match = "parameters",
        spectral: SpectralKind | None = None,
        pool: PoolMode = "max",
        num_classes: int = 0,
        conditioning: Conditioning = "projection",
    ) -> None:
        body = ResidualBody(image_shape, group, width, match, spectral, pool)
        super().__init__(image_shape, body, nn.Identity(), spectral is not None, num_classes, conditioning)
