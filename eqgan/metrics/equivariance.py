"""How far a network is from respecting a symmetry: every element of a group exactly, any angle measured.

Zero for an exact network, of order one for a blind one.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from eqgan.groups import FieldType, PlaneGroup, scalar
from eqgan.metrics.features import evaluating
from eqgan.metrics.rotation import rotate_images
from eqgan.nn import act

Network = nn.Module | Callable[[Tensor], Tensor]

_VALUES_AT_ONCE = 2**19
"""Of images in float64: a convolution there lays out every window of a batch, many times as much memory."""


@dataclass(frozen=True)
class ElementError:
    """What one group element does to a network's output that it should not.

    Args:
        element: its number in the point group.
        matrix: of the element, on (x, y) with y upwards.
        error: root mean square of the deviation, over the spread of the outputs between images.
        largest: largest deviation over the largest output; rounding if the law is kept exactly.
    """

    element: int
    matrix: tuple[tuple[int, int], tuple[int, int]]
    error: float
    largest: float


@dataclass(frozen=True)
class RotationError:
    """What a rotation does to a network's output that it should not.

    Args:
        degrees: the angle, counter-clockwise.
        error: root mean square of the deviation, over the spread of the outputs between images.
        psnr: of the same deviation, in dB, relative to the range of the output; EQ-R. None where the law is
            invariance; infinite where nothing deviates.
        pixels: share of the output that was compared.
    """

    degrees: float
    error: float
    psnr: float | None
    pixels: float


def orbit_errors(
    network: Network,
    images: Float[Tensor, "batch channels height width"],
    group: PlaneGroup,
    in_type: FieldType | None = None,
    out_type: FieldType | None = None,
) -> list[ElementError]:
    """The deviation f(g x) - g f(x) for every element g of the point group, in the precision of the images.

    Args:
        network: a module (run in eval mode) or any map.
        images: at least two, best in float64.
        group: whose elements are tried.
        in_type: of the images; by default they are scalar fields.
        out_type: of the output; None requires invariance, f(g x) = f(x).

    Raises:
        ValueError: for fewer than two images, an output that is not finite, is constant or changes from
            call to call, or shapes that the group does not map to themselves.

    Example:
        >>> x = torch.rand(4, 1, 6, 6, dtype=torch.float64)
        >>> from eqgan.groups import P4
        >>> [e.error < 1e-14 for e in orbit_errors(lambda x: x.mean((1, 2, 3)), x, P4)]
        [True, True, True, True]
        >>> orbit_errors(lambda x: x[:, 0, 0, 0], x, P4)[1].error > 0.1
        True
    """
    in_type = in_type or scalar(group, images.shape[1])
    matrices = group.point_group.elements
    require_closed(images, group)
    with _running(network):
        reference = reference_output(network, images)
        spread, scale = spread_of(reference), reference.abs().max().item()
        found = []
        for g, matrix in enumerate(matrices):
            moved = network(act(in_type.group.point_group.index(matrix), images, in_type))
            expected = reference if out_type is None else _moved(matrix, reference, out_type)
            if moved.shape != expected.shape:
                raise ValueError(
                    f"element {g} of {group}: expected an output of shape {tuple(expected.shape)}, "
                    f"got {tuple(moved.shape)}; the output has no such symmetry"
                )
            deviation = moved - expected
            error, largest = rms(deviation) / spread, deviation.abs().max().item() / scale
            plain = tuple(tuple(int(entry) for entry in line) for line in matrix)
            found.append(ElementError(g, plain, error, largest))
    return found


def invariance_error(
    network: nn.Module, images: Float[Tensor, "batch channels height width"], group: PlaneGroup
) -> float:
    """Mean over images and group elements of |f(x) - f(g x)|, over the standard deviation of f(x).

    Computed in float64, so that rounding in the network's own precision does not hide or fake a break.

    Args:
        network: from images to one number each, or to vectors (the error is then the mean over entries).
        images: at least two; square if the group has quarter turns.
        group: whose non-trivial elements are tried; 0 for the trivial group.

    Raises:
        ValueError: for fewer than two images, or a network that gives all of them the same score.
    """
    if len(images) < 2:
        raise ValueError(f"expected at least 2 images to measure the spread of scores, got {len(images)}")
    dtype = next((p.dtype for p in network.parameters()), torch.float64)
    at_once = max(1, _VALUES_AT_ONCE // images[0].numel())

    def scores(images: Tensor) -> Tensor:
        return torch.cat([network(few) for few in images.split(at_once)])

    try:
        with evaluating(network.double()):
            images = images.double()
            reference = scores(images)
            spread = reference.std(0).clamp_min(0)
            if not bool((spread > 0).any()):
                raise ValueError("the network gives every image the same score; its invariance says nothing")
            image_type = scalar(group, images.shape[1])
            errors = [
                (scores(act(g, images, image_type)) - reference).abs().mean(0) for g in range(1, group.order)
            ]
    finally:
        network.to(dtype)
    if not errors:
        return 0.0
    return (torch.stack(errors).mean(0) / spread)[spread > 0].mean().item()


def rotation_errors(
    network: Network,
    images: Float[Tensor, "batch channels height width"],
    degrees: Sequence[float | int],
    invariant: bool,
    value_range: float | None = None,
) -> list[RotationError]:
    """The deviation of f(rotated x) from f(x), or from rotated f(x), for any angles.

    Images should be 0 near and outside the largest disc (``smooth_images``, or ``disc`` times an image), so
    that no rotation loses a part of them. Where the output is an image, pixels whose interpolation reaches
    outside are left out of the comparison.

    Args:
        network: a module (run in eval mode) or any map; its output, if compared as an image, is made of
            scalar fields.
        images: at least two.
        degrees: the angles.
        invariant: whether f(rotated x) = f(x) is the law, or f(rotated x) = rotated f(x).
        value_range: of the output, for the PSNR; by default from its least to its largest value.

    Raises:
        ValueError: as ``orbit_errors``.

    References:
        Karras et al., arXiv:2106.12423, appendix E.3: EQ-R.
    """
    with _running(network):
        reference = reference_output(network, images)
        spread = spread_of(reference)
        value_range = value_range or (reference.max() - reference.min()).item()
        return [
            _rotation_error(network, images, reference, float(angle), invariant, spread, value_range)
            for angle in degrees
        ]


def eq_r(rotations: Sequence[RotationError]) -> float | None:
    """EQ-R over several angles, in dB: the PSNR of their mean squared deviation; None for invariance."""
    shares = [10 ** (-r.psnr / 10) for r in rotations if r.psnr is not None]
    if not shares:
        return None
    mean = sum(shares) / len(shares)
    return -10 * math.log10(mean) if mean else math.inf


def _rotation_error(
    network: Network,
    images: Tensor,
    reference: Tensor,
    degrees: float,
    invariant: bool,
    spread: float,
    value_range: float,
) -> RotationError:
    moved = network(rotate_images(images, degrees)[0])
    if invariant:
        return RotationError(degrees, rms(moved - reference) / spread, None, 1.0)
    expected, mask = rotate_images(reference, degrees)
    if not bool(mask.any()):
        raise ValueError(f"at {degrees:g} degrees no pixel of the output can be compared: it is too small")
    deviation = rms((moved - expected)[..., mask.to(moved.device)])
    psnr = 20 * math.log10(value_range / deviation) if deviation else math.inf
    return RotationError(degrees, deviation / spread, psnr, mask.double().mean().item())


def reference_output(network: Network, images: Tensor) -> Tensor:
    """The output for these images, which must say something about them."""
    if len(images) < 2:
        raise ValueError(f"expected at least 2 images to measure the spread of outputs, got {len(images)}")
    output, again = network(images), network(images)
    if not isinstance(output, Tensor) or output.ndim not in (1, 2, 4) or len(output) != len(images):
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(
            "expected an output of shape (batch,), (batch, values) or (batch, channels, height, width), "
            f"got {got} for {len(images)} images"
        )
    if not bool(output.isfinite().all()):
        raise ValueError("the output is not finite: look for diverged weights")
    if rms(output - again) > 1e-6 * rms(output):
        raise ValueError(
            "the same images give other outputs at the second call: the network draws random numbers even "
            "in eval mode, and nothing can be measured. Draw them from a fixed seed, or leave them out"
        )
    spread, size = spread_of(output), rms(output)
    if not spread > 1e-9 * size:
        raise ValueError(
            "the output does not depend on the image, of which every law holds; use other weights or images"
        )
    return output


def require_closed(images: Tensor, group: PlaneGroup) -> None:
    """Raises ValueError unless the group maps images of this shape to images of this shape."""
    height, width = images.shape[-2:]
    if height != width and any(matrix[0, 0] == 0 for matrix in group.point_group.elements):
        raise ValueError(
            f"{group} has quarter turns, which do not map {height}x{width} images to themselves. "
            "Use square images, or p2, pm or p2mm"
        )


def rms(values: Tensor) -> float:
    """Root mean square of all entries."""
    return values.double().square().mean().sqrt().item()


def spread_of(output: Tensor) -> float:
    """Root mean square of the outputs of images about their mean."""
    return rms(output - output.mean(0, keepdim=True))


def _moved(matrix: NDArray[np.int64], output: Tensor, out_type: FieldType) -> Tensor:
    group = out_type.group.point_group
    return act(group.index(matrix), output, out_type)


def _running(network: Network):  # type: ignore[no-untyped-def]
    return evaluating(network) if isinstance(network, nn.Module) else torch.no_grad()
