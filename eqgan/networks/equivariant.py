"""Generators over any plane group, and the random group element that makes the law of samples invariant."""

import itertools
from abc import abstractmethod

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from eqgan.groups import SQUARE_PLANE_GROUPS, PlaneGroup, regular, scalar
from eqgan.networks.budget import Match, fields_for
from eqgan.networks.generators import Generator
from eqgan.networks.parts import square_side
from eqgan.nn import (
    ConditionalFieldBatchNorm2d,
    GroupConv2d,
    GroupPool,
    LiftingConv2d,
    SpectralKind,
    UpsampleConv2d,
    act_each,
    linear,
)


class EquivariantGenerator(Generator):
    """A first map made by a dense layer, then layers that are exactly equivariant under a plane group.

    The dense layer is not, so the law of the samples is invariant only under an ``OrbitGenerator``, which
    moves the first map: G = draw(g first_map(z)) = g draw(first_map(z)).

    Attributes:
        group: that moves the image as it moves the first map.
        start_shape: (channels, side, side) of the first map, scalar fields.
    """

    group: PlaneGroup
    start_shape: tuple[int, int, int]
    project: nn.Module

    def first_map(
        self, condition: Float[Tensor, "batch condition"]
    ) -> Float[Tensor, "batch channels side side"]:
        """The dense projection."""
        return self.project(condition).view(-1, *self.start_shape)

    @abstractmethod
    def draw(
        self, first: Float[Tensor, "batch channels side side"], condition: Float[Tensor, "batch condition"]
    ) -> Float[Tensor, "batch colours height width"]:
        """The image of a first map, equivariant: the condition is a list of numbers that no element moves."""

    def forward(
        self, z: Float[Tensor, "batch latent"], labels: Int64[Tensor, "batch"] | None = None
    ) -> Float[Tensor, "batch channels height width"]:
        condition = self.condition(z, labels)
        return self.draw(self.first_map(condition), condition)


