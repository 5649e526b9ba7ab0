"""Every layer by name. A new layer adds a line to a table; every law then runs over it."""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import torch
from torch import Tensor, nn

from eqgan.groups import (
    P2,
    P2MM,
    P4,
    P4M,
    PM,
    SQUARE_PLANE_GROUPS,
    Z2,
    FieldType,
    PlaneGroup,
    quotient,
    regular,
    scalar,
)
from eqgan.nn import (
    AvgPool2d,
    ConditionalFieldBatchNorm2d,
    ConvAvgPool2d,
    CosetPool,
    FieldBatchNorm2d,
    FieldSequential,
    GroupConv2d,
    GroupPool,
    LiftingConv2d,
    MaxPool2d,
    OperatorNorm,
    Restrict,
    SpectralNorm,
    SubgroupPool,
    Upsample2d,
    UpsampleConv2d,
)

Factory = Callable[[], nn.Module]
MIRROR = (0, 4)  # of p4m: not normal
PROPER_SUBGROUPS = {P4: [P2], P2MM: [P2, PM], P4M: [P4, P2MM, P2, MIRROR]}


class Conditioned(nn.Module):
    """A conditional layer with its condition filled in: one map of feature maps."""

    def __init__(self, layer: ConditionalFieldBatchNorm2d, condition: int) -> None:
        super().__init__()
        self.layer, self.in_type, self.out_type = layer, layer.in_type, layer.out_type
        self.register_buffer("condition", torch.linspace(-1, 1, condition).sin())

    def forward(self, x: Tensor) -> Tensor:
        steps = torch.arange(1, len(x) + 1, dtype=self.condition.dtype)[:, None]
        return self.layer(x, steps * self.condition)


def type_pairs(group: PlaneGroup) -> Iterator[tuple[str, FieldType, FieldType]]:
    yield "lift", scalar(group, 2), regular(group, 2)
    yield "regular-regular", regular(group, 2), regular(group, 2)
    yield "regular-scalar", regular(group, 1), scalar(group, 3)
    for first in PROPER_SUBGROUPS.get(group, [])[:1]:
        last = PROPER_SUBGROUPS[group][-1]
        yield "regular-quotient", regular(group, 1), quotient(group, first, 2)
        yield "quotient-regular", quotient(group, last, 2), regular(group, 1)
        yield "quotient-quotient", quotient(group, last, 1), quotient(group, first, 2)


def convolution(in_type: FieldType, out_type: FieldType, kernel: int, **options) -> GroupConv2d:
    kind = LiftingConv2d if in_type.representation.is_trivial else GroupConv2d
    return kind(in_type, out_type, kernel, **options)


def convolutions() -> Iterator[tuple[str, Factory]]:
    for group in SQUARE_PLANE_GROUPS.values():
        for name, in_type, out_type in type_pairs(group):
            for kernel, stride in product((1, 3, 4, 5), (1, 2)):
                padding = (kernel - 1) // 2 if stride == 1 else (kernel + 1) % 3
                options = {"stride": stride, "padding": padding, "bias": kernel != 4}
                yield (
                    f"{group}-{name}-k{kernel}-s{stride}-p{padding}",
                    partial(convolution, in_type, out_type, kernel, **options),
                )


def paddings() -> Iterator[tuple[str, Factory]]:
    for group, padding in product((P4, P4M), (0, 1, 2, 3, "same")):
        kinds = regular(group, 1), regular(group, 2)
        yield f"{group}-padding-{padding}", partial(convolution, *kinds, 3, padding=padding)


def resampled() -> Iterator[tuple[str, Factory]]:
    """With a resampling by two: every type under p4m, and the window's size under p4."""
    for layer in (UpsampleConv2d, ConvAvgPool2d):
        for name, in_type, out_type in type_pairs(P4M):
            yield f"p4m-{name}-{layer.__name__}", partial(layer, in_type, out_type, 3)
        for size, kind in product((1, 5), (None, "filter", "bank")):
            kinds = regular(P4, 1), regular(P4, 2)
            yield f"p4-{layer.__name__}-k{size}-{kind}", partial(layer, *kinds, size, spectral=kind)
        yield f"z2-{layer.__name__}", partial(layer, scalar(Z2, 2), scalar(Z2, 3), 3, bias=False)


