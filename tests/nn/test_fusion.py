"""In eval without gradients a convolution and its batch norm are one: the same numbers, never stale."""

import copy
import itertools
import pickle
from collections import OrderedDict
from contextlib import contextmanager
from unittest.mock import Mock, patch

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from eqgan.groups import P4, P4M, Z2, regular, scalar
from eqgan.networks import ResNet18
from eqgan.networks.freezing import freeze
from eqgan.networks.resnet_body import ResidualBlock
from eqgan.nn import (
    ConvAvgPool2d,
    CosetPool,
    EvalFusion,
    FieldBatchNorm2d,
    FieldSequential,
    FusedSequential,
    GroupConv2d,
    GroupPool,
    LiftingConv2d,
    PlainUpsampleConv2d,
    UpsampleConv2d,
    by_filter_banks,
    conv,
)
from eqgan.nn.fourier import engine
from eqgan.nn.fourier.lifting import Lifting
from eqgan.nn.fourier.native import After
from eqgan.nn.fourier.tables import Form
from eqgan.nn.fusion import fuses, pool_joined
from tests.nn.against_bank import needs_engine

CONVOLUTIONS = {
    "lifting": lambda group, **o: LiftingConv2d(scalar(group, 2), regular(group, 3), 3, **o),
    "regular": lambda group, **o: GroupConv2d(regular(group, 2), regular(group, 3), 3, **o),
    "strided": lambda group, **o: GroupConv2d(regular(group, 2), regular(group, 3), 4, 2, 1, **o),
    "one site": lambda group, **o: GroupConv2d(regular(group, 2), regular(group, 3), 8, **o),
    "doubled": lambda group, **o: UpsampleConv2d(regular(group, 2), regular(group, 3), 3, **o),
    "halved": lambda group, **o: ConvAvgPool2d(regular(group, 2), regular(group, 3), 3, **o),
}
PLAIN = {
    "plain": lambda **o: nn.Conv2d(2, 3, 3, stride=2, padding=1, padding_mode="reflect", **o),
    "grouped": lambda **o: nn.Conv2d(2, 4, 3, groups=2, **o),
    "plain doubled": lambda **o: PlainUpsampleConv2d(2, 3, 3, **o),
}
RECTIFIERS = {"none": [], "relu": [nn.ReLU()], "leaky": [nn.LeakyReLU(0.2)], "tanh": [nn.Tanh()]}


def lived(norm):
    """With statistics as after some training."""
    with torch.no_grad():
        for tensor in (norm.running_mean, norm.weight, norm.bias):
            if tensor is not None:
                tensor.normal_()
        norm.running_var.uniform_(0.5, 2)
    return norm


def chain(kind="regular", group=P4, rectifier="relu", affine=True, seed=0, **options):
    torch.manual_seed(seed)
    layer = CONVOLUTIONS[kind](group, **options)
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    norm = lived(FieldBatchNorm2d(layer.out_type, affine=affine))
    return FieldSequential(layer, norm, *RECTIFIERS[rectifier]).double().eval()


def images(layers, side=8):
    generator = torch.Generator().manual_seed(7)
    return torch.randn(3, layers.in_type.channels, side, side, generator=generator, dtype=torch.float64)


def one_by_one(layers, x):
    """What the layers give when nothing is joined."""
    with torch.enable_grad():
        for layer in layers:
            x = layer(x)
    return x.detach()


@torch.no_grad()
def joined(layers, x):
    """What they give in eval, after making sure that the norm is not called."""
    with patch.object(type(layers[1]), "forward", side_effect=AssertionError("the norm was called")):
        return layers(x)


@pytest.mark.parametrize("rectifier", RECTIFIERS)
@pytest.mark.parametrize("kind", CONVOLUTIONS)
@pytest.mark.parametrize("group", [Z2, P4, P4M], ids=str)
def test_it_computes_what_the_layers_do(group, kind, rectifier):
    for affine, bias in itertools.product((True, False), repeat=2):
        layers = chain(kind, group, rectifier, affine, bias=bias)
        x = images(layers)
        given = x.clone()
        torch.testing.assert_close(joined(layers, x), one_by_one(layers, x), atol=1e-12, rtol=1e-12)
        assert torch.equal(x, given), "the input was written to"


