"""Scores of classes from their definitions, class by class."""

import numpy as np
import pytest
import torch

from eqgan.metrics import ClassScores, FeatureStatistics, class_accuracy, score_classes
from tests.oracles import frechet as oracle


def features(count, seed):
    draws = np.random.RandomState(seed)
    return torch.from_numpy(draws.normal(draws.normal(size=4), 1, (count, 4)))


def test_each_class_is_compared_with_its_own_real_images():
    real = [features(50, seed) for seed in (1, 2, 3)]
    fake, labels = features(40, 4), torch.arange(40) % 3
    scores = score_classes(fake, labels, [FeatureStatistics.from_features(part) for part in real])
    for label in range(3):
        expected = oracle.of_samples(real[label].numpy(), fake[labels == label].numpy())
        assert scores.by_class[label] == pytest.approx(expected, rel=1e-6)
    assert scores.intra_fid == pytest.approx(sum(scores.by_class) / 3)
    assert scores.accuracy is None
    swapped = score_classes(fake, (labels + 1) % 3, [FeatureStatistics.from_features(p) for p in real])
    assert swapped.intra_fid != pytest.approx(scores.intra_fid), "labels that are mixed up are seen"


def test_samples_of_the_wrong_class_have_a_good_fid_and_a_bad_one_within_the_classes():
    real = [features(200, seed) for seed in (1, 2)]
    both, labels = torch.cat(real), torch.arange(400) // 200
    statistics = [FeatureStatistics.from_features(part) for part in real]
    right, wrong = (score_classes(both, y, statistics).intra_fid for y in (labels, 1 - labels))
    assert right == pytest.approx(0, abs=1e-9)
    assert wrong > 1


def test_classes_with_too_few_samples_are_left_out():
    statistics = [FeatureStatistics.from_features(features(20, seed)) for seed in range(3)]
    scores = score_classes(features(5, 7), torch.tensor([0, 0, 0, 1, 0]), statistics)
    assert scores.by_class[1:] == (None, None)
    assert scores.intra_fid == scores.by_class[0]
    none = score_classes(features(2, 7), torch.tensor([0, 1]), statistics)
    assert none == ClassScores(None, (None, None, None), None)


def test_accuracy():
    assert class_accuracy(torch.tensor([1, 2, 0, 0]), torch.tensor([1, 2, 0, 3])) == 0.75


@pytest.mark.parametrize("labels", [torch.tensor([0, 3]), torch.tensor([-1, 0])])
def test_labels_that_are_no_class(labels):
    statistics = [FeatureStatistics.from_features(features(20, seed)) for seed in range(3)]
    with pytest.raises(ValueError, match="expected labels from 0 to 2, got"):
        score_classes(features(2, 0), labels, statistics)
