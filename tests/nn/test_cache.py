"""The bank kept in eval is dropped as soon as anything it depends on changes, and is never saved."""

import copy
import io
import pickle

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from eqgan.groups import P4, regular
from eqgan.nn import GroupConv2d


@pytest.fixture(params=[None, "filter", "bank", "operator"])
def layer(request):
    return make(request.param)


def make(spectral=None, seed=0):
    torch.manual_seed(seed)
    return GroupConv2d(regular(P4, 2), regular(P4, 2), 3, spectral=spectral, input_size=5).eval()


X = torch.randn(2, 8, 5, 5, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def kept(layer):
    """The bank, after making sure that it is being kept."""
    bank = layer.filter_bank()
    assert layer.filter_bank() is bank, "nothing was kept"
    return bank


@torch.no_grad()
def require_fresh(layer, old):
    """The bank is what a layer without any cache makes of the same state, and not what it was."""
    bank = layer.filter_bank()
    assert torch.equal(bank, layer._normalised_bank()), "stale"
    assert not torch.equal(bank, old.to(bank.dtype)), "nothing changed: the test shows nothing"


def optimise(layer):
    layer(X).square().sum().backward()
    torch.optim.SGD(layer.parameters(), 0.1).step()


def optimise_fused(layer):
    layer(X).square().sum().backward()
    torch.optim.Adam(layer.parameters(), 0.1, foreach=True).step()


def average_in_place(layer):
    with torch.no_grad():
        for ours, theirs in zip(layer.parameters(), make(seed=1).parameters()):
            ours.lerp_(theirs, 0.5)


def replace_parameter(layer):
    layer.weight = torch.nn.Parameter(layer.weight.detach() * 3 + 1)


def write_through_data(layer):
    layer.weight.data.copy_(torch.randn_like(layer.weight))


def write_through_numpy(layer):
    layer.weight.detach().numpy()[:] += 1.0


def edit_under_inference_mode(layer):
    with torch.inference_mode():
        layer.weight.add_(1.0)


CHANGES = {
    "optimiser step": optimise,
    "foreach optimiser step": optimise_fused,
    "load_state_dict": lambda m: m.load_state_dict(make(m.spectral, seed=1).state_dict()),
    "load_state_dict(assign)": lambda m: m.load_state_dict(
        make(m.spectral, seed=1).state_dict(), assign=True
    ),
    "EMA in place": average_in_place,
    ".data": write_through_data,
    ".numpy()": write_through_numpy,
    "inference mode": edit_under_inference_mode,
    "another parameter": replace_parameter,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_dropped_when_something_changes(layer, change):
    old = kept(layer).clone()
    change(layer)
    require_fresh(layer, old)
    kept(layer)


@pytest.mark.parametrize("kind", ["filter", "bank", "operator"])
def test_dropped_when_the_spectral_vectors_change(kind):
    layer = make(kind)
    old = kept(layer).clone()
    with torch.no_grad():
        for buffer in layer.norm.buffers():
            buffer.copy_(buffer.roll(1))
    require_fresh(layer, old)


def test_dropped_by_a_change_of_dtype(layer):
    assert kept(layer).dtype == torch.float32
    layer.double()
    assert kept(layer).dtype == torch.float64
    layer.to(torch.bfloat16)
    assert kept(layer).dtype == torch.bfloat16


def test_dropped_by_train_and_by_eval(layer):
    kept(layer)
    layer.train()
    assert layer._cache is None
    with torch.no_grad():
        layer(X)
    assert layer._cache is None, "nothing is kept while training"
    layer.eval()
    old = kept(layer)
    layer.eval()
    assert kept(layer) is not old


def test_an_ema_copy_follows_its_source(layer):
    average = AveragedModel(layer, multi_avg_fn=get_ema_multi_avg_fn(0.5)).eval()
    old = kept(average.module).clone()
    average.update_parameters(layer)  # the first update copies
    optimise(layer)
    average.update_parameters(layer)
    require_fresh(average.module, old)


@torch.no_grad()
def test_a_stale_bank_would_be_noticed(layer):
    """The law fails where the check by value is taken out."""
    old = kept(layer).clone()
    write_through_data(layer)
    layer._cache = (tuple(s.detach().clone() for s in layer.sources()), (old, None))
    with pytest.raises(AssertionError, match="stale"):
        require_fresh(layer, old)


@torch.no_grad()
def test_a_new_bias_is_used(layer):
    old = layer(X)
    layer.bias.data.add_(1)
    torch.testing.assert_close(layer(X), old + 1)


def test_a_bias_learns_above_frozen_weights(layer):
    kept(layer)
    layer.weight.requires_grad_(False)
    layer(X).sum().backward()
    assert layer.bias.grad.abs().sum() > 0


def test_same_values_in_eval_kept_eval_and_train(layer):
    with torch.no_grad():
        first, second = layer(X), layer(X)
    with_graph = layer(X)
    assert torch.equal(first, second)
    assert torch.equal(first, with_graph)
    if layer.spectral is None:
        assert torch.equal(first, layer.train()(X))


def test_autograd_after_inference_mode(layer):
    with torch.inference_mode():
        layer(X)
        assert not kept(layer).is_inference()
    x = X.clone().requires_grad_()
    layer(x).sum().backward()
    assert layer.weight.grad.abs().sum() > 0
    assert x.grad.abs().sum() > 0


def test_gradients_reach_the_input_of_a_frozen_layer(layer):
    """A bank kept under inference mode may be saved for backward afterwards."""
    layer.requires_grad_(False)
    with torch.inference_mode():
        layer(X)
    x = X.clone().requires_grad_()
    layer(x).sum().backward()
    assert kept(layer) is layer._cache[1][0]
    assert x.grad.abs().sum() > 0


def test_gradients_in_eval_are_those_of_the_weight(layer):
    kept(layer)
    layer(X).square().sum().backward()
    kept_gradient = layer.weight.grad.clone()
    twin = copy.deepcopy(layer)
    twin.zero_grad()
    twin(X).square().sum().backward()
    assert torch.equal(twin.weight.grad, kept_gradient)


def test_what_is_kept_holds_no_graph(layer):
    assert not kept(layer).requires_grad


def test_not_copied_and_not_pickled(layer):
    kept(layer)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    twins = [copy.deepcopy(layer), copy.copy(layer), pickle.loads(pickle.dumps(layer))]
    for twin in (*twins, torch.load(file, weights_only=False)):
        assert twin._cache is None
        assert torch.equal(kept(twin), kept(layer))
    assert layer._cache is not None, "copying emptied the original"


def test_state_dict_holds_nothing_that_can_be_derived(layer):
    kept(layer)
    vectors = {
        None: set(),
        "filter": {"norm.u", "norm.v"},
        "bank": {"norm.u", "norm.v"},
        "operator": {"norm.v"},
    }
    expected = {"weight", "bias"} | vectors[layer.spectral]
    assert set(layer.state_dict()) == set(layer.train().state_dict()) == expected
    assert {name for name, _ in layer.named_parameters()} == {"weight", "bias"}


def test_elsewhere_than_on_a_cpu_the_gather_has_a_deterministic_gradient():
    """torch.take has none on a GPU, where --deterministic would stop the run."""
    layer = make().to("meta")
    for made in (layer.expand(layer.weight), layer._bias_of_channels()):
        steps, reached = [made.grad_fn], set()
        while steps:
            step = steps.pop()
            reached.add(type(step).__name__)
            steps += [before for before, _ in step.next_functions if before is not None]
        assert "IndexSelectBackward0" in reached
        assert "TakeBackward0" not in reached