@pytest.mark.parametrize("kind", PLAIN)
def test_plain_layers_too(kind):
    torch.manual_seed(0)
    for affine, bias in itertools.product((True, False), repeat=2):
        layer = PLAIN[kind](bias=bias)
        norm = lived(nn.BatchNorm2d(layer.out_channels, affine=affine))
        layers = FusedSequential(layer, norm, nn.ReLU()).double().eval()
        x = torch.randn(3, 2, 8, 8, dtype=torch.float64)
        torch.testing.assert_close(joined(layers, x), one_by_one(layers, x), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("spectral", ["filter", "bank", "operator"])
def test_it_keeps_the_spectral_norm(spectral):
    layers = chain(spectral=spectral, input_size=8)
    x = images(layers)
    torch.testing.assert_close(joined(layers, x), one_by_one(layers, x), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("path", ["bank", "fourier"])
def test_it_takes_either_way_in_float32(monkeypatch, path):
    monkeypatch.setenv("EQGAN_CONV", path)
    for kind in ("lifting", "regular", "strided", "doubled"):
        layers = chain(kind).float()
        x = images(layers, 16).float()
        torch.testing.assert_close(joined(layers, x), one_by_one(layers, x), atol=2e-5, rtol=1e-4)


@contextmanager
def without_separate_rectifier(layer):
    """Whoever rectifies maps apart from the convolution fails within."""
    apart = Mock(side_effect=AssertionError("rectified apart"))
    with patch.multiple(conv.F, relu_=apart, leaky_relu_=apart), patch.object(type(layer), "forward", apart):
        yield


@needs_engine
@pytest.mark.parametrize("rectifier", ["relu", "leaky"])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
@pytest.mark.parametrize("normed", [True, False])
def test_the_engine_rectifies_what_it_writes(monkeypatch, kind, rectifier, normed):
    monkeypatch.setenv("EQGAN_CONV", "fourier")
    layers = chain(kind, rectifier=rectifier).float()
    if not normed:
        layers = FieldSequential(layers[0], layers[2]).eval()
    x = images(layers).float()
    expected = one_by_one(layers, x)
    assert expected.min() < 0 or rectifier == "relu"
    with torch.no_grad(), without_separate_rectifier(layers[-1]):
        torch.testing.assert_close(layers(x), expected, atol=2e-5, rtol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            found = layers(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, atol=0.1, rtol=0.1)
    layers.train()
    if not normed:
        with torch.no_grad():
            torch.testing.assert_close(layers(x), expected, atol=2e-5, rtol=1e-4)


@needs_engine
@pytest.mark.parametrize("isa", range(4))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_it_rectifies_as_torch_does(isa, dtype):
    """Every vector of a row, what is not finite, and any slope."""
    best = engine.engine(P4.point_group)
    native = engine.Engine(P4.point_group, best.library, min(isa, best.isa))
    torch.manual_seed(0)
    weight, x = torch.randn(3, 2, 4), torch.randn(2, 8, 5, 13).to(dtype)
    packed = native.pack(weight, 1)
    for slope in (0.0, 0.2, 1.5, -0.5):
        given = x, packed, None, 3, 1, 0
        plain, found = native.forward_packed(*given), native.forward_packed(*given, after=After(slope))
        torch.testing.assert_close(found, F.leaky_relu(plain, slope), rtol=2**-7, atol=0)
    lifted, planes = torch.randn(3, 1, 1), torch.randn(2, 1, 5, 13).to(dtype)
    planes[0, 0, 0, :3] = torch.tensor([-torch.inf, torch.nan, torch.inf])
    lifting = Lifting(native)
    for slope in (0.0, 0.2):
        plain = lifting.forward(planes, lifted, None, 1, 0, 1)
        expected = F.leaky_relu(plain, slope) if slope else plain.relu()
        found = lifting.forward(planes, lifted, None, 1, 0, 1, After(slope))
        torch.testing.assert_close(found, expected, rtol=2**-7, atol=0, equal_nan=True)


POOLS = {"group": GroupPool, "cosets": lambda fields: CosetPool(fields, (0, 2))}


@needs_engine
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("kind", CONVOLUTIONS)
@pytest.mark.parametrize("group", [P4, P4M], ids=str)
def test_the_engine_pools_what_it_writes(monkeypatch, group, kind, pool):
    monkeypatch.setenv("EQGAN_CONV", "fourier")
    joins = kind not in ("doubled", "one site") and (kind != "lifting" or pools_where_it_lifts(group))
    for rectifier in ("none", "relu", "leaky"):
        first = chain(kind, group, rectifier).float()
        layers = FieldSequential(*first, POOLS[pool](first.out_type)).eval()
        x = images(layers).float()
        expected = one_by_one(layers, x)
        with torch.no_grad(), counted_calls(layers[-1]) as calls:
            torch.testing.assert_close(layers(x), expected, atol=2e-5, rtol=1e-4)
            with torch.autocast("cpu", torch.bfloat16):
                torch.testing.assert_close(layers(x).float(), expected, atol=0.1, rtol=0.1)
        assert len(calls) == (0 if joins else 2)


def pools_where_it_lifts(group):
    return Lifting(engine.engine(group.point_group)).pools()


@contextmanager
def counted_calls(layer):
    calls, forward = [], type(layer).forward
    with patch.object(type(layer), "forward", lambda self, x: calls.append(1) or forward(self, x)):
        yield calls


@needs_engine
@pytest.mark.parametrize("isa", range(4))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("side", [4, 6, 13])
def test_it_pools_as_torch_does(isa, dtype, side):
    """At every end of a row, any number of fields, and what is no number."""
    group = P4M.point_group
    best = engine.engine(group)
    native = engine.Engine(group, best.library, min(isa, best.isa))
    torch.manual_seed(0)
    by_coset = POOLS["cosets"](regular(P4M, 1)).plane_of
    for fields, pool in itertools.product((1, 2, 5), ((0,) * 8, by_coset)):
        weight, x = torch.randn(fields, 2, 8), torch.randn(2, 16, side, side).to(dtype)
        x[0, 3, 1, 2] = torch.nan
        given = x, native.pack(weight, 1), torch.randn(fields), fields, 1, 0
        lifted = torch.randn(2, 2, side, side).to(dtype), weight[:, :, :1], given[2], 1, 0, 1
        ways = [native.forward_packed] + [Lifting(native).forward] * Lifting(native).pools()
        for forward, arguments in zip(ways, (given, lifted)):
            apart = forward(*arguments).unflatten(1, (fields, 8))
            planes = torch.tensor(pool)
            largest = [apart[:, :, planes == plane].amax(2) for plane in range(max(pool) + 1)]
            found = forward(*arguments, after=After(0.5, pool))
            expected = F.leaky_relu(torch.stack(largest, 2).flatten(1, 2), 0.5)
            torch.testing.assert_close(found, expected, rtol=2**-7, atol=0, equal_nan=True)


def test_what_is_no_pool_of_the_fields_is_called():
    layers = chain().float()
    for pool in (GroupPool(layers.out_type, "mean"), CosetPool(regular(P4, 3), (0, 2), "mean")):
        assert pool_joined(layers[0], pool, 0.0) is None
    pool = GroupPool(layers.out_type)
    assert pool_joined(layers[0], pool, 0.0) is pool
    assert pool_joined(layers[0], pool, -0.1) is None, "it does not rise"
    assert pool_joined(layers[0], GroupPool(regular(P4, 4)), None) is None
    assert pool_joined(nn.Conv2d(1, 12, 3), pool, None) is None
    pool.register_forward_hook(lambda *_: None)
    assert pool_joined(layers[0], pool, 0.0) is None


@needs_engine
def test_a_pool_that_says_nothing_is_refused():
    native = engine.engine(P4.point_group)
    packed, x = native.pack(torch.randn(3, 2, 4), 1), torch.randn(1, 8, 4, 4)
    for after in (After(None, (0, 0)), After(None, (0, 0, 2, 2)), After(-0.1, (0, 0, 0, 0))):
        with pytest.raises(ValueError, match="expected"):
            native.forward_packed(x, packed, None, 3, 1, 0, after=after)
    transposed = Form(2, of_output=True)
    with pytest.raises(ValueError, match="no pool after a transposed"):
        native.forward_packed(
            x,
            native.pack(torch.randn(3, 2, 16), 2, transposed),
            None,
            3,
            2,
            0,
            transposed,
            After(None, (0,) * 4),
        )
    narrow = engine.Engine(P4M.point_group, engine.engine(P4M.point_group).library, 0)
    with pytest.raises(ValueError, match="ask pools"):
        Lifting(narrow).forward(x[:, :1], torch.randn(1, 1, 1), None, 1, 0, 1, After(None, (0,) * 8))


def test_a_forward_of_ones_own_is_called():
    """As a compiled one is set: neither it nor the layer after it is left out."""
    for layers in (chain(), FieldSequential(chain()[0], nn.ReLU()).eval(), FusedSequential(*plain_chain())):
        x, calls = torch.randn(3, getattr(layers[0], "in_channels", 8), 8, 8).double(), []
        expected = one_by_one(layers, x)
        own = layers[0].forward
        layers[0].forward = lambda x, own=own, calls=calls: calls.append(1) or own(x)
        with torch.no_grad():
            torch.testing.assert_close(layers(x), expected)
        assert calls == [1]


def plain_chain():
    return [layer.double().eval() for layer in (nn.Conv2d(2, 3, 3), lived(nn.BatchNorm2d(3)), nn.ReLU())]


@pytest.mark.parametrize("value", [-1.0, -torch.inf])
def test_in_training_a_residual_block_has_torchs_rectifier(value):
    class Fixed(nn.Module):
        def forward(self, x):
            return torch.full_like(x, value)

    found = EvalFusion().rectified(Fixed(), nn.Identity(), torch.ones(1, requires_grad=True))
    assert found.item() == 0
    assert not found.signbit()


def test_a_rectifier_that_is_watched_is_called():
    layers, seen = FieldSequential(chain()[0], nn.ReLU()).eval(), []
    layers[1].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].min() < 0))
    with torch.no_grad():
        layers(images(layers))
    assert seen == [True]
    hooked = FieldSequential(chain()[0], nn.ReLU()).eval()
    hooked[0].register_forward_hook(lambda module, inputs, output: output + 1)
    with torch.no_grad():
        torch.testing.assert_close(hooked(images(hooked)), one_by_one(hooked, images(hooked)))


