"""The adversarial module: step by step the bare loop of the oracle, and what it counts and averages."""

import copy
import warnings

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from eqgan.data.augment import GroupAugmentation
from eqgan.data.loader import TensorLoader
from eqgan.groups import P4, P4M, Z2, regular
from eqgan.networks import (
    ConvDiscriminator,
    ConvGenerator,
    Generator,
    GroupGenerator,
    OrbitGenerator,
    StridedDiscriminator,
    VanillaGenerator,
)
from eqgan.nn import GroupConv2d, SpectralLinear
from eqgan.training.augment import AdaptiveAugmentation, DiffAugment
from eqgan.training.ema import ema_generator
from eqgan.training.losses import (
    HingeLoss,
    NonSaturatingLoss,
    RelativisticAverageLoss,
    RelativisticPairingLoss,
)
from eqgan.training.module import GAN
from eqgan.training.penalties import R1Penalty, R1R2Penalty
from tests.oracles import gan as oracle
from tests.waiting import NoWaiting

LOSSES = {"hinge": HingeLoss, "ns": NonSaturatingLoss, "ra": RelativisticAverageLoss}
SHAPE = (1, 16, 16)


def networks(seed=0, spectral="bank", group=P4):
    torch.manual_seed(seed)
    return (
        ConvGenerator(SHAPE, latent_dim=6, width=2),
        ConvDiscriminator(SHAPE, group, width=4, spectral=spectral),
    )


def loader(batches=5, size=4, classes=0):
    draws = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (batches * size, *SHAPE), generator=draws, dtype=torch.uint8)
    labels = torch.randint(0, classes, (len(images),), generator=draws) if classes else None
    return TensorLoader(images, labels, size, seed=0)


class Kept(pl.Callback):
    """Keeps the records of every batch, as the recorder of a run does."""

    def __init__(self):
        self.rows = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.rows.append({k: v.item() for k, v in pl_module.records.items()})
        pl_module.records.clear()


def fit(gan, data, epochs=1, **options):
    kept = Kept()
    settings = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    settings |= {"enable_model_summary": False, "log_every_n_steps": 1, "accelerator": "cpu", "devices": 1}
    with warnings.catch_warnings():
        for known in (".*does not have many workers.*", ".*in eval mode at the start.*", ".*treespec.*"):
            warnings.filterwarnings("ignore", message=known)
        trainer = pl.Trainer(max_epochs=epochs, callbacks=[kept], **settings | options)
        trainer.fit(gan, data)
    return trainer, kept.rows


def require_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert not different, f"differ: {different}"


def require_the_bare_loop(networks, loss, penalty, steps, bare, data, batches, augmentation=None):
    """The module and the oracle train copies of two networks alike: same weights, same losses, bit for bit.

    Args:
        bare: what stands for loss, penalty and augmentation in the oracle's words.
        batches: of the data, in the order in which they come.
    """
    generator, discriminator = networks
    ours = GAN(
        copy.deepcopy(generator),
        copy.deepcopy(discriminator),
        loss,
        penalty,
        augmentation=augmentation,
        lr_generator=2e-3,
        lr_discriminator=1e-3,
        betas=(0.5, 0.9),
        discriminator_steps=steps,
        ema_decay=0.4,
    )
    torch.manual_seed(11)
    _, records = fit(ours, data)

    torch.manual_seed(11)
    average, expected = oracle.train(
        generator,
        discriminator,
        batches,
        latent_dim=6,
        rates=(2e-3, 1e-3),
        betas=(0.5, 0.9),
        discriminator_steps=steps,
        decay=0.4,
        **bare,
    )
    require_equal(ours.generator.state_dict(), generator.state_dict())
    require_equal(ours.discriminator.state_dict(), discriminator.state_dict())
    require_equal(ours.ema.module.state_dict(), average.state_dict())
    assert [{k: row[k] for k in ("d_loss", "g_loss") if k in row} for row in records] == expected


@pytest.mark.parametrize(
    ("loss", "steps", "gamma", "every"),
    [("hinge", 1, 0.1, 2), ("ns", 2, 1.0, 1), ("ra", 1, 0.1, 3), ("ra", 2, 0.0, 1)],
)
def test_equals_the_bare_loop_bit_for_bit(loss, steps, gamma, every):
    data = loader(batches=6)
    batches = [images for images, _ in data]
    bare = {"loss": loss, "gamma": gamma, "every": every}
    require_the_bare_loop(networks(), LOSSES[loss](), R1Penalty(gamma, every), steps, bare, data, batches)


