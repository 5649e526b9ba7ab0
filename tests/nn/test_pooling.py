"""Pooling against plain loops over cosets, and the types of what is left."""

import pytest
import torch
import torch.nn.functional as F

from eqgan.groups import P2, P2MM, P4, P4M, P6, PM, SQUARE_PLANE_GROUPS, Z2, quotient, regular, scalar
from eqgan.nn import (
    AvgPool2d,
    CosetPool,
    GlobalPool2d,
    GroupPool,
    MaxPool2d,
    Restrict,
    SubgroupPool,
    Upsample2d,
)
from eqgan.testing import assert_equivariant

MODES = pytest.mark.parametrize("mode", ["max", "mean"])
REDUCE = {
    "max": lambda values: torch.stack(values).amax(0),
    "mean": lambda values: torch.stack(values).mean(0),
}
MIRROR = (0, 4)
SUBGROUPS = [
    (P4M, P4),
    (P4M, P2MM),
    (P4M, PM),
    (P4M, P2),
    (P4M, Z2),
    (P4, P2),
    (P4, Z2),
    (P2MM, PM),
    (P4, P4),
]


def maps(kind):
    """(batch, fields, fiber, height, width), and the same packed."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, kind.multiplicity, kind.dim, 4, 4, dtype=torch.float64, generator=generator)
    return x, x.flatten(1, 2)


@MODES
@pytest.mark.parametrize("group", SQUARE_PLANE_GROUPS.values(), ids=str)
def test_group_pool_is_over_the_whole_fiber(group, mode):
    kind = regular(group, 3)
    x, packed = maps(kind)
    pool = GroupPool(kind, mode)
    assert pool.out_type == scalar(group, 3)
    torch.testing.assert_close(pool(packed), REDUCE[mode](list(x.unbind(2))))


@MODES
@pytest.mark.parametrize("group", [P4, P2MM, P4M], ids=str)
def test_coset_pool_is_over_g_h_for_h_in_the_subgroup(group, mode):
    points = group.point_group
    for members in points.subgroups():
        kind = regular(group, 2)
        x, packed = maps(kind)
        pool = CosetPool(kind, members, mode)
        assert pool.out_type == quotient(group, members, 2)
        y = pool(packed).unflatten(1, (2, -1))
        coset_of = pool.out_type.representation.coset_of
        for g in points.everything:
            expected = REDUCE[mode]([x[:, :, points.product[g, h]] for h in members])
            torch.testing.assert_close(y[:, :, coset_of[g]], expected)


@MODES
def test_coset_pool_of_a_quotient_is_the_pool_in_one_go(mode):
    _, packed = maps(regular(P4M, 2))
    for first, second in (((0, 2), P4), (MIRROR, (0, 2, 4, 6)), (P2, P4M), (P4, P4)):
        step = CosetPool(regular(P4M, 2), first, mode)
        two = CosetPool(step.out_type, second, mode)
        torch.testing.assert_close(two(step(packed)), CosetPool(regular(P4M, 2), second, mode)(packed))


def test_coset_pool_refuses_what_it_cannot_pool():
    with pytest.raises(ValueError, match="its own stabiliser is not inside"):
        CosetPool(quotient(P4M, P4, 1), (0, 4))
    with pytest.raises(ValueError, match="not a subgroup of C4"):
        CosetPool(regular(P4, 1), P4M)


@MODES
@pytest.mark.parametrize(("group", "subgroup"), SUBGROUPS, ids=str)
def test_subgroup_pool_sees_every_value_once(group, subgroup, mode):
    """out(h) = pool over u of in(h u), u running over one element of each coset H u."""
    points, small = group.point_group, subgroup.point_group
    kind = regular(group, 2)
    x, packed = maps(kind)
    pool = SubgroupPool(kind, subgroup, mode)
    assert pool.out_type == regular(subgroup, 2)
    y = pool(packed).unflatten(1, (2, -1))
    members = [points.index(m) for m in small.elements]
    least = {u: min(points.product[h, u] for h in members) for u in points.everything}
    region = [u for u in points.everything if u == least[u]]  # one of each coset H u
    assert len(region) * len(members) == points.order
    for position, h in enumerate(members):
        expected = REDUCE[mode]([x[:, :, points.product[h, u]] for u in region])
        torch.testing.assert_close(y[:, :, position], expected)
    assert sorted(pool.table.flatten().tolist()) == list(points.everything)


def test_subgroup_pool_keeps_the_law_of_the_subgroup_only():
    pool = SubgroupPool(regular(P4M, 2), P4)
    x = torch.randn(2, 16, 4, 4, dtype=torch.float64)
    assert_equivariant(pool, x)
    assert pool.out_type.group is P4


@pytest.mark.parametrize(("group", "subgroup"), SUBGROUPS, ids=str)
def test_restriction_keeps_every_number(group, subgroup):
    kind = regular(group, 2)
    x, packed = maps(kind)
    layer = Restrict(kind, subgroup)
    index = group.order // subgroup.order
    assert layer.out_type == regular(subgroup, 2 * index)
    y = layer(packed).unflatten(1, (2, index, subgroup.order))
    points = group.point_group
    cosets = points.right_cosets(points.subgroup(subgroup.point_group))
    for u in range(index):
        for h, matrix in enumerate(subgroup.point_group.elements):
            source = points.product[points.index(matrix), cosets[u, 0]]
            assert torch.equal(y[:, :, u, h], x[:, :, source])


def test_scalars_stay_scalars_when_restricted():
    layer = Restrict(scalar(P4M, 3), P2)
    x = torch.randn(2, 3, 4, 4)
    assert layer.out_type == scalar(P2, 3)
    assert torch.equal(layer(x), x)


def test_restriction_and_subgroup_pool_refuse():
    for layer in (Restrict, SubgroupPool):
        with pytest.raises(ValueError, match="expected regular fields, got 1 x p4m quotient"):
            layer(quotient(P4M, P4, 1), P2)
        with pytest.raises(ValueError, match="C6 is not a subgroup of D4"):
            layer(regular(P4M, 1), P6)
    with pytest.raises(ValueError, match="D4 is not a subgroup of C4"):
        Restrict(scalar(P4, 1), P4M)


def test_unknown_modes_are_refused(without_shape_checks):
    for factory in (
        lambda: GroupPool(regular(P4, 1), "sum"),
        lambda: CosetPool(regular(P4, 1), P2, "sum"),
        lambda: SubgroupPool(regular(P4, 1), P2, "sum"),
        lambda: GlobalPool2d("sum"),
    ):
        with pytest.raises(ValueError, match="expected mode 'max' or 'mean', got 'sum'"):
            factory()
    with pytest.raises(ValueError, match="expected mode 'nearest' or 'bilinear', got 'cubic'"):
        Upsample2d(regular(P4, 1), mode="cubic")
    with pytest.raises(ValueError, match=r"whole factor of at least 1 .*got 1\.5"):
        Upsample2d(regular(P4, 1), 1.5)


def test_spatial_pools_are_the_plain_ones():
    kind = regular(P4, 2)
    x = torch.randn(2, 8, 7, 7)
    assert torch.equal(AvgPool2d(kind, 3, 2)(x), F.avg_pool2d(x, 3, 2))
    assert torch.equal(MaxPool2d(kind, 3, 2)(x), F.max_pool2d(x, 3, 2))
    assert torch.equal(AvgPool2d(kind, 7)(x), F.avg_pool2d(x, 7))
    assert torch.equal(AvgPool2d(kind, 3, 2, 1)(x), F.avg_pool2d(x, 3, 2, 1))
    assert torch.equal(MaxPool2d(kind, 3, 2, 1)(x - 9), F.max_pool2d(x - 9, 3, 2, 1))
    assert torch.equal(GlobalPool2d()(x), x.mean((2, 3)))
    assert torch.equal(GlobalPool2d("max")(x), x.amax((2, 3)))


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_upsampling_from_its_definition(factor):
    """Nearest repeats; bilinear interpolates between centres of cells, clamped at the edge."""
    x = torch.randn(1, 8, 3, 4, dtype=torch.float64)
    nearest = Upsample2d(regular(P4, 2), factor)(x)
    assert torch.equal(nearest, x.repeat_interleave(factor, 2).repeat_interleave(factor, 3))
    bilinear = Upsample2d(regular(P4, 2), factor, "bilinear")(x)
    along = [interpolation(n, factor) for n in x.shape[2:]]
    torch.testing.assert_close(bilinear, along[0] @ x @ along[1].T)


def interpolation(size, factor):
    matrix = torch.zeros(size * factor, size, dtype=torch.float64)
    for i in range(size * factor):
        place = min(max((i + 0.5) / factor - 0.5, 0), size - 1)
        left = min(int(place), size - 1)
        matrix[i, left] += 1 - (place - left)
        matrix[i, min(left + 1, size - 1)] += place - left
    return matrix


@pytest.mark.parametrize(("kernel", "stride"), [(0, None), (2, 0), (-1, 1)])
def test_windows_of_nothing_are_refused(kernel, stride):
    with pytest.raises(ValueError, match="kernel_size and stride of at least 1"):
        AvgPool2d(regular(P4, 1), kernel, stride)


def test_layers_read_well():
    assert repr(GroupPool(regular(P4, 2))) == "GroupPool(2 x p4 regular -> 2 x p4 trivial, mode='max')"
    assert repr(Restrict(regular(P4M, 1), P4)) == "Restrict(1 x p4m regular -> 2 x p4 regular)"
    assert repr(AvgPool2d(regular(P4, 2), 2)) == "AvgPool2d(2 x p4 regular, kernel_size=2, stride=2)"
    assert "padding=1" in repr(MaxPool2d(regular(P4, 2), 3, 2, 1))
    assert repr(GlobalPool2d()) == "GlobalPool2d(mode='mean')"
    assert repr(Upsample2d(regular(P4, 2))) == "Upsample2d(2 x p4 regular, factor=2, mode='nearest')"


@pytest.mark.parametrize("padding", [-1, 2])
def test_padding_of_more_than_half_a_window_is_refused(padding):
    with pytest.raises(ValueError, match=f"padding of 0 to half of window 3, got {padding}"):
        MaxPool2d(regular(P4, 1), 3, 2, padding)


@pytest.mark.parametrize(
    ("window", "stride", "padding", "side"),
    [(2, 2, 0, 6), (3, 3, 0, 6), (2, 2, 0, 7), (3, 2, 0, 7), (3, 3, 1, 6), (2, 3, 0, 8)],
)
def test_the_maximum_of_blocks_is_that_of_windows(window, stride, padding, side):
    group = Z2 if side % window or padding else P4
    pool = MaxPool2d(regular(group, 2), window, stride, padding)
    x = torch.randn(2, 2 * group.order, side, side)
    x[0, 0, 0, 0] = torch.nan
    expected = F.max_pool2d(x, window, stride, padding)
    with torch.no_grad():
        found = pool(x)
    assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(found.nan_to_num(), expected.nan_to_num())
    assert torch.equal(pool(x).nan_to_num(), expected.nan_to_num())


def test_a_window_of_one_site_gives_a_map_of_its_own():
    pool, x = MaxPool2d(regular(P4, 2), 1), torch.randn(2, 8, 5, 5)
    given = x.clone()
    with torch.no_grad():
        pool(x).zero_()
    assert torch.equal(x, given)


@pytest.mark.usefixtures("without_shape_checks")
def test_pooling_records_maps_of_any_size():
    pool, x = MaxPool2d(regular(Z2, 2), 2), torch.randn(2, 2, 8, 8)
    sides = {2: torch.export.Dim("h", min=4, max=64), 3: torch.export.Dim("w", min=4, max=64)}
    with torch.no_grad():
        program = torch.export.export(pool, (x,), dynamic_shapes={"x": sides}).module()
    other = torch.randn(2, 2, 9, 12)
    assert torch.equal(program(other), F.max_pool2d(other, 2))