def run_in_training(layers):
    layers.train()
    with torch.no_grad():
        layers(images(layers) * 2)
    layers.eval()


def learn(layers):
    layers(images(layers)).square().sum().backward()
    torch.optim.SGD(layers.parameters(), 0.01).step()


CHANGES = {
    "training": run_in_training,
    "a step": learn,
    "its statistics": lambda layers: layers[1].running_mean.add_(1),
    "its variance": lambda layers: layers[1].running_var.mul_(2),
    "its scale, through data": lambda layers: layers[1].weight.data.mul_(2),
    "its shift": lambda layers: nn.init.normal_(layers[1].bias),
    "the filter": lambda layers: nn.init.normal_(layers[0].weight),
    "the bias of the convolution": lambda layers: nn.init.normal_(layers[0].bias),
    "a state dict": lambda layers: layers.load_state_dict(chain(seed=1).state_dict()),
    "another norm": lambda layers: layers.__setitem__(
        1, lived(FieldBatchNorm2d(layers[1].in_type).double().eval())
    ),
    "float32": lambda layers: layers.float(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_it_keeps_is_never_stale(change):
    layers = chain()
    x = images(layers)
    before = joined(layers, x)
    CHANGES[change](layers)
    x = x.to(layers[0].weight.dtype)
    exact = 1e-12 if x.dtype == torch.float64 else 1e-4
    now = joined(layers, x)
    torch.testing.assert_close(now, one_by_one(layers, x), atol=exact, rtol=exact)
    assert not torch.equal(now, before.to(now.dtype)), "nothing changed: the test shows nothing"


def test_what_it_made_is_kept():
    layers = chain()
    joined(layers, images(layers))
    made = layers._fusions[0].convolution(layers[0], layers[1])
    joined(layers, images(layers))
    assert layers._fusions[0].convolution(layers[0], layers[1]) is made
    layers.train()
    assert not layers._fusions, "a copy of the filters is kept through training"


def test_a_changed_option_is_not_missed():
    """eps is no tensor: an own fusion would not see it change."""
    layers = chain()
    x = images(layers)
    joined(layers, x)
    layers[1].eps = 0.5
    torch.testing.assert_close(joined(layers, x), one_by_one(layers, x), atol=1e-12, rtol=1e-12)


def test_another_convolution_of_the_same_filter_is_not_missed():
    layers = chain()
    x = images(layers)
    joined(layers, x)
    layers[0] = copy.deepcopy(layers[0])
    layers[0].padding = 1
    torch.testing.assert_close(joined(layers, x), one_by_one(layers, x), atol=1e-12, rtol=1e-12)


def test_copies_and_files_do_not_carry_it():
    layers = chain()
    x = images(layers)
    expected = joined(layers, x)
    names = set(layers.state_dict())
    for other in (copy.deepcopy(layers), pickle.loads(pickle.dumps(layers))):
        assert all(fusion._made is None for fusion in other._fusions.values())
        assert torch.equal(joined(other, x), expected)
        nn.init.normal_(other[0].weight)
        joined(other, x)
    assert torch.equal(joined(layers, x), expected)
    assert set(layers.state_dict()) == names == set(chain().state_dict())
    assert len(list(layers.modules())) == 4


def test_hooks_see_what_they_asked_for():
    for place in (0, 1, 2):
        layers, seen = chain(), []
        x = images(layers)
        expected = one_by_one(layers[: place + 1], x)

        def see(module, inputs, output, seen=seen):
            seen.append(output.clone())

        with torch.no_grad():
            layers(x)
            layers[place].register_forward_hook(see)
            layers(x)
        torch.testing.assert_close(seen, [expected], atol=1e-12, rtol=1e-12)
    with torch.no_grad():
        handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
        try:
            assert not fuses(chain()[0], chain()[1]), "a global hook misses two layers"
        finally:
            handle.remove()


def test_only_in_eval_without_gradients():
    layers = chain()
    assert not fuses(*layers[:2])
    with torch.no_grad():
        assert fuses(*layers[:2])
        assert not fuses(layers[0], nn.BatchNorm2d(3).eval()), "a norm of channels, fewer than there are"
        assert not fuses(nn.Conv2d(3, 3, 3).eval(), layers[1]), "a norm of fields after channels"
        assert not fuses(nn.Conv2d(3, 3, 3).eval(), nn.BatchNorm2d(4).eval())
        assert not fuses(layers[0], FieldBatchNorm2d(regular(P4, 4)).eval())
        weighted = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 3, 3)).eval()
        assert not fuses(weighted, nn.BatchNorm2d(3).eval()), "its filter is not its weight"

        class Squared(GroupConv2d):
            def forward(self, x):
                return super().forward(x).square()

        squared = Squared(layers[0].in_type, layers[0].out_type, 3).eval()
        assert not fuses(squared, layers[1]), "a layer of the user's"
        assert not fuses(layers[0], layers[1].train())
        assert not fuses(layers[0].train(), layers[1].eval())
        unkept = FieldBatchNorm2d(layers[0].out_type).eval()
        unkept.running_mean = unkept.running_var = None
        assert not fuses(layers[0].eval(), unkept)


