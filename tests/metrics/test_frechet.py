"""The Fréchet distance: laws, closed forms, other people's implementations, and inputs without full rank."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

from eqgan.metrics import FeatureStatistics, FeatureSums, FrechetDistance, frechet_distance
from tests.oracles import frechet as oracle


def samples(seed: int, rows: int, width: int, shift: float = 0.0) -> torch.Tensor:
    """Correlated features of unequal scale, float64."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=generator, dtype=torch.float64)
    return torch.randn(rows, width, generator=generator, dtype=torch.float64) @ mix + shift


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return frechet_distance(FeatureStatistics.from_features(a), FeatureStatistics.from_features(b)).item()


def gaussian(mean: np.ndarray, covariance: np.ndarray) -> FeatureStatistics:
    return FeatureStatistics(torch.as_tensor(mean), torch.as_tensor(covariance), 100)


def orthogonal(seed: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64)).Q


# --- laws ---


@pytest.mark.parametrize(("rows", "width"), [(200, 6), (5, 12), (2, 3), (40, 1)])
def test_a_set_is_at_distance_zero_from_itself(rows, width):
    features = samples(0, rows, width)
    scale = features.square().sum(1).mean().item()
    assert distance(features, features) <= 1e-13 * scale
    assert distance(features, features + 0.01) > 1e-13 * scale  # and from nothing else


@given(seed=st.integers(0, 10_000), rows=st.integers(2, 30), width=st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_symmetric_not_negative_and_unchanged_by_orthogonal_maps(seed, rows, width):
    a, b = samples(seed, rows, width), samples(seed + 1, rows + 3, width, shift=0.5)
    d = distance(a, b)
    turn = orthogonal(seed, width)
    assert d >= 0
    assert distance(b, a) == pytest.approx(d, rel=1e-10, abs=1e-10)
    assert distance(a @ turn, b @ turn) == pytest.approx(d, rel=1e-9, abs=1e-9)


def test_a_map_that_is_not_orthogonal_changes_it():
    a, b = samples(0, 60, 4), samples(1, 60, 4)
    stretch = torch.diag(torch.tensor([1.0, 1.0, 1.0, 1.1], dtype=torch.float64))
    assert abs(distance(a @ stretch, b @ stretch) - distance(a, b)) > 1e-3


def test_translating_one_set_adds_the_squared_step():
    a = samples(3, 80, 5)
    step = torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0], dtype=torch.float64)
    assert distance(a, a + step) == pytest.approx(step.square().sum().item(), rel=1e-12)


def test_translating_both_sets_far_away_changes_nothing():
    a, b = samples(4, 80, 5), samples(5, 80, 5)
    assert distance(a + 1e5, b + 1e5) == pytest.approx(distance(a, b), rel=1e-8)


def test_scaling_both_sets_scales_it_by_the_square():
    a, b = samples(4, 80, 5), samples(5, 80, 5)
    assert distance(3 * a, 3 * b) == pytest.approx(9 * distance(a, b), rel=1e-12)


# --- closed forms and other implementations ---


@pytest.mark.parametrize("turned", [False, True], ids=["diagonal", "commuting"])
def test_gaussians_with_common_eigenvectors_have_a_closed_form(turned):
    rng = np.random.default_rng(0)
    values_a, values_b = rng.uniform(0.1, 3, 7), rng.uniform(0.1, 3, 7)
    mean_a, mean_b = rng.normal(size=7), rng.normal(size=7)
    basis = orthogonal(1, 7).numpy() if turned else np.eye(7)
    a = gaussian(mean_a, basis @ np.diag(values_a) @ basis.T)
    b = gaussian(mean_b, basis @ np.diag(values_b) @ basis.T)
    expected = oracle.in_common_eigenbasis(mean_a, values_a, mean_b, values_b)
    assert frechet_distance(a, b).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("width", [2, 5, 16])
def test_equal_to_scipys_matrix_root(width):
    a, b = samples(6, 300, width), samples(7, 250, width, shift=0.3)
    assert distance(a, b) == pytest.approx(oracle.of_samples(a.numpy(), b.numpy()), rel=1e-9)


