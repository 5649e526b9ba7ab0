"""Convolutions against a re-derivation from the definition, which equivariance alone cannot replace."""

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from eqgan.groups import P2MM, P4, P4M, SQUARE_PLANE_GROUPS, Z2, FieldType, Representation, regular, scalar
from eqgan.nn import GroupConv2d, LiftingConv2d, act, act_each
from tests.oracles import conv as oracle

NAMES = pytest.mark.parametrize("name", ["z2", "p2", "pm", "p4", "p2mm", "p4m"])
# kernel, stride, padding, side
GEOMETRY = pytest.mark.parametrize(
    ("kernel", "stride", "padding", "side"),
    [
        (1, 1, 0, 4),
        (3, 1, 1, 5),
        (3, 2, 1, 5),
        (4, 1, 0, 6),
        (4, 2, 1, 6),
        (2, 2, 0, 6),
        (5, 1, 2, 5),
        (5, 2, 2, 5),
    ],
)


def numbers(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@NAMES
def test_the_oracle_numbers_elements_as_the_package_does(name):
    group = SQUARE_PLANE_GROUPS[name]
    members = oracle.elements(name)
    assert len(members) == group.order
    table = [[members.index(oracle.multiply(g, h)) for h in members] for g in members]
    assert table == group.point_group.product.tolist()
    assert [members.index(oracle.invert(g)) for g in members] == group.point_group.inverse.tolist()


@NAMES
def test_act_is_rot90_and_flip_of_the_map_and_left_multiplication_of_the_fiber(name):
    """[g.f](c, s) = f(g^-1 c, g^-1 s)."""
    group = SQUARE_PLANE_GROUPS[name]
    members = oracle.elements(name)
    image, fiber = numbers(0, 2, 3, 4, 5), numbers(1, 2, 2 * group.order, 4, 5)
    for i, g in enumerate(members):
        moved = act(i, image, scalar(group, 3)).numpy()
        assert (moved == oracle.move(name, g, image.numpy())).all()
        moved = act(i, fiber, regular(group, 2)).unflatten(1, (2, group.order)).numpy()
        for j, t in enumerate(members):
            source = members.index(oracle.multiply(oracle.invert(g), t))
            expected = oracle.move(name, g, fiber.unflatten(1, (2, group.order))[:, :, source].numpy())
            assert (moved[:, :, j] == expected).all()


@NAMES
def test_each_map_is_moved_by_its_own_element(name):
    group = SQUARE_PLANE_GROUPS[name]
    elements = torch.arange(2 * group.order).flip(0) % group.order
    for kind in (scalar(group, 3), regular(group, 2)):
        x = numbers(0, len(elements), kind.channels, 4, 4)
        expected = torch.cat([act(int(g), x[i : i + 1], kind) for i, g in enumerate(elements)])
        assert torch.equal(act_each(elements, x, kind), expected)
        assert act_each(elements[:0], x[:0], kind).shape == (0, kind.channels, 4, 4)


@NAMES
@GEOMETRY
def test_regular_to_regular(name, kernel, stride, padding, side):
    group = SQUARE_PLANE_GROUPS[name]
    order = group.order
    layer = GroupConv2d(regular(group, 1), regular(group, 2), kernel, stride=stride, padding=padding).double()
    w = numbers(0, 2, 1, order, kernel, kernel)
    b = numbers(1, 2)
    x = numbers(2, 1, 1, order, side, side)
    layer.load_state_dict({"weight": w.flatten(2), "bias": b})
    expected = oracle.group_convolution(name, x.numpy(), w.numpy(), stride, padding)
    expected += b.numpy()[:, None, None, None]
    with torch.no_grad():
        ours = layer(x.flatten(1, 2)).unflatten(1, (2, order)).numpy()
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@NAMES
@GEOMETRY
def test_lifting(name, kernel, stride, padding, side):
    group = SQUARE_PLANE_GROUPS[name]
    layer = LiftingConv2d(
        scalar(group, 2), regular(group, 2), kernel, stride=stride, padding=padding
    ).double()
    w, b, x = numbers(0, 2, 2, kernel, kernel), numbers(1, 2), numbers(2, 2, 2, side, side)
    layer.load_state_dict({"weight": w.flatten(2), "bias": b})
    expected = oracle.lifting_convolution(name, x.numpy(), w.numpy(), stride, padding)
    expected += b.numpy()[:, None, None, None]
    with torch.no_grad():
        ours = layer(x).unflatten(1, (2, group.order)).numpy()
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_another_filter_order_is_noticed():
    """The oracle tells apart layers that are all equivariant: here, two fiber values are exchanged."""
    layer = GroupConv2d(regular(P4, 1), regular(P4, 1), 3, bias=False).double()
    w, x = numbers(0, 1, 1, 4, 3, 3), numbers(1, 1, 1, 4, 5, 5)
    layer.load_state_dict({"weight": w[:, :, [0, 3, 2, 1]].flatten(2)})
    with torch.no_grad():
        ours = layer(x.flatten(1, 2)).unflatten(1, (1, 4)).numpy()
    assert np.abs(ours - oracle.group_convolution("p4", x.numpy(), w.numpy())).max() > 0.1


def pairs():
    for group in (P4, P2MM, P4M):
        subgroups = group.point_group.subgroups()
        # p4m: up to the largest quotients, for speed; the regular ones are covered above
        kept = [h for h in subgroups if group.order // len(h) <= 4]
        yield from ((group, out, inside) for out, inside in product(kept, repeat=2))


def field(group, members, multiplicity=1):
    return FieldType(group, Representation(group.point_group, members), multiplicity)


@pytest.mark.parametrize(("group", "out", "inside"), list(pairs()), ids=str)
def test_banks_between_quotients_are_their_own_average(group, out, inside):
    for kernel in (2, 3):
        layer = GroupConv2d(field(group, inside), field(group, out), kernel).double()
        bank = layer.expand(layer.weight).detach().numpy()
        average = oracle.average_bank(group.name, bank, list(out), list(inside))
        np.testing.assert_allclose(average, bank, atol=1e-14)


@pytest.mark.parametrize(
    ("group", "out", "inside", "kernel"),
    [
        *(
            (P4, out, inside, k)
            for out, inside in product(P4.point_group.subgroups(), repeat=2)
            for k in (2, 3)
        ),
        *((P2MM, (0, 3), inside, 3) for inside in P2MM.point_group.subgroups()),
        *((P4M, (0, 1, 2, 3), inside, 3) for inside in P4M.point_group.subgroups() if len(inside) > 1),
        (P4M, (0, 4), (0, 5), 4),
        (P4M, (0, 4), (0, 2), 3),
    ],
    ids=str,
)
def test_the_full_space_of_equivariant_banks(group, out, inside, kernel):
    """As many free weights as the constraint leaves, and the banks they make are independent."""
    layer = GroupConv2d(field(group, inside), field(group, out), kernel).double()
    assert layer.orbits == oracle.equivariant_dimension(group.name, kernel, list(out), list(inside))
    units = torch.eye(layer.orbits, dtype=torch.float64).view(-1, 1, 1, layer.orbits)
    banks = torch.stack([layer.expand(unit).flatten() for unit in units])
    assert torch.linalg.matrix_rank(banks) == layer.orbits


def test_a_bank_that_is_not_equivariant_is_not_its_own_average():
    layer = GroupConv2d(field(P4M, (0, 4)), field(P4M, (0, 1, 2, 3)), 3).double()
    bank = layer.expand(layer.weight).detach().numpy().copy()
    bank[0, 0, 0, 0] += 1
    average = oracle.average_bank("p4m", bank, [0, 1, 2, 3], [0, 4])
    assert np.abs(average - bank).max() > 0.1


@GEOMETRY
def test_z2_is_the_plain_convolution(kernel, stride, padding, side):
    plain = torch.nn.Conv2d(3, 4, kernel, stride, padding).double()
    ours = GroupConv2d(regular(Z2, 3), regular(Z2, 4), kernel, stride=stride, padding=padding).double()
    ours.load_state_dict({"weight": plain.weight.flatten(2), "bias": plain.bias})
    x = numbers(0, 2, 3, side, side)
    for mode in (True, False):
        assert torch.equal(ours.train(mode)(x), plain(x))
    assert torch.equal(ours.filter_bank(), plain.weight)


def test_z2_drops_rows_as_the_plain_convolution_does():
    """The trivial group has nothing to lose: sizes that break others are fine."""
    ours = LiftingConv2d(scalar(Z2, 1), scalar(Z2, 2), 3, stride=2)
    x = torch.randn(1, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(ours(x), F.conv2d(x, ours.filter_bank(), ours.bias, 2))


def test_one_bias_a_field():
    layer = GroupConv2d(regular(P4M, 2), field(P4M, (0, 1, 2, 3), 3), 3)
    assert layer.bias.shape == (3,)
    torch.nn.init.zeros_(layer.weight)
    layer.load_state_dict({"weight": layer.weight, "bias": torch.tensor([1.0, 2.0, 3.0])})
    out = layer(torch.randn(1, 16, 3, 3)).flatten()
    assert out.tolist() == [1, 1, 2, 2, 3, 3]
    assert GroupConv2d(regular(P4M, 2), regular(P4M, 3), 3, bias=False).bias is None
