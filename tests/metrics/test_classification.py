"""Scores of classifiers, compared with scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix as sklearn_confusion
from sklearn.metrics import log_loss, roc_auc_score

from eqgan.metrics.classification import classification_scores, confusion_matrix, roc_auc


def drawn(images, classes, seed=0):
    """Logits that know a little of the labels, and some ties."""
    draw = np.random.RandomState(seed)
    labels = np.concatenate([np.arange(classes), draw.randint(0, classes, images - classes)])
    logits = draw.normal(size=(images, classes)) + 1.5 * np.eye(classes)[labels]
    return torch.from_numpy(logits.round(1)), torch.from_numpy(labels)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_against_scikit_learn(classes):
    logits, labels = drawn(200, classes)
    scores = classification_scores(logits, labels)
    probabilities = logits.softmax(1).numpy()
    given = probabilities[:, 1] if classes == 2 else probabilities
    assert scores.auc == pytest.approx(roc_auc_score(labels, given, multi_class="ovr"), abs=1e-12)
    assert scores.loss == pytest.approx(log_loss(labels, probabilities), abs=1e-12)
    assert scores.confusion == sklearn_confusion(labels, logits.argmax(1)).tolist()
    assert scores.error == pytest.approx((logits.argmax(1) != labels).double().mean().item())
    assert scores.count == 200


def test_no_area_without_images_of_a_class():
    logits, labels = drawn(50, 3)
    assert roc_auc(logits.softmax(1), labels.clamp_max(1)) is None
    assert roc_auc(logits[:, :2].softmax(1), torch.zeros(50, dtype=torch.long)) is None


def test_a_constant_score_is_worth_a_coin():
    assert roc_auc(torch.full((6, 2), 0.5), torch.tensor([0, 1, 0, 1, 1, 1])) == 0.5


@pytest.mark.parametrize(
    ("labels", "told"), [([0, 3], "expected labels from 0 to 2, got 0 to 3"), ([], "no images")]
)
def test_labels_that_are_no_classes(labels, told):
    labels = torch.tensor(labels, dtype=torch.long)
    with pytest.raises(ValueError, match=told):
        confusion_matrix(torch.zeros_like(labels), labels, 3)