def conditional_networks(conditioning="projection"):
    torch.manual_seed(0)
    generator = OrbitGenerator(GroupGenerator(SHAPE, P4, 5, width=8, num_classes=3), P4)
    return generator, ConvDiscriminator(SHAPE, P4, width=4, num_classes=3, conditioning=conditioning)


@pytest.mark.parametrize(
    "change", [None, GroupAugmentation(P4M), DiffAugment()], ids=lambda c: type(c).__name__
)
@pytest.mark.parametrize("conditional", [False, True])
def test_labels_pairs_and_augmentation_equal_the_bare_loop_bit_for_bit(conditional, change):
    pair = conditional_networks() if conditional else networks()
    data = loader(batches=6, classes=3)
    images, labels = zip(*data)
    bare = {"loss": "rp", "gamma": 0.5, "every": 2, "r2": True, "change": change or (lambda x: x)}
    bare["labels"] = labels if conditional else None
    loss, penalty = RelativisticPairingLoss(), R1R2Penalty(0.5, every=2)
    require_the_bare_loop(pair, loss, penalty, 2, bare, data, images, augmentation=change)


def test_an_auxiliary_classifier_learns_and_teaches():
    """Both losses get the cross-entropy of the classes, over real and generated images in D's."""
    generator, discriminator = conditional_networks("auxiliary")
    gan = GAN(generator, discriminator, penalty=R1Penalty(0.0), auxiliary_weight=0.5)
    x, labels = torch.randn(4, *SHAPE), torch.tensor([2, 0, 1, 1])
    scores, loss = gan.judged(x, labels)
    features = discriminator.eval().features(x)
    by_hand = -sum(discriminator.class_head(f).softmax(0)[y].log() for f, y in zip(features, labels)) / 4
    discriminator.train()
    torch.testing.assert_close(loss, 0.5 * by_hand, rtol=0.05, atol=0)  # a step of the power iteration apart
    assert scores.shape == (4,)
    _, rows = fit(gan, loader(batches=4, classes=3))
    assert all(row["d_class_loss"] > 0 and row["g_class_loss"] > 0 for row in rows)
    weights = [m.class_head.weight for m in (discriminator, conditional_networks("auxiliary")[1])]
    assert not torch.equal(*weights)

    unweighted = GAN(*conditional_networks("auxiliary"), penalty=R1Penalty(0.0), auxiliary_weight=0.0)
    fit(unweighted, loader(batches=4, classes=3))
    assert torch.equal(unweighted.discriminator.class_head.weight, weights[1]), (
        "a weight of 0 teaches nothing"
    )


def course_of_probability(loss, shift):
    """Of the scores of a discriminator that are all shifted."""
    generator, discriminator = networks()
    torch.nn.init.constant_(discriminator.head.bias, shift)
    augmentation = AdaptiveAugmentation(target=0.5, interval=2, images=100)
    torch.manual_seed(3)
    gan = GAN(generator, discriminator, loss, R1Penalty(0.1, 1), augmentation=augmentation)
    _, rows = fit(gan, loader(batches=6))
    return [row["augment_probability"] for row in rows], gan.state_dict()


def test_the_adaptive_probability_follows_the_game():
    course, state = course_of_probability(NonSaturatingLoss(), 50.0)  # all reals above 0
    assert course == pytest.approx([0, 0.08, 0.08, 0.16, 0.16, 0.24]), "eight images of a hundred, twice each"
    assert course_of_probability(NonSaturatingLoss(), -50.0)[0] == [0] * 6
    assert state["augmentation.probability"] == course[-1]
    other = GAN(*networks(1), augmentation=AdaptiveAugmentation())
    other.load_state_dict(state)
    assert other.augmentation.probability == course[-1]


def test_scores_of_a_relativistic_loss_have_no_zero():
    """Real images count as surely real above the generated ones, wherever the scores lie."""
    low, high = (course_of_probability(RelativisticAverageLoss(), shift)[0] for shift in (-50.0, 50.0))
    assert low == high


def test_without_augmentation_and_labels_a_checkpoint_is_what_it_was():
    gan = GAN(*networks())
    parts = {name.split(".")[0] for name in gan.state_dict()}
    assert parts == {"generator", "discriminator", "ema", "discriminator_step"}


def test_networks_for_other_classes():
    generator, _ = conditional_networks()
    with pytest.raises(ValueError, match="images of 3 classes, the discriminator is for 0"):
        GAN(generator, networks()[1])
    with pytest.raises(ValueError, match="auxiliary weight of at least 0, got -1"):
        GAN(*networks(), auxiliary_weight=-1.0)