def quotients() -> Iterator[tuple[str, Factory]]:
    """p4m between every two of its quotients."""
    for first, second in product(PROPER_SUBGROUPS[P4M], repeat=2):
        kinds = quotient(P4M, first, 1), quotient(P4M, second, 2)
        yield f"p4m/{first}-to-p4m/{second}", partial(convolution, *kinds, 3)


def spectral() -> Iterator[tuple[str, Factory]]:
    pairs = {
        "p4-lift": (scalar(P4, 2), regular(P4, 2)),
        "p4-regular": (regular(P4, 1), regular(P4, 2)),
        "p4m-quotient": (regular(P4M, 1), quotient(P4M, P4, 2)),
        "z2": (scalar(Z2, 2), scalar(Z2, 3)),
    }
    for (name, (in_type, out_type)), kind, stride in product(
        pairs.items(), ("filter", "bank", "operator"), (1, 2)
    ):
        options = {"stride": stride, "padding": 1, "spectral": kind, "input_size": 7}
        yield f"{name}-{kind}-s{stride}", partial(convolution, in_type, out_type, 3, **options)


def norms() -> Iterator[tuple[str, Factory]]:
    for group in SQUARE_PLANE_GROUPS.values():
        yield f"{group}-batch-norm", partial(FieldBatchNorm2d, regular(group, 2))
    mixed = quotient(P4M, MIRROR, 2)
    yield "quotient-batch-norm", partial(FieldBatchNorm2d, mixed)
    yield "plain-batch-norm", partial(FieldBatchNorm2d, regular(P4, 2), affine=False)
    for flag in (False, True):
        yield (
            f"conditional-batch-norm-{flag}",
            lambda flag=flag: Conditioned(ConditionalFieldBatchNorm2d(regular(P4M, 2), 3, spectral=flag), 3),
        )


def pools() -> Iterator[tuple[str, Factory]]:
    for mode in ("max", "mean"):
        for group in SQUARE_PLANE_GROUPS.values():
            yield f"{group}-group-pool-{mode}", partial(GroupPool, regular(group, 2), mode)
        for group, subgroups in PROPER_SUBGROUPS.items():
            for subgroup in subgroups:
                yield (
                    f"{group}-coset-pool-{subgroup}-{mode}",
                    partial(CosetPool, regular(group, 2), subgroup, mode),
                )
        yield f"quotient-coset-pool-{mode}", partial(CosetPool, quotient(P4M, P2, 2), P2MM, mode)
        yield f"quotient-group-pool-{mode}", partial(GroupPool, quotient(P4M, MIRROR, 2), mode)
        for group, subgroup in SUBGROUPS:
            yield (
                f"{group}-subgroup-pool-{subgroup}-{mode}",
                partial(SubgroupPool, regular(group, 2), subgroup, mode),
            )


SUBGROUPS = [(P4M, P4), (P4M, P2MM), (P4M, PM), (P4M, P2), (P4M, Z2), (P4, P2), (P4, P4), (P2MM, PM)]


def restrictions() -> Iterator[tuple[str, Factory]]:
    for group, subgroup in SUBGROUPS:
        yield f"{group}-restrict-{subgroup}", partial(Restrict, regular(group, 2), subgroup)
    yield "scalar-restrict", partial(Restrict, scalar(P4M, 2), P2)


def spatial() -> Iterator[tuple[str, Factory]]:
    kind = regular(P4M, 1)
    yield "avg-pool", partial(AvgPool2d, kind, 2)
    yield "avg-pool-overlapping", partial(AvgPool2d, kind, 3, 2)
    yield "max-pool", partial(MaxPool2d, kind, 2)
    yield "max-pool-overlapping", partial(MaxPool2d, kind, 3, 2)
    for pool in (AvgPool2d, MaxPool2d):
        yield f"{pool.__name__}-padded", partial(pool, kind, 3, 2, 1)
    for factor, mode in product((1, 2, 3), ("nearest", "bilinear")):
        yield f"upsample-{factor}-{mode}", partial(Upsample2d, kind, factor, mode)


