"""Where inside a network a symmetry breaks: its feature maps under the group, layer by layer."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeGuard

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from eqgan.groups import FieldType, PlaneGroup, scalar
from eqgan.metrics.equivariance import require_closed, rms, spread_of
from eqgan.metrics.features import evaluating
from eqgan.nn import act

MOST_CHANNELS = 1024  # to match with each other; the cost of an assignment is cubic


@dataclass(frozen=True)
class LayerError:
    """How well the output of one layer follows the group.

    Args:
        name: of the layer in the network, numbered where it is used several times.
        kind: its class.
        shape: of its output, without the batch.
        action: how the group was taken to act on the output: "typed" by the layer's own ``out_type``,
            "scalar" where channels stay in place, "permuted" where the best permutation of channels was
            sought, "untested" where none of these can be.
        error: the largest over the elements, as in ``ElementError``; None if untested.
        input_error: the same of what the layer was given, None if untested.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    action: str
    error: float | None
    input_error: float | None


class Pass(NamedTuple):
    """A layer with what it was given and what it made of it."""

    layer: nn.Module
    input: Tensor | None
    output: Tensor


def layer_errors(
    network: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    group: PlaneGroup,
    in_type: FieldType | None = None,
) -> list[LayerError]:
    """The deviation of every layer's output for moved images from its moved output, in order of execution.

    A layer with an ``out_type`` is held to it. Elsewhere nothing is assumed of the channels but that the
    group permutes them: among scalar channels not at all, in regular or quotient fields of any layout in
    some way. The permutation that fits best is found on one half of the images and judged on the other.
    Steerable fields, whose channels mix, fit none: give such layers an ``out_type``, or look at the output.

    Args:
        network: run in eval mode, as it is.
        images: at least four, best in float64.
        group: whose elements are tried.
        in_type: of the images; by default they are scalar fields.

    Raises:
        ValueError: for fewer than four images, or shapes that the group does not map to themselves.
    """
    if len(images) < 4:
        raise ValueError(f"expected at least 4 images to find and judge permutations, got {len(images)}")
    require_closed(images, group)
    in_type = in_type or scalar(group, images.shape[1])
    with evaluating(network), _recorded(network) as passes:
        network(images)
        still = dict(passes)
        found: dict[str, LayerError] = {}
        for matrix in group.point_group.elements[1:]:
            passes.clear()
            network(act(in_type.group.point_group.index(matrix), images, in_type))
            for name in [name for name in still if name in passes]:
                now = _layer_error(name, still[name], passes[name], matrix, group)
                found[name] = now if name not in found else _worse(found[name], now)
    return list(found.values())


def where_it_breaks(layers: list[LayerError], tolerance: float) -> LayerError | None:
    """The last layer that is given something that follows the group and makes of it something that does not.

    The last, because a sum over the group may mend what was broken before. If there is none, because it
    breaks between two layers, the first layer that is given something broken; None if nothing breaks.
    """
    broken = [layer for layer in layers if layer.error is not None and layer.error > tolerance]
    guilty = [one for one in broken if one.input_error is not None and one.input_error <= tolerance]
    if not guilty:
        return broken[0] if broken else None
    inside = [one for one in guilty if one.name.startswith(guilty[-1].name + ".")]
    return inside[-1] if inside else guilty[-1]


@contextmanager
def _recorded(network: nn.Module) -> Iterator[dict[str, Pass]]:
    """What the modules did, by name, as it comes; containers only where they add to their last part."""
    passes: dict[str, Pass] = {}

    def keep(name: str):  # type: ignore[no-untyped-def]
        def hook(layer: nn.Module, given: tuple[object, ...], output: object) -> None:
            if not _is_map(output):
                return
            last = next(reversed(passes.values()), None)
            if last is not None and any(True for _ in layer.children()) and torch.equal(last.output, output):
                return
            times = sum(key.split("#")[0] == name for key in passes)
            first = given[0].detach() if given and _is_map(given[0]) else None
            # copies: the next layer may work in place
            passes[name if not times else f"{name}#{times + 1}"] = Pass(
                layer, first if first is None else first.clone(), output.detach().clone()
            )

        return hook

    # the modules of a parametrisation compute weights, not feature maps
    layers = [
        (name, layer) for name, layer in network.named_modules() if name and "parametrizations" not in name
    ]
    hooks = [layer.register_forward_hook(keep(name)) for name, layer in layers]
    try:
        yield passes
    finally:
        for hook in hooks:
            hook.remove()


def _is_map(value: object) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.ndim in (2, 4) and value.is_floating_point()


def _layer_error(
    name: str, still: Pass, moved: Pass, matrix: NDArray[np.int64], group: PlaneGroup
) -> LayerError:
    layer = still.layer
    action, error = _error(still.output, moved.output, _type(layer, "out_type"), matrix, group)
    given = None
    if still.input is not None and moved.input is not None:
        given = _error(still.input, moved.input, _type(layer, "in_type"), matrix, group)[1]
    return LayerError(name, type(layer).__name__, tuple(still.output.shape[1:]), action, error, given)


def _type(layer: nn.Module, attribute: str) -> FieldType | None:
    found = getattr(layer, attribute, None)
    return found if isinstance(found, FieldType) else None


def _error(
    still: Tensor, moved: Tensor, known: FieldType | None, matrix: NDArray[np.int64], group: PlaneGroup
) -> tuple[str, float | None]:
    """How the group was taken to act on a map, and how far the moved map is from that."""
    spread, channels = spread_of(still), still.shape[1]
    if not spread > 0 or still.shape[0] != moved.shape[0]:
        return "untested", None  # the same for all images: says nothing
    if known is not None and _has(known, matrix) and still.ndim == 4 and channels == known.channels:
        expected = act(known.group.point_group.index(matrix), still, known)
        return "typed", _ratio(moved, expected, spread)
    expected = still
    if still.ndim == 4:
        expected = act(group.point_group.index(matrix), still, scalar(group, channels))
    error = _ratio(moved, expected, spread)
    if error is None or error < 1e-8 or not 1 < channels <= MOST_CHANNELS:
        return ("untested" if error is None else "scalar"), error
    permuted = _permuted_error(expected, moved) / spread
    return ("permuted", permuted) if permuted < error else ("scalar", error)


def _ratio(moved: Tensor, expected: Tensor, spread: float) -> float | None:
    return rms(moved - expected) / spread if moved.shape == expected.shape else None


def _has(out_type: FieldType, matrix: NDArray[np.int64]) -> bool:
    return bool((out_type.group.point_group.elements == matrix).all((1, 2)).any())


def _permuted_error(expected: Tensor, moved: Tensor) -> float:
    """Root mean square of what no permutation of the channels explains, on images not used to find it."""
    half = len(expected) // 2
    ours, theirs = (x[:half].transpose(0, 1).flatten(1).double() for x in (expected, moved))
    cost = torch.cdist(theirs, ours).square().cpu().numpy()
    order = torch.from_numpy(linear_sum_assignment(cost)[1]).to(expected.device)
    return rms(moved[half:] - expected[half:][:, order])


def _worse(one: LayerError, other: LayerError) -> LayerError:
    """The element at which the output is further off, with the largest deviation of the input at any."""
    given = [e.input_error for e in (one, other) if e.input_error is not None]
    worst = max(one, other, key=lambda e: -1.0 if e.error is None else e.error)
    return replace(worst, input_error=max(given, default=None))