def test_what_is_recorded_has_the_layers():
    layers = chain()
    x = images(layers)
    with torch.no_grad():
        exported = torch.export.export(layers, (x,))
        assert any("batch_norm" in str(node.target) for node in exported.graph.nodes)
        with patch("torch.jit.is_tracing", return_value=True):
            assert not fuses(*layers[:2])


@pytest.mark.parametrize("preactivation", [False, True])
def test_residual_blocks(preactivation):
    torch.manual_seed(0)
    block = ResidualBlock(regular(P4, 2), regular(P4, 3), 3, 2, 9, preactivation).double().eval()
    for module in block.modules():
        if isinstance(module, FieldBatchNorm2d):
            lived(module)
    x = torch.randn(2, 8, 9, 9, dtype=torch.float64)
    expected = block(x).detach()
    with torch.no_grad():
        torch.testing.assert_close(block(x), expected, atol=1e-12, rtol=1e-12)
        assert fuses(block.conv1, block.bn2 if preactivation else block.bn1)
    assert block._first._made is not None
    block.train()
    assert block._first._made is None, "filters are kept through training"


def test_layers_with_names():
    named = OrderedDict(zip(("conv", "norm", "relu"), chain()))
    layers = FieldSequential(named)
    x = images(layers)
    torch.testing.assert_close(joined(layers, x), one_by_one(layers, x), atol=1e-12, rtol=1e-12)


