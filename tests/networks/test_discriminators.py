"""One law, many bodies and groups: the score of a discriminator is exactly invariant, whatever was done."""

import copy
import io

import pytest
import torch

from eqgan.groups import P4, P4M, SQUARE_PLANE_GROUPS, Z2, plane_group
from eqgan.networks import ConvDiscriminator, MLPDiscriminator, P4CNNDiscriminator
from eqgan.nn import AvgPool2d, GroupPool
from eqgan.testing import assert_invariant
from eqgan.training.ema import ema_generator
from eqgan.training.losses import NonSaturatingLoss
from eqgan.training.penalties import R1Penalty
from tests.networks.cases import BODIES, SPECTRAL, discriminator, images

EVERY_BODY = pytest.mark.parametrize("body", BODIES)
EVERY_GROUP = pytest.mark.parametrize(
    "group", [g for g in SQUARE_PLANE_GROUPS.values() if g.order > 1], ids=str
)


def train(network, steps=2):
    """Steps of the game itself, the penalty's double backward among them; an evaluation between them."""
    optimiser = torch.optim.Adam(network.parameters(), 0.01, betas=(0.0, 0.99))
    penalty = R1Penalty(gamma=1.0, every=1)
    for step in range(steps):
        network.train()
        real, fake = images(network, 4, seed=step), images(network, 4, seed=100 + step).sign()
        scores = network(torch.cat([real, fake])).split(4)
        optimiser.zero_grad()
        (NonSaturatingLoss().discriminator(*scores) + penalty(network, real)).backward()
        optimiser.step()
        with torch.no_grad():
            network.eval()(real)  # fills the caches that the next step must drop
    return network


@EVERY_BODY
@EVERY_GROUP
def test_the_score_is_invariant_whatever_was_done(body, group):
    network = discriminator(body, group)
    x = images(network)
    assert_invariant(network.eval(), x, group)

    before = copy.deepcopy(network.state_dict())
    average = ema_generator(network, decay=0.5)
    train(network)
    assert all((p != before[n]).any() for n, p in network.named_parameters()), "a parameter did not move"
    assert_invariant(network.eval(), x, group)

    average.update_parameters(network), average.update_parameters(train(network))
    assert_invariant(average.eval(), x, group)

    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    fresh = discriminator(body, group, seed=1).eval()
    assert_invariant(fresh, x, group)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        assert torch.equal(fresh(x), network(x))
    assert_invariant(fresh, x, group)


@EVERY_BODY
@pytest.mark.parametrize("spectral", SPECTRAL)
@pytest.mark.parametrize("pool", ["max", "mean"])
def test_every_norm_and_pool_on_the_smallest_side(body, spectral, pool):
    side = BODIES[body][1][0]
    network = discriminator(body, P4M, side, channels=3, spectral=spectral, pool=pool)
    assert_invariant(train(network).eval(), images(network), P4M)


@EVERY_BODY
def test_float32_and_channels_last(body):
    network = discriminator(body, P4).float().eval()
    x = images(network).float()
    assert_invariant(network, x, P4, rtol=1e-5)
    assert_invariant(network.to(memory_format=torch.channels_last), x, P4, rtol=1e-5)


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    ("body", "name"),
    [*((body, "p4") for body in BODIES), *(("conv", name) for name in ("p2", "pm", "p2mm", "p4m"))],
)
def test_compiled(body, name):
    """Every body, and every group."""
    torch.compiler.reset()
    group = plane_group(name)
    network = discriminator(body, group, BODIES[body][1][0], width=4).eval()
    x = images(network)
    graph = torch.compile(
        network, fullgraph=True, backend="aot_eager" if (body, name) == ("conv", "p4") else "eager"
    )
    with torch.no_grad():
        torch.testing.assert_close(graph(x), network(x), rtol=1e-12, atol=1e-12)
        assert_invariant(graph, x, group)
    torch.compiler.reset()


@EVERY_BODY
@pytest.mark.parametrize(("group", "larger"), [("z2", "p2"), ("p4", "p4m"), ("p2mm", "p4m")])
def test_it_is_not_invariant_under_more_than_it_promises(body, group, larger):
    """The law can fail: a constant score, or one blind to what it should see, would pass all others."""
    network = discriminator(body, plane_group(group)).eval()
    with pytest.raises(AssertionError, match=f"not invariant under element .* of {larger}"):
        assert_invariant(network, images(network), plane_group(larger))


@EVERY_BODY
def test_a_broken_table_is_caught(body):
    network = discriminator(body, P4).eval()
    next(m for m in network.modules() if getattr(m, "index", None) is not None).index.view(-1)[:9] = 0
    with pytest.raises(AssertionError, match="not invariant"):
        assert_invariant(network, images(network), P4)


def test_the_mlp_is_blind_to_every_symmetry():
    torch.manual_seed(0)
    network = MLPDiscriminator((1, 8, 8), hidden=(16, 8), dropout=0.3).double().eval()
    assert network.group == Z2
    with pytest.raises(AssertionError, match="not invariant"):
        assert_invariant(network, images(network), P4)