def test_a_wrong_oracle_is_noticed():
    a, b = (FeatureStatistics.from_features(samples(seed, 300, 5)) for seed in (6, 7))
    arrays = [value.numpy() for s in (a, b) for value in (s.mean, s.covariance)]
    right, wrong = oracle.by_matrix_root(*arrays), oracle.without_cross_term(*arrays)
    assert frechet_distance(a, b).item() == pytest.approx(right, rel=1e-9)
    assert frechet_distance(a, b).item() != pytest.approx(wrong, rel=1e-2)


# --- rank deficiency ---


def test_fewer_samples_than_features_on_perpendicular_axes():
    # Both covariances have rank one, on axes 0 and 1: nothing overlaps, so the traces add up.
    a, b = torch.zeros(2, 9, dtype=torch.float64), torch.zeros(2, 9, dtype=torch.float64)
    a[:, 0], b[:, 1] = torch.tensor([-1.0, 1.0]), torch.tensor([-3.0, 3.0])
    assert distance(a, b) == pytest.approx(2 + 18, rel=1e-13)


@pytest.mark.parametrize("rows", [2, 7, 19])
def test_rank_deficient_sets_agree_with_the_subspace_they_live_in(rows):
    # Features in a 4-dimensional subspace of 20: the distance is that of the four coordinates.
    a, b = samples(8, rows, 4), samples(9, rows, 4, shift=1.0)
    into = orthogonal(2, 20)[:4]
    assert distance(a @ into, b @ into) == pytest.approx(distance(a, b), rel=1e-7)


def test_constant_features_give_a_finite_distance():
    a = torch.ones(50, 4)
    b = a.clone()
    b[:, 0] += torch.linspace(-1, 1, 50)
    assert distance(a, a) == 0
    assert distance(a, b) == pytest.approx(b[:, 0].double().var().item(), rel=1e-6)
    assert distance(a, 3 * a) == pytest.approx(16.0)


def test_a_slightly_negative_eigenvalue_does_no_harm():
    broken = torch.diag(torch.tensor([1.0, -1e-17], dtype=torch.float64))
    a = FeatureStatistics(torch.zeros(2), broken, 10)
    assert math.isfinite(frechet_distance(a, a).item())


# --- statistics and sums ---


def test_statistics_are_numpys():
    features = samples(10, 30, 4)
    statistics = FeatureStatistics.from_features(features.float())
    assert statistics.mean.dtype == statistics.covariance.dtype == torch.float64
    assert statistics.count == 30
    np.testing.assert_allclose(statistics.covariance, np.cov(features.float().double().T), rtol=1e-12)


@pytest.mark.parametrize("sizes", [(1, 59), (20, 20, 20), (7, 53)])
def test_sums_of_batches_are_the_sums_of_the_whole(sizes):
    features = samples(11, 60, 5, shift=10.0)
    parts = [FeatureSums.from_features(part) for part in features.split(list(sizes))]
    merged = sum(parts[1:], start=parts[0]).statistics()
    whole = FeatureStatistics.from_features(features)
    assert merged.count == 60
    torch.testing.assert_close(merged.mean, whole.mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(merged.covariance, whole.covariance, rtol=1e-10, atol=1e-10)


def test_a_batch_left_out_is_noticed():
    features = samples(11, 60, 5)
    part = FeatureSums.from_features(features[:50]).statistics()
    assert not torch.allclose(
        part.covariance, FeatureStatistics.from_features(features).covariance, rtol=1e-3
    )


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.zeros(1, 3), "got 1 samples, at least 2"),
        (torch.zeros(0, 3), "empty"),
        (torch.zeros(4, 0), "empty"),
        (torch.tensor([[0.0, 1.0], [float("nan"), 1.0], [1.0, float("inf")]]), "2 of 3 rows"),
    ],
)
def test_features_that_cannot_be_used_are_named(features, message):
    with pytest.raises(ValueError, match=message):
        FeatureStatistics.from_features(features)


def test_widths_that_differ_are_named():
    a = FeatureStatistics.from_features(torch.randn(4, 2))
    b = FeatureStatistics.from_features(torch.randn(4, 3))
    with pytest.raises(ValueError, match="2 features cannot be compared with statistics over 3"):
        frechet_distance(a, b)
    with pytest.raises(ValueError, match="cannot add sums over 2 features to sums over 3"):
        FeatureSums.from_features(torch.randn(4, 2)) + FeatureSums.from_features(torch.randn(4, 3))


