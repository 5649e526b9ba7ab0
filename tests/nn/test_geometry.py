"""Sizes that would break a symmetry are refused, and the sizes that the messages name really work."""

import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from eqgan.groups import P4, P4M, P6, SQUARE_PLANE_GROUPS, Z2, regular, scalar
from eqgan.nn import AvgPool2d, GroupConv2d, LiftingConv2d, MaxPool2d, act, act_each, output_size
from eqgan.testing import assert_equivariant

GEOMETRIES = (st.integers(1, 20), st.integers(1, 7), st.integers(1, 5), st.integers(0, 4))


def named_sizes(message):
    """The sizes a message says work."""
    if match := re.search(r"Sizes that work: (\d+), (\d+), \.\.\.", message):
        return [int(size) for size in match.groups()]
    return [int(re.search(r"at least (\d+) sites", message)[1])]


@given(*GEOMETRIES)
@settings(max_examples=300, deadline=None)
def test_refused_sizes_name_sizes_that_work(size, kernel, stride, padding):
    try:
        result = output_size(size, kernel, stride, padding, P4, "layer")
    except ValueError as error:
        sizes = named_sizes(str(error))
        assert all(s >= 1 for s in sizes)
        for good in sizes:
            if "does not fit" in str(error):
                assert output_size(good, kernel, 1, padding, P4, "layer") == 1
            else:
                assert output_size(good, kernel, stride, padding, P4, "layer") >= 1
    else:
        weight = torch.ones(1, 1, kernel, kernel)
        assert F.conv2d(torch.zeros(1, 1, size, size), weight, None, stride, padding).shape[2:] == (
            result,
            result,
        )


@given(*GEOMETRIES)
@settings(max_examples=60, deadline=None)
def test_accepted_exactly_when_equivariant(size, kernel, stride, padding):
    """Not too lax and not too strict: what is refused does break the law, and what is not keeps it."""
    layer = GroupConv2d(scalar(P4, 1), regular(P4, 1), kernel, padding=padding, bias=False).double()
    if size + 2 * padding < kernel:
        with pytest.raises(ValueError, match="does not fit"):
            layer.output_size(size)
        return
    x = torch.randn(2, 1, size, size, dtype=torch.float64)

    def plain(x):
        return F.conv2d(x, layer.expand(layer.weight), None, stride, padding)

    layer.stride = stride
    try:
        sites = layer.output_size(size)
    except ValueError:
        if plain(x).any():  # a large stride may see nothing but padding
            with pytest.raises(AssertionError, match="not equivariant"):
                assert_equivariant(plain, x, layer.in_type, layer.out_type)
    else:
        assert layer(x).shape[2:] == (sites, sites)
        if layer(x).any():
            assert_equivariant(layer, x)


def test_the_third_pool_of_the_published_p4_discriminator_is_refused():
    """28, 14, 7, then 3: a row and a column are dropped, and the network is not invariant any more."""
    pool = AvgPool2d(regular(P4, 2), 2)
    assert [pool.output_size(n) for n in (28, 14)] == [14, 7]
    with pytest.raises(
        ValueError, match=r"AvgPool2d: stride 2 with window 2.* on a 7x7 map breaks p4.*: 6, 8"
    ):
        pool.output_size(7)
    x = torch.randn(1, 8, 7, 7, dtype=torch.float64)
    with pytest.raises(ValueError, match="breaks p4 symmetry"):
        pool(x)
    with pytest.raises(AssertionError, match="not equivariant"):
        assert_equivariant(lambda x: F.avg_pool2d(x, 2), x, regular(P4, 2), regular(P4, 2))


@pytest.mark.parametrize("group", SQUARE_PLANE_GROUPS.values(), ids=str)
@pytest.mark.parametrize("make", [
    lambda kind: AvgPool2d(kind, 2),
    lambda kind: MaxPool2d(kind, 2),
    lambda kind: GroupConv2d(kind, kind, 4, stride=2),
    lambda kind: GroupConv2d(kind, kind, 3, stride=2, padding=0),
])  # fmt: skip
def test_only_the_trivial_group_may_lose_a_row(group, make):
    layer = make(regular(group, 1))
    size = 8 if layer.kernel_size == 3 else 7
    for shape in ((size, size), (size + 1, size), (size, size + 1)):
        x = torch.randn(1, group.order, *shape)
        if group == Z2:
            layer(x)
        else:
            with pytest.raises(ValueError, match=f"breaks {group} symmetry"):
                layer(x)
    assert layer(torch.randn(1, group.order, size + 1, size + 3)).shape[2] == layer.output_size(size + 1)