@EVERY_BODY
def test_scores_are_one_unbounded_number_each(body):
    network = discriminator(body, P4).eval()
    x = images(network, 5)
    score = network(x)
    assert score.shape == (5,)
    with torch.no_grad():
        network.head.bias.add_(1e6)
        torch.testing.assert_close(network(x), score + 1e6)


@EVERY_BODY
def test_the_fiber_is_pooled_as_asked(body):
    """One seed, one set of weights: the maximum over the fiber lies above its mean, and is another number."""
    of_max, of_mean = (discriminator(body, P4, pool=pool).eval().body for pool in ("max", "mean"))
    x = images(discriminator(body, P4))
    fiber = next(i for i, layer in enumerate(of_max.maps) if isinstance(layer, GroupPool))
    unpooled = of_max.maps[:fiber](x).unflatten(1, (-1, 4))
    torch.testing.assert_close(of_max.maps[: fiber + 1](x), unpooled.amax(2))
    torch.testing.assert_close(of_mean.maps[: fiber + 1](x), unpooled.mean(2))
    assert (of_max(x) > of_mean(x)).all()


@EVERY_BODY
def test_stages_hold_every_parameter_once_from_image_to_features(body):
    network = discriminator(body, P4).body
    stages = network.stages()
    assert len(stages) > 1
    held = [id(p) for part in stages.values() for p in part.parameters()]
    assert sorted(held) == sorted(map(id, network.parameters()))
    assert held == list(map(id, network.parameters())), "in order"


# --- sizes -----------------------------------------------------------------------------------------------


def pools(network):
    return [m for m in network.modules() if isinstance(m, AvgPool2d)]


@pytest.mark.parametrize(("side", "count"), [(4, 1), (6, 1), (8, 2), (16, 3), (28, 2), (32, 3)])
def test_the_conv_body_pools_only_while_the_side_is_even(side, count):
    assert len(pools(discriminator("conv", P4, side))) == count


@pytest.mark.parametrize(
    ("body", "side", "remedy"),
    [
        ("conv", 29, 30),
        ("conv", 3, 4),
        ("conv", 2, 4),
        ("p4cnn", 29, 30),
        ("p4cnn", 20, 22),
        ("p4cnn", 7, 22),
    ],
)
@pytest.mark.parametrize("group", ["z2", "p4"])
def test_a_side_that_would_break_the_symmetry_is_refused_with_one_that_works(body, side, remedy, group):
    with pytest.raises(ValueError, match=rf"size {side}: .*--size {remedy}\b"):
        discriminator(body, plane_group(group), side)
    network = discriminator(body, plane_group(group), remedy).eval()
    assert_invariant(network, images(network), plane_group(group))


@pytest.mark.parametrize("side", [7, 8, 29, 34, 100])
def test_the_strided_body_names_sizes_that_work(side):
    with pytest.raises(
        ValueError, match=rf"size {side}: .*sizes such as 16, 28, 32, 48, 64, 96 and 128 work"
    ):
        discriminator("strided", P4, side)


@pytest.mark.parametrize("side", [16, 32, 48, 64])
def test_sizes_that_the_strided_body_names(side):
    network = discriminator("strided", P4, side, width=2).eval()
    assert_invariant(network, images(network, 2), P4)


@EVERY_BODY
def test_images_that_are_not_square_and_hexagonal_groups_are_refused(body):
    factory, _ = BODIES[body]
    with pytest.raises(ValueError, match=r"expected square images, got 28x32.*--size"):
        factory((1, 28, 32), P4)
    with pytest.raises(ValueError, match=r"which p6 does not map to themselves\. Use one of z2, .*p4m"):
        factory((1, 28, 28), plane_group("p6"))


@EVERY_BODY
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width of at least 1"),
        ({"match": "weights"}, r"match in .*'weights'"),
        ({"spectral": "norm"}, r"spectral in .*'norm'"),
        ({"pool": "sum"}, "mode 'max' or 'mean'"),
    ],
)
@pytest.mark.usefixtures("without_shape_checks")
def test_bad_arguments(body, options, message):
    with pytest.raises(ValueError, match=message):
        discriminator(body, P4, **options)


def test_the_p4cnn_of_the_paper():
    """Ten p4 fields of width 20: 28-26-24-12-10-8-6-4-1 sites, and a score that the top layer made."""
    network = P4CNNDiscriminator((1, 28, 28), P4, width=20, spectral=None)
    sides = []
    for layer in network.body.maps:
        layer.register_forward_hook(lambda _m, _i, out: sides.append(tuple(out.shape[1:])))
    network(torch.zeros(1, 1, 28, 28))
    convolutions = [s for i, s in enumerate(sides) if i == 0 or sides[i - 1] != s]
    assert convolutions[:-2] == [(40, s, s) for s in (26, 24, 12, 10, 8, 6, 4)]
    assert convolutions[-2:] == [(80, 1, 1), (20, 1, 1)]


def test_repr_names_the_group():
    assert "4 x p4 regular" in repr(ConvDiscriminator((1, 8, 8), P4, width=8))
