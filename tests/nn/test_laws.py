"""One law, many named cases: equivariance in float64 over all group elements, whatever was done before."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from eqgan.testing import assert_equivariant
from tests.nn.cases import LAYERS, REPRESENTATIVE, TRAINABLE, build, example, iterates

EVERY = pytest.mark.parametrize("name", LAYERS)
SOME = pytest.mark.parametrize("name", REPRESENTATIVE)


def keep_bank(module: nn.Module, x: torch.Tensor) -> None:
    """An evaluation in passing, which fills the caches that everything after it must drop."""
    with torch.no_grad():
        module.eval()(x)


def train_step(module: nn.Module, x: torch.Tensor, rate: float = 0.1) -> None:
    module.train()
    optimiser = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], rate)
    loss = (module(x) - 0.3).square().sum().sqrt()
    loss.backward()
    optimiser.step()
    module.eval()


@EVERY
def test_equivariant(name):
    module = build(LAYERS[name])
    x = example(module)
    if not iterates(module):
        assert_equivariant(module, x)
    assert_equivariant(module.eval(), x)


@SOME
def test_equivariant_on_maps_that_are_not_square(name):
    module = build(LAYERS[name]).eval()
    assert_equivariant(module, example(module, wider=4))


@pytest.mark.parametrize("name", TRAINABLE)
def test_equivariant_after_a_training_step(name):
    module = build(LAYERS[name])
    x = example(module)
    before = [p.detach().clone() for p in module.parameters()]
    keep_bank(module, x)
    train_step(module, x)
    assert all((p != b).any() for p, b in zip(module.parameters(), before)), "a parameter got no gradient"
    assert_equivariant(module, x)


@SOME
def test_state_dict_round_trip(name):
    trained, fresh = build(LAYERS[name], seed=0), build(LAYERS[name], seed=1)
    x = example(trained)
    if name in TRAINABLE:
        train_step(trained, x)
    in_eval = trained.eval().state_dict()
    assert set(in_eval) == set(trained.train().state_dict()) == set(fresh.state_dict())
    file = io.BytesIO()
    torch.save(in_eval, file)
    file.seek(0)
    keep_bank(fresh, x)
    fresh.load_state_dict(torch.load(file, weights_only=True), strict=True)
    with torch.no_grad():
        assert torch.equal(fresh.eval()(x), trained.eval()(x))
    assert_equivariant(fresh, x)


@SOME
@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=("copy", "pickle")
)
def test_copies(name, duplicate):
    module = build(LAYERS[name]).eval()
    x = example(module)
    with torch.no_grad():
        expected = module(x)
        twin = duplicate(module)
        assert torch.equal(twin(x), expected)
        for parameter in twin.parameters():
            parameter.mul_(1.5)
        assert torch.equal(module(x), expected), "the copy shares weights with its original"
    assert (twin.in_type, twin.out_type) == (module.in_type, module.out_type)
    assert_equivariant(twin, x)


@SOME
def test_ema_copy(name):
    module = build(LAYERS[name])
    x = example(module)
    average = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    keep_bank(average, x)
    if name in TRAINABLE:
        before = [p.detach().clone() for p in module.parameters()]
        average.update_parameters(module)
        train_step(module, x)
        average.update_parameters(module)
        for mean, old, new in zip(average.module.parameters(), before, module.parameters()):
            torch.testing.assert_close(mean, (old + new) / 2, rtol=1e-12, atol=1e-12)
    assert_equivariant(average.eval(), x, module.in_type, module.out_type)
    fresh = build(LAYERS[name], seed=1).eval()
    fresh.load_state_dict(average.module.state_dict())
    with torch.no_grad():
        assert torch.equal(fresh(x), average(x))


@SOME
def test_autocast(name):
    module = build(LAYERS[name], dtype=torch.float32)
    x = example(module, dtype=torch.float32)
    for mode in (True, False):
        with torch.autocast("cpu", torch.bfloat16):
            module.train(mode)
            y = module(x)
            assert torch.isfinite(y).all()
            if y.requires_grad:
                y.float().square().mean().backward()
    with torch.autocast("cpu", torch.bfloat16):
        assert_equivariant(module, x, rtol=0.04)
    with torch.no_grad():  # what was cached under autocast is as good as before
        kept = module(x)
        assert torch.equal(copy.deepcopy(module)(x), kept)


@SOME
def test_channels_last(name):
    module = build(LAYERS[name]).eval()
    x = example(module)
    with torch.no_grad():
        torch.testing.assert_close(
            module(x.to(memory_format=torch.channels_last)), module(x), rtol=1e-12, atol=1e-12
        )
    assert_equivariant(module.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last))


@SOME
def test_empty_batch(name):
    module = build(LAYERS[name]).eval()
    x = example(module)
    y = module(x[:0].requires_grad_())
    assert y.shape == (0, *module(x).shape[1:])
    y.sum().backward()


@SOME
def test_wrong_channels_are_refused(name):
    module = build(LAYERS[name])
    x = example(module)
    expected = module.in_type.channels
    with pytest.raises(ValueError, match=f"expected {expected} channels .*got {expected + 1}"):
        module(torch.cat([x, x[:, :1]], 1))


@pytest.mark.parametrize("name", [n for n in LAYERS if "-k3-" in n and not n.startswith("z2")])
def test_a_corrupted_index_is_caught(name):
    module = build(LAYERS[name]).eval()
    x = example(module)
    module.index[:] = module.index.roll(1)
    with pytest.raises(AssertionError, match="not equivariant under element"):
        assert_equivariant(module, x)


@pytest.mark.parametrize("name", ["p4-coset-pool-p2-max", "p4m-subgroup-pool-p4-max", "p4m-restrict-p4"])
def test_a_corrupted_fiber_table_is_caught(name):
    module = build(LAYERS[name])
    table = module.order if hasattr(module, "order") else module.table
    flat = table.view(-1)
    flat[[0, -1]] = flat[[-1, 0]]
    with pytest.raises(AssertionError, match="not equivariant under element"):
        assert_equivariant(module, example(module))


def test_the_zero_map_is_refused():
    module = build(LAYERS["p4-regular-regular-k3-s1-p1"])
    nn.init.zeros_(module.weight)
    x = example(module)
    with pytest.raises(AssertionError, match="does not depend on the input"):
        assert_equivariant(module, x)
    nn.init.zeros_(module.bias)
    with pytest.raises(AssertionError, match="constant"):
        assert_equivariant(module, x)