def test_a_difference_in_the_loop_would_be_seen():
    """The comparison above can fail: one more random number, and nothing is equal."""
    generator, discriminator = networks()
    ours = GAN(copy.deepcopy(generator), discriminator, penalty=R1Penalty(0.0))
    torch.manual_seed(11)
    torch.rand(1)
    fit(ours, data := loader())
    torch.manual_seed(11)
    other = GAN(generator, networks()[1], penalty=R1Penalty(0.0))
    fit(other, data)
    with pytest.raises(AssertionError, match="differ"):
        require_equal(ours.generator.state_dict(), other.generator.state_dict())


def test_a_step_waits_for_nothing():
    class Impatient(GAN):
        def training_step(self, batch, batch_idx):
            self.steps_taken()  # once
            with NoWaiting():
                super().training_step(batch, batch_idx)

    generator, discriminator = networks()
    augmentation = AdaptiveAugmentation(interval=1)
    fit(Impatient(OrbitGenerator(generator, P4), discriminator, augmentation=augmentation), loader(batches=3))


def test_loaded_steps_are_counted_on():
    gan, trained = GAN(*networks()), GAN(*networks())
    assert gan.steps_taken() == 0
    fit(trained, loader(batches=3))
    gan.load_state_dict(trained.state_dict())
    assert gan.steps_taken() == 3
    assert copy.deepcopy(trained).steps_taken() == 3


@pytest.mark.parametrize(("steps", "counted"), [(1, 12), (2, 6), (4, 3), (7, 1)])
def test_global_step_counts_generator_steps(steps, counted):
    gan = GAN(*networks(), penalty=R1Penalty(0.1, 1), discriminator_steps=steps)
    trainer, rows = fit(gan, loader(batches=6), epochs=2)
    assert trainer.global_step == counted
    assert int(gan.discriminator_step) == 12
    assert sum("g_loss" in row for row in rows) == counted
    assert int(gan.ema.n_averaged) == counted


def test_what_a_step_records():
    gan = GAN(*networks(), HingeLoss(), R1Penalty(2.0, every=2))
    _, rows = fit(gan, loader(batches=4))
    always = {"d_loss", "g_loss", "score_real", "score_fake"}
    norms = {"gradient_norm_generator", "gradient_norm_discriminator"}
    assert [row.keys() for row in rows] == [always | norms | {"penalty"}, always | norms] * 2
    assert all(row[norm] > 0 for row in rows for norm in norms)
    assert rows[0]["penalty"] > 0, "as the loss would hold it every step: the lazy factor is taken out"
    _, sparse = fit(GAN(*networks(), HingeLoss(), R1Penalty(0.0)), loader(batches=4), log_every_n_steps=2)
    assert ["gradient_norm_generator" in row for row in sparse] == [True, False, True, False]
    gan = GAN(*networks(), HingeLoss(), R1Penalty(0.0), discriminator_steps=2)  # it steps in odd batches only
    _, odd = fit(gan, loader(batches=4), log_every_n_steps=2)
    assert ["gradient_norm_generator" in row for row in odd] == [False, True, False, True]


def test_the_recorded_penalty_is_that_of_every_step():
    values = []
    for every in (1, 4):
        gan = GAN(*networks(), HingeLoss(), R1Penalty(2.0, every=every))
        torch.manual_seed(0)
        values.append(fit(gan, loader(batches=1))[1][0]["penalty"])
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_the_generator_learns_against_a_frozen_discriminator():
    """Signal arrives: with the discriminator held, its score of the fakes rises."""
    gan = GAN(*networks(), HingeLoss(), R1Penalty(0.0), lr_generator=1e-2, lr_discriminator=0.0)
    before = copy.deepcopy(gan.discriminator.state_dict())
    _, rows = fit(gan, loader(batches=10), epochs=2)
    assert rows[-1]["score_fake"] > rows[0]["score_fake"]
    named = dict(gan.discriminator.named_parameters())
    assert all(torch.equal(before[name], parameter) for name, parameter in named.items())


def test_the_discriminator_needs_gradients_again_after_a_generator_step():
    gan = GAN(*networks(), penalty=R1Penalty(0.0))
    fit(gan, loader(batches=1))
    assert all(p.requires_grad for p in gan.discriminator.parameters())
    assert not any(p.requires_grad for p in gan.ema.parameters())


# --- the averaged generator ------------------------------------------------------------------------------


class Number(Generator):
    """One weight, one float buffer and one count."""

    def __init__(self):
        super().__init__((1, 1, 1), 1)
        self.weight = nn.Parameter(torch.zeros(1))
        self.register_buffer("statistic", torch.zeros(1))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    def forward(self, z):
        return (z * self.weight)[:, :, None, None]


