"""Field-wise batch norm against nn.BatchNorm2d and against plain statistics."""

import pytest
import torch
from torch import nn

from eqgan.groups import P4, P4M, SQUARE_PLANE_GROUPS, Z2, quotient, regular, scalar
from eqgan.nn import ConditionalFieldBatchNorm2d, FieldBatchNorm2d, SpectralLinear

X = torch.randn(3, 8, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 + 1


def test_z2_is_the_plain_batch_norm():
    ours, plain = FieldBatchNorm2d(scalar(Z2, 8)).double(), nn.BatchNorm2d(8).double()
    for norm in (ours, plain):
        nn.init.uniform_(norm.weight.data, generator=torch.Generator().manual_seed(1))
    for mode in (True, True, False):
        assert torch.equal(ours.train(mode)(X), plain.train(mode)(X))
    assert set(ours.state_dict()) == set(plain.state_dict())
    for name, value in plain.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)


@pytest.mark.parametrize("kind", [regular(P4, 2), regular(P4M, 1), quotient(P4M, P4, 4)], ids=str)
def test_statistics_are_shared_over_the_fiber(kind):
    norm = FieldBatchNorm2d(kind).double()
    fields = X.unflatten(1, (kind.multiplicity, kind.dim))
    mean, variance = fields.mean((0, 2, 3, 4)), fields.var((0, 2, 3, 4), correction=0)
    y = norm(X).unflatten(1, (kind.multiplicity, kind.dim))
    shape = (1, -1, 1, 1, 1)
    torch.testing.assert_close(y, (fields - mean.view(shape)) / (variance.view(shape) + 1e-5).sqrt())
    torch.testing.assert_close(norm.running_mean, 0.1 * mean)
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * fields.var((0, 2, 3, 4)))
    assert norm.running_mean.shape == norm.weight.shape == norm.bias.shape == (kind.multiplicity,)


@pytest.mark.parametrize("group", SQUARE_PLANE_GROUPS.values(), ids=str)
def test_channel_wise_statistics_would_not_be_equivariant(group):
    """Why there is a field-wise one: with other statistics for each fiber value the law does not hold."""
    from eqgan.testing import assert_equivariant

    kind = regular(group, 2)
    x = torch.randn(2, kind.channels, 4, 4, dtype=torch.float64)
    plain = nn.BatchNorm2d(kind.channels, affine=False).double().eval()
    plain.running_mean.copy_(torch.arange(kind.channels))
    if group.order == 1:
        assert_equivariant(plain, x, kind, kind)
    else:
        with pytest.raises(AssertionError, match="not equivariant"):
            assert_equivariant(plain, x, kind, kind)


@pytest.mark.parametrize("momentum", [0.1, 0.9])
def test_momentum_is_the_weight_of_the_new_batch(momentum):
    """PyTorch's convention: a Keras network with momentum 0.1 is one with 0.9 here."""
    norm = FieldBatchNorm2d(regular(P4, 2), momentum=momentum).double()
    norm.running_mean.fill_(10.0)
    norm(X)
    batch = X.unflatten(1, (2, 4)).mean((0, 2, 3, 4))
    torch.testing.assert_close(norm.running_mean, (1 - momentum) * 10.0 + momentum * batch)
    keras = 1 - momentum  # moving = moving * momentum + batch * (1 - momentum)
    torch.testing.assert_close(norm.running_mean, keras * 10.0 + (1 - keras) * batch)


def test_options():
    norm = FieldBatchNorm2d(regular(P4, 2), eps=0.5, affine=False)
    assert norm.weight is None
    assert norm.eps == 0.5
    assert "2 x p4 regular" in repr(norm)


def test_wrong_channels_are_refused_not_reshaped():
    with pytest.raises(ValueError, match=r"FieldBatchNorm2d expected 8 channels \(2 x p4 regular\), got 6"):
        FieldBatchNorm2d(regular(P4, 2))(torch.randn(2, 6, 4, 4))


@pytest.mark.parametrize("spectral", [False, True])
def test_conditional_norm_from_its_definition(spectral):
    """(1 + gamma(c)) normalised x + beta(c), gamma and beta one a field."""
    torch.manual_seed(0)
    norm = ConditionalFieldBatchNorm2d(regular(P4, 2), 5, spectral).double()
    condition = torch.randn(3, 5, dtype=torch.float64)
    assert isinstance(norm.gamma, SpectralLinear) == isinstance(norm.beta, SpectralLinear) == spectral
    norm(X, condition)
    norm.eval()
    gamma, beta = norm.gamma(condition), norm.beta(condition)
    assert gamma.shape == (3, 2)
    normalised = FieldBatchNorm2d(regular(P4, 2), affine=False).double().eval()
    normalised.load_state_dict(norm.norm.state_dict())
    expected = torch.empty_like(X)
    for sample in range(3):
        for channel in range(8):
            field = channel // 4
            expected[sample, channel] = (1 + gamma[sample, field]) * normalised(X)[sample, channel]
            expected[sample, channel] += beta[sample, field]
    torch.testing.assert_close(norm(X, condition), expected)
    assert norm.norm.weight is None, "the plain affine map would double the conditional one"


def test_momentum_reaches_the_norm_inside():
    assert ConditionalFieldBatchNorm2d(regular(P4, 2), 5, momentum=0.9).norm.momentum == 0.9


def test_a_frozen_norm_stays_as_it_is_in_training():
    norm = FieldBatchNorm2d(regular(P4, 2)).double()
    norm(X)
    network = nn.Sequential(norm.freeze()).train()
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    network(X.clone().requires_grad_()).sum().backward()
    assert norm.weight.grad is norm.bias.grad is None
    assert all(torch.equal(before[name], value) for name, value in norm.state_dict().items())
    assert torch.equal(network(X), network.eval()(X))
    norm.freeze(False)
    network.train()(X).sum().backward()
    assert norm.weight.grad is not None
    assert not torch.equal(norm.running_mean, before["running_mean"])