class OrbitGenerator(Generator):
    """Any generator with a random group element in its latent, which moves the sample: g G(z).

    Its law is exactly invariant under the group, whatever ``base`` has learnt. To an invariant discriminator
    the two are the same generator: it cannot see in which orientation an image is drawn, so it cannot teach
    ``base`` to draw all of them, and without the random element the samples gather at a few orientations.

    An equivariant ``base`` has its first map moved, before it is lifted to the group, as in the paper; that
    is the same image, from a smaller map. Of any other the image itself is moved.

    Args:
        base: the generator that is trained.
        group: plane group of the square lattice, usually the discriminator's.

    References:
        Birrell et al., arXiv:2202.01129 (structure-preserving GANs).
    """

    def __init__(self, base: Generator, group: PlaneGroup) -> None:
        super().__init__(base.image_shape, base.latent_dim + 1)
        _, height, width = base.image_shape
        if height != width or group.lattice != "square":
            raise ValueError(
                f"{group} does not map {height}x{width} images to themselves; use square images and one of "
                f"{', '.join(SQUARE_PLANE_GROUPS)}, or --symmetrise false"
            )
        self.base, self.group = base, group
        self.num_classes, self.condition_dim = base.num_classes, base.condition_dim

    def forward(
        self, z: Float[Tensor, "batch latent"], labels: Int64[Tensor, "batch"] | None = None
    ) -> Float[Tensor, "batch channels height width"]:
        return self.place(z[:, :-1], self.elements(z), labels)

    def elements(self, z: Float[Tensor, "batch latent"]) -> Int64[Tensor, "batch"]:
        """The element that the last entry of a latent picks: Phi of a standard normal is uniform."""
        uniform = torch.special.ndtr(z[:, -1].float())
        return (self.group.order * uniform).long().clamp_max(self.group.order - 1)

    def place(
        self,
        z: Float[Tensor, "batch latent"],
        elements: Int64[Tensor, "batch"],
        labels: Int64[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch channels height width"]:
        """g G(z) for latents of ``base`` and one element each; ``place(z, h g) = h place(z, g)``."""
        if isinstance(self.base, EquivariantGenerator) and self.base.group.contains(self.group):
            condition = self.base.condition(z, labels)
            return self.base.draw(self._move(elements, self.base.first_map(condition)), condition)
        images = self.base(z) if labels is None else self.base(z, labels)
        return self._move(elements, images)

    def _move(self, elements: Tensor, maps: Tensor) -> Tensor:
        return act_each(elements, maps, scalar(self.group, maps.shape[1]))


def symmetrised(generator: Generator, group: PlaneGroup) -> Generator:
    """The generator with a random element of ``group`` in its latent, or of its own if that has more.

    Args:
        generator: any.
        group: usually the discriminator's; the trivial one asks for nothing.

    Example:
        >>> from eqgan.groups import P2, P4
        >>> symmetrised(GroupGenerator((1, 8, 8), P4, width=4), P2).group.name
        'p4'
    """
    own = getattr(generator, "group", None)
    if own is not None and own.contains(group):
        group = own
    return OrbitGenerator(generator, group) if group.order > 1 else generator


class GroupGenerator(EquivariantGenerator):
    """The generator of Dey et al. over any plane group, of 3x3 windows.

    A dense layer to a quarter of the side, a lifting convolution, twice [nearest x2, convolution, conditional
    field batch norm, ReLU], a convolution to one field a colour, the maximum over the fiber, tanh. The scale
    and shift of a norm come from the latent and the class, and are shared over the fiber. Given z2 it is the
    plain PyTorch network of the same layers.

    Args:
        image_shape: (channels, side, side) with a side divisible by 4.
        group: plane group of the square lattice.
        latent_dim: length of the latent.
        width: Z2-equivalent width of the last hidden layer; those before have 2 and 4 times as many (128 in
            the paper, sized for a GPU).
        start: channels of the first map; default ``width``.
        match: what stays equal between groups (``budget.fields_for``).
        spectral: kind of spectral norm of the convolutions, or None; dense layers have that of their matrix.
        momentum: of the batch norms, the weight of the new batch (a Keras momentum of 0.9).
        num_classes, embedding: classes, and the length of their embedding beside the latent.

    Raises:
        ValueError: for images that are not square, a side not divisible by 4, or a hexagonal group.

    References:
        Dey et al., arXiv:2005.01683, appendix (Rotated MNIST). There the layers are normalised by the norm of
        the stored filter, and each group has an initialisation of its own; here all groups start alike.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        group: PlaneGroup,
        latent_dim: int = 64,
        width: int = 32,
        start: int | None = None,
        match: Match = "parameters",
        spectral: SpectralKind | None = "bank",
        momentum: float = 0.1,
        num_classes: int = 0,
        embedding: int = 64,
    ) -> None:
        super().__init__(image_shape, latent_dim, num_classes, embedding)
        side = square_side(image_shape, group, "GroupGenerator") // 4
        if image_shape[1] % 4:
            raise ValueError(
                f"size {image_shape[1]}: GroupGenerator doubles a map of a quarter of the side twice. "
                f"Use --size {4 * max(1, side)} or {4 * side + 4}, or --gen vanilla."
            )
        types = [regular(group, fields_for(factor * width, group, match)) for factor in (4, 2, 1)]
        self.group, dense = group, spectral is not None
        self.start_shape = (start or width, side, side)
        self.project = linear(self.condition_dim, self.start_shape[0] * side * side, dense)
        options = {"kernel_size": 3, "padding": "same", "spectral": spectral}
        gain = nn.init.calculate_gain("relu")
        self.lift = LiftingConv2d(
            scalar(group, self.start_shape[0]), types[0], input_size=side, gain=gain, **options
        )
        self.blocks = nn.ModuleList()
        for before, after in itertools.pairwise(types):
            side *= 2
            self.blocks.append(
                nn.ModuleDict(
                    {
                        "conv": UpsampleConv2d(
                            before, after, 3, bias=False, spectral=spectral, input_size=side, gain=gain
                        ),
                        "norm": ConditionalFieldBatchNorm2d(after, self.condition_dim, dense, momentum),
                    }
                )
            )
        colours = regular(group, image_shape[0])
        self.last = GroupConv2d(types[-1], colours, bias=False, input_size=side, **options)
        self.pool = GroupPool(colours)

    def draw(
        self, first: Float[Tensor, "batch channels side side"], condition: Float[Tensor, "batch condition"]
    ) -> Float[Tensor, "batch colours height width"]:
        x = self.lift(first).relu()
        for block in self.blocks:
            x = block["norm"](block["conv"](x), condition).relu()
        return self.pool(self.last(x)).tanh()
