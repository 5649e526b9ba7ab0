"""The maximum against torch's own: numbers, both derivatives, ties, layouts, and who records it."""

import pytest
import torch

from eqgan.groups import P4, regular
from eqgan.nn import GlobalPool2d, GroupPool
from eqgan.nn.maximum import _Maximum, maximum


def tied(shape=(2, 3, 4, 5, 5), dtype=torch.float64):
    """Values from five numbers: most maxima are taken several times."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(-2, 3, shape, generator=generator).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dim", [0, 2, 4])
def test_numbers_and_gradient(dim, dtype):
    x = tied(dtype=dtype).requires_grad_()
    weights = torch.randn(x.amax(dim).shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    ours, exact = maximum(x, dim), x.amax(dim)
    assert torch.equal(ours, exact)
    assert "_Maximum" in type(ours.grad_fn).__name__
    gradients = [torch.autograd.grad((y * weights).sum(), x)[0] for y in (ours, exact)]
    torch.testing.assert_close(*gradients)
    assert gradients[0].count_nonzero() > weights.numel()  # several share


def test_second_derivative():
    x = tied().requires_grad_()
    found = []
    for function in (maximum, torch.amax):
        (first,) = torch.autograd.grad(function(x, 2).pow(3).sum(), x, create_graph=True)
        found.append(torch.autograd.grad(first.pow(2).sum(), x)[0])
    torch.testing.assert_close(*found)
    apart = torch.randperm(240, generator=torch.Generator().manual_seed(0)).double().reshape(2, 3, 4, 5, 2)
    apart.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: maximum(x, 2), apart)
    assert torch.autograd.gradgradcheck(lambda x: maximum(x, 2), apart)


@pytest.mark.parametrize("layout", ["channels_last", "sliced", "expanded", "empty"])
def test_layouts(layout):
    x = torch.randn(4, 8, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if layout == "channels_last":
        x = x.to(memory_format=torch.channels_last)
    x = {"sliced": x[:, :, ::2, 1:], "expanded": x[:1].expand_as(x), "empty": x[:0]}.get(layout, x)
    pool, found = GroupPool(regular(P4, 2)), []
    for function in (pool, lambda x: x.unflatten(1, (2, 4)).amax(2)):
        own = x.detach().requires_grad_()
        function(own).pow(2).sum().backward()
        found.append(own.grad)
    torch.testing.assert_close(*found)


@pytest.mark.filterwarnings("ignore")
def test_batched_gradients():
    """Of both kinds of vmap: what they stand for cannot be changed in place."""
    x = tied().requires_grad_()
    weights = torch.randn(4, *x.amax(2).shape, generator=torch.Generator().manual_seed(1)).double()
    (exact,) = torch.autograd.grad(x.amax(2), x, weights, is_grads_batched=True)
    y = maximum(x, 2)
    (ours,) = torch.autograd.grad(y, x, weights, is_grads_batched=True, retain_graph=True)
    torch.testing.assert_close(ours, exact)
    (ours,) = torch.func.vmap(lambda w: torch.autograd.grad(y, x, w, retain_graph=True))(weights)
    torch.testing.assert_close(ours, exact)


def test_ties_of_whole_maps_are_counted_exactly():
    """784 of them, which bfloat16 does not count."""
    x = torch.zeros(1, 1, 28, 28, dtype=torch.bfloat16, requires_grad=True)
    GlobalPool2d("max")(x).sum().backward()
    torch.testing.assert_close(x.grad.double().sum().item(), 1.0, rtol=2**-8, atol=0)


def test_nan_is_seen():
    x = tied()
    x[0, 0, 1] = torch.nan
    x.requires_grad_()
    y = maximum(x, 2)
    assert torch.equal(y.isnan(), x.amax(2).isnan())
    assert y.isnan().any()
    ours, exact = (torch.autograd.grad(z.sum(), x)[0] for z in (maximum(x, 2), x.amax(2)))
    assert torch.equal(ours.isnan(), exact.isnan())


def test_no_gradient_wanted_is_amax():
    x = tied()
    assert maximum(x, 2).grad_fn is None
    with torch.no_grad():
        assert maximum(x.requires_grad_(), 2).grad_fn is None


@pytest.mark.filterwarnings("ignore")
def test_recorded_or_transformed_is_amax(monkeypatch):
    monkeypatch.setattr(_Maximum, "apply", lambda *_: pytest.fail("taken"))
    x = tied()
    pooled = lambda x: maximum(x, 2).pow(2).sum()  # noqa: E731
    exact = torch.func.grad(lambda x: x.amax(2).pow(2).sum())(x)
    torch.testing.assert_close(torch.func.grad(pooled)(x), exact)
    torch.func.vmap(pooled)(x)
    torch.func.jvp(pooled, (x,), (x,))
    torch._dynamo.reset()
    torch.compile(pooled, backend="aot_eager", fullgraph=True)(x.clone().requires_grad_())
    torch.jit.trace(pooled, x.clone().requires_grad_(), check_trace=False)
