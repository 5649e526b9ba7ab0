"""Precision, recall, density, coverage against loops over points, with ties, duplicates and far clusters."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import eqgan.metrics.neighbours as neighbours_module
from eqgan.metrics import PrecisionRecallDensityCoverage, precision_recall_density_coverage
from tests.oracles import neighbours as oracle


def floats(scores) -> dict[str, float]:
    return {name: value.item() for name, value in scores._asdict().items()}


def normal(seed: int, rows: int, width: int = 4) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def grid(seed: int, rows: int) -> torch.Tensor:
    """Points of a 4 x 4 grid, most of them more than once: every distance is tied."""
    return torch.randint(0, 4, (rows, 2), generator=torch.Generator().manual_seed(seed)).float()


def with_duplicates(seed: int, rows: int) -> torch.Tensor:
    return normal(seed, rows)[torch.arange(rows) // 4]


def collapsed(seed: int, rows: int) -> torch.Tensor:
    """A generator that draws almost one image: spread 1e-4, far from the origin."""
    return 10 + 1e-4 * normal(seed, rows)


def far_away(seed: int, rows: int) -> torch.Tensor:
    return normal(seed, rows).double() + 1e7


def two_clusters(seed: int, rows: int) -> torch.Tensor:
    points = 0.01 * normal(seed, rows)
    points[::2] += 100
    return points


SETS = {
    "normal": (normal, normal),
    "grid": (grid, grid),
    "duplicates": (with_duplicates, with_duplicates),
    "collapsed fakes": (normal, collapsed),
    "both collapsed": (collapsed, collapsed),
    "far from the origin": (far_away, far_away),
    "two clusters": (two_clusters, two_clusters),
}


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("case", SETS)
def test_equal_to_loops_over_points(case, k, monkeypatch):
    monkeypatch.setattr(neighbours_module, "_ROWS", 16)  # several blocks, the last one short
    make_real, make_fake = SETS[case]
    real, fake = make_real(0, 37), make_fake(1, 45)
    expected = oracle.shares(real.double().tolist(), fake.double().tolist(), k)
    assert floats(precision_recall_density_coverage(real, fake, k)) == pytest.approx(expected, abs=1e-12)


@given(
    real=st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=3, max_size=12),
    fake=st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=3, max_size=12),
)
@settings(max_examples=60, deadline=None)
def test_ties_on_a_small_grid(real, fake):
    scores = precision_recall_density_coverage(torch.tensor(real).float(), torch.tensor(fake).float(), k=2)
    assert floats(scores) == pytest.approx(oracle.shares(real, fake, 2), abs=1e-12)


def test_a_wrong_oracle_is_noticed():
    real, fake = normal(0, 40), normal(1, 40)
    wrong = oracle.shares(real.double().tolist(), fake.double().tolist(), 3, count_itself=True)
    assert floats(precision_recall_density_coverage(real, fake, 3)) != pytest.approx(wrong, abs=1e-3)


def test_blocks_of_rows_do_not_change_the_result(monkeypatch):
    real, fake = normal(0, 100, 8), normal(1, 70, 8) + 0.3
    whole = precision_recall_density_coverage(real, fake)
    for rows in (1, 7, 99, 100):
        monkeypatch.setattr(neighbours_module, "_ROWS", rows)
        assert precision_recall_density_coverage(real, fake) == whole


def test_equal_sets_are_precise_recalled_and_covered():
    real = normal(0, 50)
    scores = precision_recall_density_coverage(real, real.clone())
    assert scores.precision == scores.recall == scores.coverage == 1
    assert scores.density >= 1  # a ball holds its centre and k neighbours


def test_sets_far_apart_share_nothing():
    assert sum(precision_recall_density_coverage(normal(0, 50), normal(1, 50) + 100)) == 0


def test_a_collapsed_generator_is_precise_and_covers_little():
    real = normal(0, 200, 2)
    fake = 1e-3 * normal(1, 200, 2)
    scores = precision_recall_density_coverage(real, fake)
    assert scores.precision == 1
    assert scores.recall < 0.02
    assert scores.coverage < 0.2


def test_precision_and_recall_change_places_with_the_sets():
    real, fake = normal(0, 60), normal(1, 50) * 1.5
    forth, back = (precision_recall_density_coverage(*pair) for pair in ((real, fake), (fake, real)))
    assert forth.precision == back.recall
    assert forth.recall == back.precision
    assert forth.precision != forth.recall


@pytest.mark.parametrize(
    ("real", "fake", "k", "message"),
    [
        (normal(0, 5), normal(1, 9), 5, "real features: got 5 samples, at least 6"),
        (normal(0, 9), normal(1, 5), 5, "fake features: got 5 samples, at least 6"),
        (normal(0, 9), normal(1, 9, 3), 2, "4 columns and fake features 3"),
        (normal(0, 9), normal(1, 9), 0, "k=0"),
        (normal(0, 0), normal(1, 9), 2, "empty"),
        (normal(0, 9), normal(1, 9).log(), 2, "of 9 rows hold NaN"),
    ],
)
def test_bad_features_are_named(real, fake, k, message):
    with pytest.raises(ValueError, match=message):
        precision_recall_density_coverage(real, fake, k)


def test_the_metric_keeps_what_it_sees():
    real, fake = normal(0, 60).reshape(60, 1, 2, 2), normal(1, 40).reshape(40, 1, 2, 2)
    metric = PrecisionRecallDensityCoverage(nn.Flatten(), k=3)
    for batch in real.split(13):
        metric.update(batch, real=True)
    for batch in fake.split(9):
        metric.update(batch, real=False)
    expected = precision_recall_density_coverage(real.flatten(1), fake.flatten(1), 3)
    assert metric.compute() == expected._asdict()
    metric.reset()
    metric.update(real, real=True)
    with pytest.raises(ValueError, match="no fake images"):
        metric.compute()


def test_features_of_two_copies_are_joined_as_ddp_joins_them():
    real, fake = normal(0, 60).reshape(60, 1, 2, 2), normal(1, 40).reshape(40, 1, 2, 2)
    copies = [PrecisionRecallDensityCoverage(nn.Flatten()) for _ in range(2)]
    for copy, rows in zip(copies, (slice(0, 25), slice(25, None))):
        copy.update(real[rows], real=True)
        copy.update(fake[rows], real=False)
    merged = PrecisionRecallDensityCoverage(nn.Flatten())
    for name, reduce in merged._reductions.items():
        setattr(merged, name, reduce([torch.cat(getattr(copy, name)) for copy in copies]))
    merged._update_count = 1
    expected = precision_recall_density_coverage(real.flatten(1), fake.flatten(1))
    assert merged.compute() == expected._asdict()
    assert copies[0].compute() != expected._asdict()