# ---- calls that are not ordinary --------------------------------------------------------------------------


def functional(layers, x):
    doubled = {name: 2 * value for name, value in layers.named_parameters()}
    return torch.func.functional_call(layers, doubled, (x,))


def over_networks(layers, x):
    stacked = {name: torch.stack([value, 2 * value]) for name, value in layers.named_parameters()}
    return torch.func.vmap(lambda p: torch.func.functional_call(layers, p, (x,)))(stacked)


def recorded(layers, x):
    return make_fx(layers)(x)(x)


def forward_derivative(layers, x):
    values = {name: value.detach() for name, value in layers.named_parameters()}

    def call(parameters):
        return torch.func.functional_call(layers, parameters, (x,))

    return torch.func.jvp(call, (values,), ({k: v.cos() for k, v in values.items()},))[1]


@pytest.mark.filterwarnings("ignore:.*batching rule", "ignore:.*torch.jit.script")
@pytest.mark.parametrize("call", [functional, over_networks, recorded, forward_derivative])
@pytest.mark.parametrize("kind", ["regular", "plain"])
def test_transforms_see_the_layers(call, kind):
    torch.manual_seed(0)
    layers = chain() if kind == "regular" else FusedSequential(nn.Conv2d(8, 3, 3), lived(nn.BatchNorm2d(3)))
    layers = layers.double().eval()
    x = torch.randn(3, 8, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        layers(x)  # something is kept
        for _ in range(2):
            found = call(layers, x)
    plain = nn.Sequential(*copy.deepcopy(layers))
    expected = call(plain, x)
    torch.testing.assert_close(found, expected.detach(), atol=1e-12, rtol=1e-12)
    if call is not recorded:
        assert not torch.equal(found, layers(x)), "the call changed nothing: the test shows nothing"


def test_fake_tensors_need_no_numbers():
    layers = chain()
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True) as fake:
        assert layers(fake.from_tensor(images(layers))).shape == (3, 12, 6, 6)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_forward_derivatives_of_one_convolution():
    """In the filter, in eval: what is kept has no derivative."""
    layer = chain()[0]
    x = torch.randn(3, 8, 8, 8, dtype=torch.float64)
    layer(x)

    def call(weight):
        return torch.func.functional_call(layer, {"weight": weight}, (x,))

    direction = torch.randn_like(layer.weight)
    found = torch.func.jvp(call, (layer.weight.detach(),), (direction,))[1]
    layer.bias.data.zero_()
    expected = torch.func.functional_call(layer, {"weight": direction}, (x,))
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


