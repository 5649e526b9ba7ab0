"""Chains of layers: one that joins layers in eval, one whose field types are checked when it is built."""

from collections import OrderedDict, defaultdict

from jaxtyping import Float
from torch import Tensor, nn

from eqgan.nn.eager import only_numbers_wanted
from eqgan.nn.fusion import EvalFusion, followed, is_plain_convolution, pool_joined, rectifier_slope


class FusedSequential(nn.Sequential):
    """``nn.Sequential`` that without gradients does a convolution and the rectifier and the maximum over
    cosets after it at once, in eval with the batch norm between them (``EvalFusion``): the same numbers, up
    to rounding.
    """

    def __init__(self, *layers: nn.Module | OrderedDict[str, nn.Module]) -> None:
        super().__init__(*layers)  # type: ignore[arg-type]
        self._fusions: dict[int, EvalFusion] = defaultdict(EvalFusion)

    def forward(self, input: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        return self._fused(input) if only_numbers_wanted() else super().forward(input)

    def _fused(self, x: Tensor) -> Tensor:
        layers, place = list(self), 0
        while place < len(layers):
            layer, after = layers[place], place + 1
            both = self._fusions[place].joined(layer, layers[after]) if after < len(layers) else None
            if both is not None:
                layer, after = both, after + 1
            x, done = _called_with_next(layer, layers[after : after + 2], x)
            place = after + done
        return x

    def train(self, mode: bool = True) -> "FusedSequential":
        self._fusions.clear()
        return super().train(mode)


def _called_with_next(layer: nn.Module, following: list[nn.Module], x: Tensor) -> tuple[Tensor, int]:
    """A layer, at once with what may be of the two that follow; and how many these are."""
    if not is_plain_convolution(layer):
        return layer(x), 0
    slope = rectifier_slope(following[0]) if following else None
    rest = following if slope is None else following[1:]
    pool = pool_joined(layer, rest[0], slope) if rest else None
    return followed(layer, x, slope, pool), (slope is not None) + (pool is not None)


class FieldSequential(FusedSequential):
    """A chain that refuses layers whose ``in_type`` is not the ``out_type`` before them.

    Layers without types (pointwise nonlinearities, dropout) leave the type as it is.

    Raises:
        ValueError: naming the two layers and their types.
    """

    def __init__(self, *layers: nn.Module | OrderedDict[str, nn.Module]) -> None:
        super().__init__(*layers)
        self.in_type = self.out_type = None
        for position, layer in enumerate(self):
            in_type = getattr(layer, "in_type", None)
            if in_type is None:
                continue
            if self.out_type is not None and in_type != self.out_type:
                raise ValueError(
                    f"layer {position} ({type(layer).__name__}) expects {in_type}, "
                    f"but the layers before it give {self.out_type}"
                )
            self.in_type = self.in_type or in_type
            self.out_type = getattr(layer, "out_type", in_type)