def test_strided_convolutions_at_construction_and_at_the_first_pass():
    kinds = scalar(P4M, 1), regular(P4M, 1)
    with pytest.raises(
        ValueError, match=r"LiftingConv2d: stride 2 with window 4.*7x7.*Sizes that work: 6, 8"
    ):
        LiftingConv2d(*kinds, 4, stride=2, input_size=7)
    late = LiftingConv2d(*kinds, 4, stride=2)
    with pytest.raises(ValueError, match="stride 2 with window 4"):
        late(torch.randn(1, 1, 7, 7))
    assert late.output_size(8) == 3
    LiftingConv2d(*kinds, 3, stride=2, padding=1, input_size=7)


def test_exact_sizes_through_odd_stages():
    """225, 113, 57, 29, 15, 8: stride 2 keeps the symmetry at odd sizes with an odd kernel."""
    layer = GroupConv2d(regular(P4, 1), regular(P4, 1), 3, stride=2, padding=1)
    sizes = [225]
    while sizes[-1] % 2:
        sizes.append(layer.output_size(sizes[-1]))
    assert sizes == [225, 113, 57, 29, 15, 8]


KINDS = regular(P4, 1), regular(P4, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 0}, "kernel_size and stride of at least 1, got 0 and 1"),
        ({"kernel_size": 3, "stride": 0}, "kernel_size and stride of at least 1, got 3 and 0"),
        ({"kernel_size": 3, "padding": -1}, "padding of at least 0, got -1"),
        ({"kernel_size": 3, "padding": "valid"}, "padding='valid', kernel_size=3, stride=1"),
        ({"kernel_size": 4, "padding": "same"}, "needs an odd kernel and stride 1.*kernel_size=4"),
        ({"kernel_size": 3, "padding": "same", "stride": 2}, "needs an odd kernel and stride 1.*stride=2"),
        ({"kernel_size": 3, "input_size": 2}, "does not fit a 2x2 map.*at least 3 sites"),
    ],
    ids=str,
)
def test_wrong_geometry_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GroupConv2d(*KINDS, **options)


def test_types_of_two_groups_are_refused():
    with pytest.raises(ValueError, match=r"1 x p4 regular in and 1 x p4m regular out; use Restrict"):
        GroupConv2d(regular(P4, 1), regular(P4M, 1), 3)


def test_lifting_takes_scalars():
    with pytest.raises(ValueError, match="expected scalar input fields, got 1 x p4 regular; use GroupConv2d"):
        LiftingConv2d(*KINDS, 3)


@pytest.mark.parametrize("kernel", [1, 3])
def test_hexagonal_groups_are_refused_on_the_square_lattice(kernel):
    with pytest.raises(ValueError, match="square lattice, got p6"):
        GroupConv2d(regular(P6, 1), regular(P6, 1), kernel)
    with pytest.raises(ValueError, match="square lattice, got p6"):
        act(1, torch.zeros(1, 6, 3, 3), regular(P6, 1))
    with pytest.raises(ValueError, match="square lattice, got p6"):
        act_each(torch.tensor([1]), torch.zeros(1, 6, 3, 3), regular(P6, 1))


def test_wrong_channels_are_refused():
    with pytest.raises(ValueError, match=r"GroupConv2d expected 4 channels \(1 x p4 regular\), got 3"):
        GroupConv2d(*KINDS, 3)(torch.zeros(1, 3, 5, 5))
    with pytest.raises(ValueError, match=r"expected 4 channels \(1 x p4 regular\), got 3"):
        act(1, torch.zeros(1, 3, 5, 5), KINDS[0])
    with pytest.raises(ValueError, match=r"expected 4 channels \(1 x p4 regular\), got 3"):
        act_each(torch.tensor([1]), torch.zeros(1, 3, 5, 5), KINDS[0])


def test_shape_annotations_are_checked_here_and_can_be_switched_off(request):
    layer = AvgPool2d(regular(P4, 1), 2)
    unbatched = torch.zeros(4, 6, 6)
    with pytest.raises(TypeCheckError, match="batch channels height width"):
        layer(unbatched)
    request.getfixturevalue("without_shape_checks")
    with pytest.raises(ValueError, match="expected 4 channels"):
        layer(unbatched)
