"""The papers' networks: their parameters, maps and dropout; and the sizes that keep a stride exact."""

import pytest
import torch
from torch import nn

from eqgan.groups import P4, P4M, Z2
from eqgan.networks import AllCNN, P4CNNClassifier, ResNet18, ResNet44, WideKernelResNet, fiber_pool
from eqgan.nn import GroupConv2d


def parameters(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("group", "options", "count"),
    [
        # 9 x 20 + 5 x 9 x 20 x 20 + 16 x 20 x 10 weights, 130 biases, 240 scales and shifts
        (Z2, {"dropout": 0.3}, 21_750),
        # the same filters, each in four orientations
        (P4, {"width": 40, "fiber": fiber_pool("group")}, 21_750),
        # 9 x 10 + 5 x 9 x 4 x 10 x 10 + 16 x 4 x 10 x 10 weights, 70 biases, 120 scales and shifts
        (P4, {}, 24_680),
        (P4M, {}, 26_799),
    ],
    ids=["Z2CNN", "P4CNN-RP", "P4CNN", "P4MCNN"],
)
def test_the_seven_layers_have_the_papers_parameters(group, options, count):
    assert parameters(P4CNNClassifier((1, 28, 28), 10, group, **options)) == count


def sizes(network):
    """(channels, side) after each convolution and pool, in order."""
    found = []
    for layer in network.body.maps:
        layer.register_forward_hook(lambda _m, _i, out: found.append(tuple(out.shape[1:])))
    network.eval()(torch.zeros(1, *network.image_shape))
    return [s[:2] for i, s in enumerate(found) if i == 0 or found[i - 1] != s]


def test_the_maps_of_the_seven_layers():
    assert sizes(P4CNNClassifier((1, 28, 28), 10, P4)) == [
        *[(40, s) for s in (26, 24, 12, 10, 8, 6, 4)],
        (40, 1),
        (10, 1),
    ]
    pooled = sizes(P4CNNClassifier((1, 28, 28), 10, P4, width=40, fiber=fiber_pool("group")))
    lifted = [(80, s) for s in (26, 24, 10, 8, 6, 4)]
    assert [s for s in pooled if s[0] == 80] == lifted
    assert [s for s in pooled if s[0] == 20] == [(20, s) for s in (26, 24, 12, 10, 8, 6, 4)]


def test_dropout_stands_after_layers_1_and_3_to_6():
    maps = P4CNNClassifier((1, 28, 28), 10, Z2, dropout=0.3).body.maps
    convolutions = 0
    after = []
    for layer in maps:
        convolutions += isinstance(layer, GroupConv2d)
        if isinstance(layer, nn.Dropout):
            assert layer.p == 0.3
            after.append(convolutions)
    assert after == [1, 3, 4, 5, 6]
    without = P4CNNClassifier((1, 28, 28), 10, Z2).body.maps
    assert not any(isinstance(m, nn.Dropout) for m in without)


@pytest.mark.parametrize(
    ("group", "width", "count", "fields"),
    [
        (Z2, 96, 1_374_270, (96, 192)),
        (P4, 96, 1_372_014, (48, 96)),
        (P4M, 96, 1_377_132, (34, 68)),
        (P4M, 90, 1_220_350, (32, 64)),
    ],
)
def test_all_cnn_c_has_the_papers_parameters(group, width, count, fields):
    network = AllCNN((3, 32, 32), 10, group, width=width)
    assert parameters(network) == count
    found = [m.out_type.multiplicity for m in network.modules() if isinstance(m, GroupConv2d)]
    assert found == [fields[0]] * 3 + [fields[1]] * 5 + [10]
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == [0.2, 0.5, 0.5]


def test_the_maps_of_all_cnn_c():
    def sides(network):
        return list(dict.fromkeys(s[1] for s in sizes(network) if len(s) == 2))

    assert sides(AllCNN((3, 32, 32), 10, P4, width=4)) == [32, 33, 17, 9, 7]
    assert sides(AllCNN((3, 32, 32), 10, Z2, width=4, stem_window=3)) == [32, 16, 8, 6]


def test_resnet_44_has_the_papers_fields_and_parameters():
    network = ResNet44((3, 32, 32), 10, P4M)
    fields = [stage.out_type.multiplicity for stage in network.body.residual]
    assert fields == [11, 23, 45]
    assert abs(parameters(network) / 2.64e6 - 1) < 0.01
    convolutions = [m for m in network.modules() if isinstance(m, GroupConv2d) and m.kernel_size > 1]
    assert len(convolutions) + 1 == 44
    assert abs(parameters(ResNet44((3, 32, 32), 10, Z2)) / 2.64e6 - 1) < 0.01


# --- sizes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factory", "side", "fitting"),
    [
        (AllCNN, 30, "28, 29, 32, 33"),
        (ResNet44, 30, "28, 29, 32, 33"),
        (WideKernelResNet, 30, "28, 29, 32, 33"),
        (ResNet18, 100, "96, 97, 128, 129"),
    ],
)
def test_a_side_whose_strides_would_break_the_symmetry_is_refused_with_some_that_work(factory, side, fitting):
    with pytest.raises(ValueError, match=rf"size {side}: .* breaks p4 symmetry.* takes: {fitting}.*--size"):
        factory((1, side, side), 3, P4, width=2)
    assert factory((1, side, side), 3, Z2, width=2)(torch.zeros(2, 1, side, side)).shape == (2, 3)
    for fits in fitting.split(", "):
        factory((1, int(fits), int(fits)), 3, P4, width=2)


def test_the_papers_first_window_is_refused_where_it_is_not_exact():
    with pytest.raises(ValueError, match=r"size 32: All-CNN-C: stride 2 with window 3 .* 29, 33"):
        AllCNN((3, 32, 32), 10, P4, width=4, stem_window=3)
    AllCNN((3, 33, 33), 10, P4, width=4, stem_window=3)


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": (1, 0)}, "each of at least 1 block"),
        ({"blocks": ()}, "each of at least 1 block"),
        ({"stem": "huge"}, r"stem in .*'huge'"),
        ({"kernel_size": 4}, "odd kernel_size in residual blocks, got 4"),
    ],
)
def test_bad_layouts(options, message):
    with pytest.raises(ValueError, match=message):
        WideKernelResNet((1, 28, 28), 3, P4, **options)
