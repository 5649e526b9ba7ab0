"""Residual networks over any plane group: one class for ResNet-18, ResNet-44, and a wide-kernelled one."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eqgan.groups import PlaneGroup
from eqgan.networks.budget import Match
from eqgan.networks.classifiers import BodyClassifier
from eqgan.networks.fiber import FiberPool
from eqgan.networks.resnet_body import ResNetBody, Stem
from eqgan.nn.pooling import PoolMode


class Standardise(nn.Module):
    """Images in [-1, 1] as another network was given them: in [0, 1], less a mean, over a deviation.

    Grey images become one channel for each mean.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: tuple[float, ...], deviation: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation)[:, None, None], persistent=False)

    def forward(self, x: Float[Tensor, "batch in_channels h w"]) -> Float[Tensor, "batch channels h w"]:
        return (x / 2 + 0.5 - self.mean) / self.deviation


class GroupResNet(BodyClassifier):
    """A residual network over any plane group with a linear head on features pooled over fiber and space.

    Given z2 it is the plain network; with blocks (2, 2, 2, 2), widths from 64 and the large stem on an odd
    image that is torchvision's ResNet-18, weight for weight.

    Args:
        image_shape: (channels, side, side).
        num_classes: how many classes.
        group: plane group of the square lattice.
        blocks: residual blocks of each stage; every stage but the first halves the maps.
        widths: Z2-equivalent width of each stage.
        match: what stays equal between groups.
        stem: ``"large"``, a 7x7 window with stride 2 and a max pool with stride 2; ``"pooled"``, the same
            window without a stride and the pool; or ``"small"``, a 3x3 window.
        stem_window: another first window; by default the usual one, one wider on an even image, which makes
            the maps odd and every stride exact.
        kernel_size: of the windows in the blocks.
        preactivation: norm and rectifier before each convolution.
        pool: over the fiber, after the last stage.
        fiber: pool over part of the fiber after the stem (1) or a stage (2, 3, ...).
        input_mean, input_deviation: a channel's mean and deviation of images in [0, 1] with which borrowed
            weights were trained; the network standardises its images so, grey ones as that many channels.

    Raises:
        ValueError: for an image size whose strides would break the symmetry, naming sizes that work.

    References:
        He et al., arXiv:1512.03385; Cohen & Welling, arXiv:1602.07576, section 8.2.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        group: PlaneGroup,
        blocks: tuple[int, ...] = (2, 2, 2, 2),
        widths: tuple[int, ...] = (64, 128, 256, 512),
        match: Match = "parameters",
        stem: Stem = "large",
        stem_window: int | None = None,
        kernel_size: int = 3,
        preactivation: bool = False,
        pool: PoolMode = "mean",
        fiber: FiberPool | None = None,
        input_mean: tuple[float, ...] | None = None,
        input_deviation: tuple[float, ...] | None = None,
    ) -> None:
        form: dict[str, Any] = {"match": match, "stem": stem, "stem_window": stem_window}
        form |= {"kernel_size": kernel_size, "preactivation": preactivation, "pool": pool, "fiber": fiber}
        channels = _channels(image_shape[0], input_mean, input_deviation)
        body = ResNetBody((channels, *image_shape[1:]), group, tuple(blocks), tuple(widths), **form)
        super().__init__(image_shape, num_classes, body, nn.Linear(body.features, num_classes))
        self.standardise: nn.Module = nn.Identity()
        if input_mean is not None and input_deviation is not None:
            self.standardise = Standardise(tuple(input_mean), tuple(input_deviation))
        form |= {"input_mean": input_mean, "input_deviation": input_deviation}
        self.layout = {"blocks": tuple(blocks), "widths": tuple(widths), **form}

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        return super().forward(self.standardise(x))


def _channels(channels: int, mean: tuple[float, ...] | None, deviation: tuple[float, ...] | None) -> int:
    if mean is None and deviation is None:
        return channels
    if len(mean or ()) != len(deviation or ()) or channels not in (1, len(mean or ())):
        raise ValueError(
            f"expected a mean and a deviation for each of {channels} channels, got {mean} and {deviation}"
        )
    return len(mean or ())


class ResNet18(GroupResNet):
    """ResNet-18 over any plane group, torchvision's layout: four stages of two blocks, widths 1, 2, 4 and 8
    times the first. Images such as 224 and 225 with the large stem, 32 and 33 with the small one.

    Args: as for ``GroupResNet``; ``width`` is the Z2-equivalent width of the first stage.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        group: PlaneGroup,
        width: int = 64,
        match: Match = "parameters",
        stem: Stem = "large",
        stem_window: int | None = None,
        pool: PoolMode = "mean",
        fiber: FiberPool | None = None,
        input_mean: tuple[float, ...] | None = None,
        input_deviation: tuple[float, ...] | None = None,
    ) -> None:
        form: dict[str, Any] = {"match": match, "stem": stem, "stem_window": stem_window, "pool": pool}
        form |= {"fiber": fiber, "input_mean": input_mean, "input_deviation": input_deviation}
        widths = (width, 2 * width, 4 * width, 8 * width)
        super().__init__(image_shape, num_classes, group, (2, 2, 2, 2), widths, **form)


class ResNet44(GroupResNet):
    """The residual network of Cohen & Welling: three stages of seven pre-activation blocks, widths 32, 64 and
    128 (11, 23 and 45 fields for p4m), small stem; images such as 32. Theirs ends in a dense layer on every
    channel and is not invariant; here the fiber is pooled before it.

    Args: as for ``GroupResNet``; ``width`` is the Z2-equivalent width of the first stage.

    References:
        Cohen & Welling, arXiv:1602.07576, section 8.2.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        group: PlaneGroup,
        width: int = 32,
        match: Match = "parameters",
        pool: PoolMode = "mean",
        fiber: FiberPool | None = None,
    ) -> None:
        form: dict[str, Any] = {"match": match, "pool": pool, "fiber": fiber}
        form |= {"stem": "small", "preactivation": True}
        super().__init__(image_shape, num_classes, group, (7, 7, 7), (width, 2 * width, 4 * width), **form)


class WideKernelResNet(GroupResNet):
    """A network of our own for small images such as rotated digits: few layers with wide windows, which see
    most of a stroke at once. With the pooled stem maps of 28 run 29-15-8 and most work is done at 15.

    Args: as for ``GroupResNet``; ``width`` is the Z2-equivalent width of the first stage.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        group: PlaneGroup,
        width: int = 24,
        blocks: tuple[int, ...] = (1, 1),
        match: Match = "parameters",
        stem: Stem = "pooled",
        stem_window: int | None = None,
        kernel_size: int = 5,
        pool: PoolMode = "max",
        fiber: FiberPool | None = None,
    ) -> None:
        form: dict[str, Any] = {"match": match, "stem": stem, "stem_window": stem_window, "pool": pool}
        form |= {"kernel_size": kernel_size, "fiber": fiber}
        widths = tuple(width * 2**k for k in range(len(blocks)))
        super().__init__(image_shape, num_classes, group, blocks, widths, **form)