def network(group: PlaneGroup, spectral: str | None = None) -> FieldSequential:
    """One of everything that a discriminator is made of, up to scalar fields."""
    first, second = regular(group, 2), regular(group, 3)
    return FieldSequential(
        LiftingConv2d(scalar(group, 1), first, 3, padding=1, spectral=spectral, input_size=8),
        nn.LeakyReLU(0.2),
        AvgPool2d(first, 2),
        GroupConv2d(first, second, 3, padding=1, bias=False, spectral=spectral, input_size=4),
        FieldBatchNorm2d(second),
        nn.ReLU(),
        GroupPool(second),
    )


def descent() -> FieldSequential:
    """From p4m down to p4 and to p2, whose law it keeps."""
    top = regular(P4M, 2)
    middle = regular(P4, 4)
    return FieldSequential(
        LiftingConv2d(scalar(P4M, 1), top, 3, padding=1),
        nn.LeakyReLU(0.2),
        Restrict(top, P4),
        GroupConv2d(middle, regular(P4, 2), 4),
        nn.LeakyReLU(0.2),
        SubgroupPool(regular(P4, 2), P2),
    )


def generator() -> FieldSequential:
    """Up-sampling, and a quotient on the way."""
    half = quotient(P4M, P4, 2)
    return FieldSequential(
        LiftingConv2d(scalar(P4M, 2), regular(P4M, 2), 3, padding="same"),
        Upsample2d(regular(P4M, 2), 2, "bilinear"),
        nn.Tanh(),
        GroupConv2d(regular(P4M, 2), half, 3, padding="same"),
        Upsample2d(half),
        CosetPool(half, P4M, "mean"),
        nn.Tanh(),
    )


def chains() -> Iterator[tuple[str, Factory]]:
    for group in SQUARE_PLANE_GROUPS.values():
        yield f"{group}-network", partial(network, group)
    for kind in ("filter", "bank", "operator"):
        yield f"p4-network-{kind}", partial(network, P4, kind)
    yield "descent", descent
    yield "generator", generator


CONVOLUTIONS: dict[str, Factory] = {
    **dict(convolutions()),
    **dict(paddings()),
    **dict(resampled()),
    **dict(quotients()),
    **dict(spectral()),
}
OTHERS: dict[str, Factory] = {
    **dict(norms()),
    **dict(pools()),
    **dict(restrictions()),
    **dict(spatial()),
    **dict(chains()),
}
LAYERS = {**CONVOLUTIONS, **OTHERS}
TRAINABLE = {name: factory for name, factory in LAYERS.items() if any(True for _ in factory().parameters())}
# Laws about Python objects do not depend on the kernel: two convolutions of each pair of types, and all else.
REPRESENTATIVE = {
    name: factory
    for name, factory in LAYERS.items()
    if name not in dict(convolutions()) or name.endswith(("-k3-s1-p1", "k4-s2-p2"))
}


def build(factory: Factory, seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Module:
    """The layer with every parameter drawn, so that no scale, shift or bias is left at zero or one."""
    torch.manual_seed(seed)
    module = factory().to(dtype)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5)
    return module


def example(module: nn.Module, batch: int = 2, dtype: torch.dtype = torch.float64, wider: int = 0) -> Tensor:
    """Random maps of the smallest side, from 6 up, that the layer accepts."""
    channels = module.in_type.channels
    probe = copy.deepcopy(module).eval()  # a pass in training would change the layer
    for size in range(6, 12):
        try:
            probe(torch.zeros(0, channels, size, size, dtype=dtype))
        except ValueError:
            continue
        generator = torch.Generator().manual_seed(size)
        return torch.randn(batch, channels, size, size + wider, dtype=dtype, generator=generator)
    raise AssertionError("no side from 6 to 11 fits")


def iterates(module: nn.Module) -> bool:
    """In training a power iteration changes the layer from one pass to the next."""
    return any(isinstance(m, SpectralNorm | OperatorNorm) for m in module.modules())
