"""All scores at once, and what is written down with them."""

import json

import pytest
import torch
from torch import nn

from eqgan.metrics import (
    FeatureExtractor,
    FeatureStatistics,
    Scores,
    frechet_distance,
    kernel_distance,
    precision_recall_density_coverage,
    reference_statistics,
    score_features,
)

EXTRACTOR = FeatureExtractor.from_module(nn.Flatten(), "pixels")
ROWS = 60


def features(seed: int, rows: int, width: int = 4) -> torch.Tensor:
    return torch.rand(rows, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(scope="module")
def reference():
    images = features(0, ROWS).reshape(ROWS, 1, 2, 2)
    return reference_statistics(
        images, EXTRACTOR, data_name="noise", data_hash="abc", split="test", count=ROWS, cache_dir=None,
        neighbours=50,
    )  # fmt: skip


def test_every_score_is_that_of_its_function(reference):
    fake = features(1, 70)
    scores = score_features(fake, reference, kernel=True)
    statistics = FeatureStatistics.from_features(fake)
    shares = precision_recall_density_coverage(reference.features, fake[:50])
    mean, std = kernel_distance(
        reference.features, fake[:50], subset_size=50, generator=torch.Generator().manual_seed(0)
    )
    assert scores.fid == frechet_distance(reference.statistics, statistics).item()
    assert (scores.precision, scores.recall, scores.density, scores.coverage) == tuple(map(float, shares))
    assert scores.kernel_distance == mean.item()
    assert scores.provenance["kernel"]["std"] == std.item()


def test_the_provenance_says_all_a_score_depends_on(reference):
    provenance = score_features(features(1, 40), reference, kernel=True).provenance
    assert provenance["features"] == EXTRACTOR.describe()
    assert provenance["data"] == {"name": "noise", "hash": "abc", "split": "test", "count": ROWS}
    assert provenance["samples"] == 40
    assert provenance["neighbours"] == {"k": 5, "real": 50, "fake": 40}
    assert provenance["kernel"]["subset_size"] == 40
    assert "samples" not in reference.provenance  # its own record is left alone


def test_scores_go_through_json(reference):
    scores = score_features(features(1, 40), reference, kernel=True)
    assert Scores(**json.loads(json.dumps(scores.as_dict(), allow_nan=False))) == scores


def test_what_is_not_asked_for_is_none(reference):
    scores = score_features(features(1, 40), reference, neighbours=False)
    assert scores.fid > 0
    assert (
        scores.precision
        is scores.recall
        is scores.density
        is scores.coverage
        is scores.kernel_distance
        is None
    )
    assert "neighbours" not in scores.provenance


def test_the_same_samples_score_best(reference):
    real = reference.features
    same, worse, worst = (score_features(real + shift, reference) for shift in (0.0, 0.5, 5.0))
    assert same.fid < worse.fid < worst.fid
    assert same.precision == same.recall == same.coverage == 1
    assert worst.precision == worst.recall == worst.coverage == worst.density == 0


def test_bad_features_are_named(reference):
    with pytest.raises(ValueError, match="4 features cannot be compared with statistics over 3"):
        score_features(features(1, 40, 3), reference)
    with pytest.raises(ValueError, match="at least 2"):
        score_features(features(1, 1), reference)
    with pytest.raises(ValueError, match="40 of 40 rows hold NaN"):
        score_features(features(1, 40) / 0, reference)
