"""Given the filters of e2cnn, our layers compute what it computes."""

import numpy as np
import pytest
import torch
from torch import nn

from eqgan.groups import P2, P4, P4M, PlaneGroup, regular, scalar
from eqgan.nn import FieldBatchNorm2d, GroupConv2d, GroupPool

with_mirrors = pytest.mark.skipif(
    np.lib.NumpyVersion(np.__version__) >= "2.0.0", reason="e2cnn makes its harmonics of mirrors with NumPy 1"
)
KNOWN = [P2, P4, pytest.param(P4M, marks=with_mirrors)]
pytestmark = [
    pytest.mark.filterwarnings("ignore:indexing with dtype torch.uint8"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
peer = pytest.importorskip("tests.oracles.peer", reason="e2cnn is not installed", exc_type=ImportError)


def read(conv, layer: GroupConv2d, group: PlaneGroup) -> None:
    """The filters of its convolution into our layer: the entries of an orbit must hold the same number."""
    bank, bias = (tensor.detach() for tensor in conv.eval().expand_parameters())
    bank = peer.as_ours(bank, group.name, 0)
    if layer.in_type.representation.is_regular:
        bank = peer.as_ours(bank, group.name, 1)
    with torch.no_grad():
        layer.weight.flatten()[layer.index.flatten()] = bank.flatten()
        layer.bias.copy_(bias.view(-1, group.order)[:, 0])
    torch.testing.assert_close(layer.filter_bank(), bank, rtol=0, atol=1e-6)  # its basis is of float32


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("lifting", [True, False])
@pytest.mark.parametrize("group", KNOWN, ids=str)
def test_convolutions(group, lifting, size, stride):
    torch.manual_seed(0)
    in_type = (scalar if lifting else regular)(group, 2)
    options = {"stride": stride, "padding": size // 2}
    types = peer.field_type(group.name, 2, lifting), peer.field_type(group.name, 3)
    theirs = peer.convolution(*types, size, **options)
    ours = GroupConv2d(in_type, regular(group, 3), size, **options).double()
    read(theirs, ours, group)
    x = torch.randn(2, in_type.channels, 9, 9, dtype=torch.float64)
    expected = peer.as_ours(theirs(peer.e2nn.GeometricTensor(x, types[0])).tensor.detach(), group.name)
    y = ours(x if lifting else peer.as_ours(x, group.name))
    torch.testing.assert_close(y.detach(), expected, rtol=0, atol=1e-5)
    wrong = nn.functional.conv2d(
        x if lifting else peer.as_ours(x, group.name), ours.filter_bank().flip(2), **options
    )
    assert (wrong - expected).abs().max() > 0.1, "another filter is told apart"


@pytest.mark.parametrize("group", KNOWN, ids=str)
def test_a_network_in_training(group):
    """Lifting, batch norm of fields, group convolution, maximum over the fiber."""
    torch.manual_seed(0)
    image, two, three = (peer.field_type(group.name, n, n == 1) for n in (1, 2, 3))
    lift, conv = peer.convolution(image, two, 3), peer.convolution(two, three, 3)
    with torch.no_grad():
        theirs = peer.e2nn.SequentialModule(
            lift, peer.e2nn.InnerBatchNorm(two), peer.e2nn.ReLU(two), conv, peer.e2nn.GroupPooling(three)
        ).double()
    ours = nn.Sequential(
        GroupConv2d(scalar(group, 1), regular(group, 2), 3),
        FieldBatchNorm2d(regular(group, 2)),
        nn.ReLU(),
        GroupConv2d(regular(group, 2), regular(group, 3), 3),
        GroupPool(regular(group, 3)),
    ).double()
    read(lift, ours[0], group)
    read(conv, ours[3], group)
    x = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    expected = theirs.train()(peer.e2nn.GeometricTensor(x, image)).tensor
    torch.testing.assert_close(ours(x).float(), expected, rtol=0, atol=1e-5)  # it pools into float32