def test_a_compiled_layer_is_called_as_it_is():
    layers = chain()
    x = images(layers)
    expected = joined(layers, x)
    layers[0].compile(backend="eager")
    with torch.no_grad():
        assert not fuses(*layers[:2])
        torch.testing.assert_close(layers(x), expected, atol=1e-12, rtol=1e-12)
        copied = copy.deepcopy(layers)
        nn.init.zeros_(copied[0].weight)
        assert not torch.allclose(copied(x), expected), "a copy calls the layer that it was copied of"


def test_half_types_keep_the_layers():
    layers = chain().float()
    x = images(layers).bfloat16()
    layers[0].bfloat16()
    with torch.no_grad():
        assert not fuses(*layers[:2])
        layers(x)
        assert not fuses(*layers.bfloat16()[:2])


@pytest.mark.parametrize("affine", [True, False])
def test_a_norm_without_scale_is_another(affine):
    layers = chain(affine=affine)
    x = images(layers)
    joined(layers, x)
    other = FieldBatchNorm2d(layers[1].in_type, affine=not affine).double().eval()
    other.load_state_dict(layers[1].state_dict(), strict=False)
    if other.affine:
        lived(other)
    layers[1] = other
    torch.testing.assert_close(joined(layers, x), one_by_one(layers, x), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_a_bias_that_comes_or_goes_is_not_missed(bias):
    layers = chain(bias=bias)
    x = images(layers)
    joined(layers, x)
    with torch.no_grad():
        layers[0](x)
    new = None if bias else nn.Parameter(torch.ones(3, dtype=torch.float64))
    layers[0].bias = new
    torch.testing.assert_close(joined(layers, x), one_by_one(layers, x), atol=1e-12, rtol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(layers[0](x), one_by_one(layers[:1], x), atol=1e-12, rtol=1e-12)


def test_the_way_is_that_of_the_layer(monkeypatch):
    monkeypatch.setenv("EQGAN_CONV", "fourier")
    layers = chain()
    joined(layers, images(layers))
    made = layers._fusions[0]
    with by_filter_banks(layers):
        assert made.convolution(*layers[:2])._fourier is None
    assert made.convolution(*layers[:2])._fourier is layers[0]._fourier is not None


def test_a_network_whose_filters_are_partly_frozen_is_evaluated():
    network = ResNet18((1, 33, 33), 3, P4, width=4)
    freeze(network, "off-identity")
    x = torch.randn(2, 1, 33, 33)
    network.eval()
    expected = network(x).detach()
    with torch.no_grad():
        torch.testing.assert_close(network(x), expected, atol=1e-4, rtol=1e-4)