@pytest.mark.parametrize(
    ("mean", "covariance", "count", "message"),
    [
        (torch.zeros(2), torch.eye(3), 5, "covariance of shape"),
        (torch.zeros(2), torch.eye(2), 1, "at least 2 samples"),
        (torch.zeros(2), torch.full((2, 2), float("inf")), 5, "covariance is not finite"),
    ],
)
def test_statistics_that_do_not_belong_together_are_named(mean, covariance, count, message):
    with pytest.raises(ValueError, match=message):
        FeatureStatistics(mean, covariance, count)


# --- the torchmetrics class ---


class SmallFeatures(nn.Module):
    """Six features of an 8x8 grey image; dropout shows whether it runs in eval mode."""

    num_features = 6

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.Tanh(), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.calls = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.layers(images)


def image_sets() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(64, 1, 8, 8, generator=generator), torch.rand(48, 1, 8, 8, generator=generator) ** 2


def test_equal_to_torchmetrics_with_the_same_features():
    real, fake = image_sets()
    theirs = FrechetInceptionDistance(feature=SmallFeatures().double().eval(), normalize=True)
    ours = FrechetDistance(SmallFeatures().double())
    for metric in (theirs, ours):
        for batch in real.double().split(10):
            metric.update(batch, real=True)
        for batch in fake.double().split(10):
            metric.update(batch, real=False)
    assert ours.compute().item() == pytest.approx(theirs.compute().item(), rel=1e-7)
    assert ours.compute().item() > 1e-4


def test_the_network_is_not_run_in_the_constructor_and_keeps_its_train_flag():
    network = SmallFeatures().train()
    network.layers[2].eval()
    metric = FrechetDistance(network)
    assert network.calls == 0
    first, second = image_sets()[0], image_sets()[0]
    metric.update(first, real=True)
    metric.update(second, real=False)
    assert metric.compute() < 1e-12  # dropout did not act
    assert network.training
    assert network.layers.training
    assert not network.layers[2].training


@pytest.mark.parametrize("declared", [True, False], ids=["width known", "width learned"])
def test_states_of_two_copies_add_up_as_ddp_adds_them(declared):
    real, fake = image_sets()
    features = SmallFeatures().double() if declared else (lambda images: images.flatten(1)[:, :6].double())
    whole = FrechetDistance(features)
    copies = [FrechetDistance(features) for _ in range(2)]
    for kind, images in ((True, real), (False, fake)):
        whole.update(images.double(), real=kind)
        for copy, part in zip(copies, (images[:11], images[11:])):
            copy.update(part.double(), real=kind)
    merged = FrechetDistance(features)
    for name, reduce in merged._reductions.items():
        # what torchmetrics does with the gathered states of all ranks
        setattr(merged, name, reduce(torch.stack([getattr(copy, name) for copy in copies])))
    merged._update_count = 1
    assert merged.compute().item() == pytest.approx(whole.compute().item(), rel=1e-10)
    copies[0]._update_count = 1
    assert copies[0].compute().item() != pytest.approx(whole.compute().item(), rel=1e-3)


def test_reset_starts_over():
    real, fake = image_sets()
    metric = FrechetDistance(nn.Flatten())
    metric.update(real, real=True)
    metric.update(real + 5, real=False)
    metric.reset()
    metric.update(real, real=True)
    metric.update(fake, real=False)
    assert metric.compute().item() == pytest.approx(distance(real.flatten(1), fake.flatten(1)), rel=1e-9)


def test_a_fixed_reference_replaces_the_reals():
    real, fake = image_sets()
    reference = FeatureStatistics.from_features(real.flatten(1))
    metric = FrechetDistance(nn.Flatten(), reference)
    metric.update(fake, real=False)
    assert metric.compute().item() == pytest.approx(distance(real.flatten(1), fake.flatten(1)), rel=1e-9)
    with pytest.raises(ValueError, match="takes fakes only"):
        metric.update(real, real=True)


def test_misuse_of_the_metric_is_named():
    real, _ = image_sets()
    metric = FrechetDistance(nn.Flatten(), num_features=64)
    metric.update(real, real=True)
    metric.update(real[:1], real=False)
    with pytest.raises(ValueError, match="got 1 fake images"):
        metric.compute()
    with pytest.raises(ValueError, match="expected 64 features per sample, got 16"):
        metric.update(real[:, :, :4, :4], real=False)
