"""The body of residual networks over any plane group: a stem, stages of blocks, and sizes that stay exact."""

import math
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from eqgan.groups import FieldType, PlaneGroup, regular, scalar
from eqgan.networks.budget import Match, fields_for
from eqgan.networks.fiber import FiberPool, pools_after
from eqgan.networks.parts import Body, odd_window, sides_through, square_side
from eqgan.nn import (
    EvalFusion,
    FieldBatchNorm2d,
    FieldSequential,
    GlobalPool2d,
    GroupConv2d,
    GroupPool,
    MaxPool2d,
)
from eqgan.nn.pooling import PoolMode

Stem = Literal["large", "pooled", "small"]
_STEMS = {"large": (7, 2), "pooled": (7, 1), "small": (3, 1)}  # window on odd images, stride
_LARGE = 64  # sites a side, below which the large stem leaves the later stages little


class ResidualBlock(nn.Module):
    """Two convolutions with batch norm per field beside a shortcut, which is a 1x1 convolution where types or
    sizes differ.

    Args:
        in_type, out_type: field types of one group.
        kernel_size: odd.
        stride: of the first convolution and of the shortcut.
        side: of the maps that come in; with stride 2 an odd one.
        preactivation: norm and rectifier before each convolution (He et al. 2016b) and none on the sum.

    References:
        He et al., arXiv:1512.03385 (figure 2) and, for ``preactivation``, arXiv:1603.05027 (figure 4e).
    """

    def __init__(
        self,
        in_type: FieldType,
        out_type: FieldType,
        kernel_size: int,
        stride: int,
        side: int,
        preactivation: bool,
    ) -> None:
        super().__init__()
        self.in_type, self.out_type, self.preactivation = in_type, out_type, preactivation
        form: dict[str, Any] = {"padding": kernel_size // 2, "bias": False, "gain": math.sqrt(2)}
        self.conv1 = GroupConv2d(in_type, out_type, kernel_size, stride, input_size=side, **form)
        self.conv2 = GroupConv2d(out_type, out_type, kernel_size, **form)
        self.bn1 = FieldBatchNorm2d(in_type if preactivation else out_type)
        self.bn2 = FieldBatchNorm2d(out_type)
        self._first, self._second = EvalFusion(), EvalFusion()
        self.shortcut: nn.Module | None = None
        if stride > 1 or in_type != out_type:
            project = GroupConv2d(in_type, out_type, 1, stride, bias=False, input_size=side)
            norm = [] if preactivation else [FieldBatchNorm2d(out_type)]
            self.shortcut = FieldSequential(project, *norm)

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch out_channels height2 width2"]:
        beside = x if self.shortcut is None else self.shortcut(x)
        if self.preactivation:
            return beside + self.conv2(self._first.rectified(self.conv1, self.bn2, self.bn1(x).relu()))
        inner = self._first.rectified(self.conv1, self.bn1, x)
        return (beside + self._second(self.conv2, self.bn2, inner)).relu()

    def train(self, mode: bool = True) -> "ResidualBlock":
        self._first.clear()
        self._second.clear()
        return super().train(mode)


class ResNetBody(Body):
    """A stem, stages of residual blocks, and the pools over fiber and space.

    Every stage but the first halves its maps with windows that are exact on odd sizes only. The stem makes
    the first map odd: on an even image its window is one wider than usual (``odd_window``). What then still
    meets an even map is refused, with sizes that work: 32 and 33 with the small stem, 224 and 225 with the
    large one.

    Args: as for ``GroupResNet``.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        group: PlaneGroup,
        blocks: tuple[int, ...],
        widths: tuple[int, ...],
        match: Match = "parameters",
        stem: Stem = "large",
        stem_window: int | None = None,
        kernel_size: int = 3,
        preactivation: bool = False,
        pool: PoolMode = "mean",
        fiber: FiberPool | None = None,
    ) -> None:
        super().__init__()
        _check_layout(blocks, widths, stem, kernel_size)
        side = square_side(image_shape, group, "GroupResNet")
        if fiber is not None:
            fiber.check(len(blocks) + 1, "GroupResNet")

        def windows(side: int) -> list[tuple[int, int, int]]:
            usual, stride = _STEMS[stem]
            first = stem_window or odd_window(side, usual)
            halvings = len(blocks) - (stem == "small")
            return [(first, stride, first // 2), *[(3, 2, 1)] * halvings]

        small = stem != "small" and side < _LARGE
        remedy = "Images this small are for the small stem: --network.stem small." if small else ""
        sides = sides_through(side, windows, group, "GroupResNet", remedy)[-len(blocks) :]
        fields = [fields_for(width, group, match) for width in widths]
        start = _start(image_shape[0], regular(group, fields[0]), windows(side)[0], stem, preactivation)
        self.stem = FieldSequential(*start, *pools_after(1, regular(group, fields[0]), fiber))
        self.residual = nn.ModuleList()
        current = self.stem.out_type
        for number, count in enumerate(blocks):
            following = regular(current.group, fields[number])
            step = (1, sides[0]) if number == 0 else (2, sides[number - 1])
            chain = [ResidualBlock(current, following, kernel_size, *step, preactivation)]
            chain += [
                ResidualBlock(following, following, kernel_size, 1, sides[number], preactivation)
                for _ in range(count - 1)
            ]
            self.residual.append(FieldSequential(*chain, *pools_after(number + 2, following, fiber)))
            current = self.residual[-1].out_type
        last = [FieldBatchNorm2d(current), nn.ReLU()] if preactivation else []
        self.last = FieldSequential(*last, GroupPool(current, pool), GlobalPool2d("mean"))
        self.features, self.group = current.multiplicity, current.group

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch features"]:
        x = self.stem(x)
        for stage in self.residual:
            x = stage(x)
        return self.last(x)

    def stages(self) -> dict[str, nn.ModuleList]:
        """stem, stage1, stage2, ...; the norm of a pre-activation network belongs to its last stage."""
        parts = {"stem": nn.ModuleList([self.stem])}
        parts |= {f"stage{i}": nn.ModuleList([stage]) for i, stage in enumerate(self.residual, 1)}
        parts[f"stage{len(self.residual)}"].append(self.last)
        return parts


def _start(
    channels: int, out_type: FieldType, window: tuple[int, int, int], stem: Stem, preactivation: bool
) -> list[nn.Module]:
    """The first convolution, its norm, and the pool of all stems but the small one."""
    conv = GroupConv2d(scalar(out_type.group, channels), out_type, *window, bias=False, gain=math.sqrt(2))
    norm = [] if preactivation else [FieldBatchNorm2d(out_type), nn.ReLU()]
    return [conv, *norm, *([] if stem == "small" else [MaxPool2d(out_type, 3, 2, 1)])]


def _check_layout(blocks: tuple[int, ...], widths: tuple[int, ...], stem: str, kernel_size: int) -> None:
    if not blocks or len(blocks) != len(widths) or min(blocks) < 1:
        raise ValueError(
            f"expected as many widths as stages, each of at least 1 block, got blocks {blocks} and "
            f"widths {widths}"
        )
    if stem not in _STEMS:
        raise ValueError(f"expected stem in {tuple(_STEMS)}, got {stem!r}")
    if kernel_size % 2 == 0:
        raise ValueError(f"expected an odd kernel_size in residual blocks, got {kernel_size}")
