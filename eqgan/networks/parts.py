"""What bodies share: the chain from image to features, its layers, and the sizes that keep it exact."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from eqgan.groups import SQUARE_PLANE_GROUPS, FieldType, PlaneGroup, regular
from eqgan.nn import FieldBatchNorm2d, FieldSequential, GroupConv2d, SpectralKind, output_size

Windows = Callable[[int], list[tuple[int, int, int]]]  # (window, stride, padding) of each layer, for a side


def square_side(image_shape: tuple[int, int, int], group: PlaneGroup, what: str) -> int:
    """The side of a square image.

    Raises:
        ValueError: if the image is not square, or the group does not live on the square lattice.
    """
    _, height, width = image_shape
    if height != width:
        raise ValueError(f"{what} expected square images, got {height}x{width}; resize them (--size)")
    if group.lattice != "square":
        raise ValueError(
            f"{what} works on square pixels, which {group} does not map to themselves. "
            f"Use one of {', '.join(SQUARE_PLANE_GROUPS)}."
        )
    return height


def halved(side: int, above: int) -> tuple[int, int]:
    """How often a side is halved while it is even and above so many sites, and what is left of it.

    >>> halved(28, above=8), halved(96, above=8)
    ((2, 7), (4, 6))
    """
    count = 0
    while side % 2 == 0 and side > above:
        side, count = side // 2, count + 1
    return count, side


def require_widths(*widths: int) -> None:
    """Raises ValueError unless every layer has at least one unit or channel."""
    if min(widths, default=1) < 1:
        raise ValueError(f"expected a width of at least 1, got {', '.join(map(str, widths))}")


def doubled_widths(width: int, count: int) -> list[int]:
    """One width more than halvings, doubled with each of them, up to 8 times.

    >>> doubled_widths(16, 4)
    [16, 32, 64, 128, 128]
    """
    return [width * min(8, 2**k) for k in range(count + 1)]


def odd_window(side: int, window: int) -> int:
    """The window that, padded by half of itself, leaves an odd map: one wider on an even image."""
    return window if side % 2 else window + 1


def sides_through(side: int, windows: Windows, group: PlaneGroup, what: str, remedy: str = "") -> list[int]:
    """The sides of the maps behind each (window, stride, padding) that an image of this side passes.

    Args:
        remedy: what may be done beside taking another size, a sentence.

    Raises:
        ValueError: if one of them would break the symmetry, naming the nearest image sizes that work.
    """
    try:
        return _sides(side, windows, group, what)
    except ValueError as error:
        fitting = [s for s in range(max(1, side // 2), 2 * side + 64) if _fits(s, windows, group)]
        nearest = sorted(sorted(fitting, key=lambda s: abs(s - side))[:4])
        raise ValueError(
            f"size {side}: {error} Image sizes that {what} takes: "
            f"{', '.join(map(str, nearest))}, ... (--size){remedy and ' '}{remedy}"
        ) from None


def _sides(side: int, windows: Windows, group: PlaneGroup, what: str) -> list[int]:
    sides = [side]
    for window, stride, padding in windows(side):
        sides.append(output_size(sides[-1], window, stride, padding, group, what))
    return sides[1:]


def _fits(side: int, windows: Windows, group: PlaneGroup) -> bool:
    try:
        return bool(_sides(side, windows, group, ""))
    except ValueError:
        return False


class Body(nn.Module, ABC):
    """From images to features that the group leaves as they are.

    Attributes:
        features: how many.
        group: the plane group under which they are invariant.
    """

    features: int
    group: PlaneGroup

    @abstractmethod
    def stages(self) -> dict[str, nn.ModuleList]:
        """Its parts from image to features, in order; together they hold every parameter once."""


class ChainBody(Body):
    """A chain of layers, ``maps``, that ends in the pool over the fiber, and leaves or pools all sites."""

    maps: FieldSequential

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch features"]:
        return self.maps(x).flatten(1)

    def stages(self) -> dict[str, nn.ModuleList]:
        """Each convolution, or block of them, with what follows it: layer1, layer2, ..."""
        parts: list[list[nn.Module]] = [[]]
        for layer in self.maps:
            if _convolves(layer) and any(map(_convolves, parts[-1])):
                parts.append([])
            parts[-1].append(layer)
        return {f"layer{i}": nn.ModuleList(part) for i, part in enumerate(parts, 1)}


def _convolves(layer: nn.Module) -> bool:
    return any(isinstance(part, GroupConv2d) for part in layer.modules())


def conv_layer(
    before: FieldType,
    fields: int,
    kernel: int,
    side: int,
    stride: int = 1,
    padding: int = 0,
    spectral: SpectralKind | None = None,
    batch_norm: bool = True,
    slope: float = 0.0,
) -> list[nn.Module]:
    """A convolution to regular fields on maps of this side, batch norm per field, and a rectifier."""
    after = regular(before.group, fields)
    gain = math.sqrt(2 / (1 + slope**2))
    conv = GroupConv2d(before, after, kernel, stride, padding, spectral=spectral, input_size=side, gain=gain)
    norm = [FieldBatchNorm2d(after)] if batch_norm else []
    return [conv, *norm, nn.LeakyReLU(slope) if slope else nn.ReLU()]
