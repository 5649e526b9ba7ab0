"""All-CNN-C over any plane group: nine convolutions, two of them strided, and nothing else."""

from torch import nn

from eqgan.groups import FieldType, PlaneGroup, regular, scalar
from eqgan.networks.budget import Match, fields_for
from eqgan.networks.classifiers import BodyClassifier
from eqgan.networks.fiber import FiberPool, pools_after
from eqgan.networks.parts import ChainBody, conv_layer, odd_window, sides_through, square_side
from eqgan.nn import FieldSequential, GlobalPool2d, GroupPool
from eqgan.nn.pooling import PoolMode


class AllCNNBody(ChainBody):
    """Nine layers [convolution, batch norm per field, ReLU]: 3x3 but for the last two, the third and sixth
    with stride 2, the seventh without padding; then the pools over fiber and space.

    A 3x3 window with stride 2 and padding 1 keeps odd sizes exactly and no even one. So on an even image the
    first window is 4x4 with padding 2, which leaves 33 of 32 sites (33-33-17-17-17-9-7), and all that follows
    is the paper's (32-32-16-16-16-8-6); it costs 2,016 weights of 1.37 million.

    Args:
        image_shape: (channels, side, side), such as 28, 32 or 33.
        group: plane group of the square lattice.
        top_fields: fields of the last layer.
        width: Z2-equivalent width of the first three layers; the other five have twice as many.
        match: what stays equal between groups.
        dropout: on the image and after each strided layer.
        pool: over the fiber, after the last layer.
        fiber: pool over part of the fiber after some of layers 1 to 8.
        stem_window: of the first layer; 3 is the paper's, exact on an even image for z2 only.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        group: PlaneGroup,
        top_fields: int,
        width: int = 96,
        match: Match = "parameters",
        dropout: tuple[float, float, float] = (0.2, 0.5, 0.5),
        pool: PoolMode = "mean",
        fiber: FiberPool | None = None,
        stem_window: int | None = None,
    ) -> None:
        super().__init__()
        side = square_side(image_shape, group, "All-CNN-C")
        if fiber is not None:
            fiber.check(8, "All-CNN-C")

        def windows(side: int) -> list[tuple[int, int, int]]:
            stem = stem_window or odd_window(side, 3)
            three = [(3, 1, 1), (3, 1, 1), (3, 2, 1)]
            return [(stem, 1, stem // 2), *three[1:], *three, (3, 1, 0), (1, 1, 0), (1, 1, 0)]

        sides = [side, *sides_through(side, windows, group, "All-CNN-C")]
        fields = [fields_for(n * width, group, match) for n in (1, 1, 1, 2, 2, 2, 2, 2)] + [top_fields]
        layers: list[nn.Module] = [nn.Dropout(dropout[0])]
        current: FieldType = scalar(group, image_shape[0])
        for depth, ((window, stride, padding), count) in enumerate(zip(windows(side), fields), 1):
            layers += conv_layer(current, count, window, sides[depth - 1], stride, padding)
            current = regular(current.group, count)
            for pooling in pools_after(depth, current, fiber) if depth < 9 else ():
                layers.append(pooling)
                current = pooling.out_type
            if stride == 2:
                layers.append(nn.Dropout(dropout[depth // 3]))
        self.maps = FieldSequential(*layers, GroupPool(current, pool), GlobalPool2d("mean"))
        self.features, self.group = top_fields, current.group


class AllCNN(BodyClassifier):
    """All-CNN-C with any plane group; its last layer's fields are the classes.

    With three channels of 32 sites and ten classes (first window 4x4) it has 1,374,270 parameters for z2 (96
    and 192 channels), 1,372,014 for p4 (48 and 96 fields), 1,377,132 for p4m (34 and 68) and, with
    ``width=90``, 1,220,350 for p4m (32 and 64 fields, as in the paper, which states 1.37, 1.37 and 1.22
    million). After Springenberg et al. the last layer has a rectifier too and, after Cohen & Welling, batch
    norm: no logit is negative.

    Args:
        image_shape: (channels, side, side), such as 28, 32 or 33.
        num_classes: how many classes.
        group: plane group of the square lattice.
        width: Z2-equivalent width of the first three layers; the other five have twice as many.
        match: what stays equal between groups.
        dropout: on the image and after each strided layer.
        pool: over the fiber, after the last layer.
        fiber: pool over part of the fiber after some of layers 1 to 8.
        stem_window: of the first layer; 3 is the paper's, exact on an even image for z2 only.

    References:
        Springenberg et al., arXiv:1412.6806; Cohen & Welling, arXiv:1602.07576, section 8.2.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        group: PlaneGroup,
        width: int = 96,
        match: Match = "parameters",
        dropout: tuple[float, float, float] = (0.2, 0.5, 0.5),
        pool: PoolMode = "mean",
        fiber: FiberPool | None = None,
        stem_window: int | None = None,
    ) -> None:
        body = AllCNNBody(image_shape, group, num_classes, width, match, dropout, pool, fiber, stem_window)
        super().__init__(image_shape, num_classes, body)