def test_the_average_warms_up():
    network = Number()
    average = ema_generator(network, decay=0.3)
    expected = None
    for n in range(8):
        with torch.no_grad():
            network.weight.fill_(n + 1), network.statistic.fill_(-n - 1), network.batches.add_(2)
        with NoWaiting():
            average.update_parameters(network)
        keep = min(0.3, (1 + n) / (10 + n))
        expected = n + 1.0 if n == 0 else keep * expected + (1 - keep) * (n + 1)
        assert average.module.weight.item() == pytest.approx(expected, rel=1e-6)
        assert average.module.statistic.item() == pytest.approx(-expected, rel=1e-6), "buffers too"
        assert average.module.batches.item() == 2 * (n + 1), "counts are copied"


@pytest.mark.parametrize("kind", ["dense", "filter", "bank", "operator"])
def test_the_average_is_divided_by_its_own_norms(kind):
    """Vectors that were averaged as the weights are would be no singular vectors, and not of length 1."""
    torch.manual_seed(0)
    if kind == "dense":
        layer = SpectralLinear(12, 8)
    else:
        layer = GroupConv2d(regular(P4, 2), regular(P4, 3), 3, padding=1, spectral=kind, input_size=5)
    average = ema_generator(layer, decay=0.98)
    for updates in (300, 30):  # of other weights: the average is of both at the end
        weights = torch.randn_like(layer.weight)
        for _ in range(updates):
            with torch.no_grad():
                layer.weight.copy_(weights)
            layer.iterate_norm()
            average.update_parameters(layer)
    own = copy.deepcopy(average.module)
    before = own.norm(own.weight if kind == "dense" else own._normed()).item()
    own.iterate_norm(300)
    after = own.norm(own.weight if kind == "dense" else own._normed()).item()
    assert before == pytest.approx(after, rel=0.1)


def test_the_average_is_never_trained_and_samples_are_its():
    gan = GAN(*networks(), penalty=R1Penalty(0.0), ema_decay=0.9)
    fit(gan, loader(batches=3))
    assert not gan.ema.module.training
    z = gan.generator.draw_latents(4)
    buffers = copy.deepcopy(dict(gan.ema.named_buffers()))
    drawn = gan.sample(z)
    with torch.no_grad():  # as samples are drawn: layers joined in eval round otherwise than one by one
        assert torch.equal(drawn, gan.ema.module(z))
        assert not torch.equal(drawn, gan.generator.eval()(z))
    assert not drawn.requires_grad
    assert all(torch.equal(buffers[name], buffer) for name, buffer in gan.ema.named_buffers())


def test_many_samples_come_in_pieces():
    gan = GAN(*networks())
    z = gan.generator.draw_latents(260)
    assert [len(images) for images, _ in gan.sampled(z)] == [125, 125, 10]
    with torch.no_grad():
        assert torch.equal(gan.sample(z), torch.cat([gan.ema.module(some) for some in z.split(125)]))


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_a_decay_out_of_range(decay):
    with pytest.raises(ValueError, match=r"decay in \[0, 1\), got"):
        ema_generator(Number(), decay)


# --- bad arguments ---------------------------------------------------------------------------------------


def test_networks_for_different_images():
    generator = VanillaGenerator((3, 16, 16), latent_dim=4, hidden=(4,))
    with pytest.raises(ValueError, match=r"draws \(3, 16, 16\) images, the discriminator sees \(1, 16, 16\)"):
        GAN(generator, networks()[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"discriminator_steps": 0}, "at least 1 discriminator step, got 0"),
        ({"lr_generator": -1.0}, "learning rates of at least 0"),
        ({"lr_discriminator": -1.0}, "learning rates of at least 0"),
        ({"betas": (1.0, 0.9)}, r"betas in \[0, 1\)"),
        ({"ema_decay": 1.0}, "EMA decay"),
    ],
)
def test_numbers_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        GAN(*networks(), **options)


@pytest.mark.parametrize("group", [Z2, P4], ids=str)
def test_any_body_and_generator_go_together(group):
    torch.manual_seed(0)
    generator = VanillaGenerator(SHAPE, latent_dim=4, hidden=(8,), batch_norm=True)
    gan = GAN(generator, StridedDiscriminator(SHAPE, group, width=4), NonSaturatingLoss(), R1Penalty(0.1, 1))
    _, rows = fit(gan, loader(batches=2))
    assert all(torch.isfinite(torch.tensor(list(row.values()))).all() for row in rows)
