"""A classifier behind a preprocessing is a classifier too."""

import pytest
import torch

from eqgan.data.preprocess import ContrastNormalization, Preprocessing, ZCAWhitening
from eqgan.groups import P2, P4, P4M, Z2
from eqgan.networks import P4CNNClassifier, freeze
from eqgan.training.preprocessed import PreprocessedClassifier


def test_it_computes_both_and_is_frozen_as_the_classifier_is():
    torch.manual_seed(0)
    inner = P4CNNClassifier((1, 22, 22), 3, P4, width=4).eval()
    network = PreprocessedClassifier(ContrastNormalization((1, 22, 22)), inner).eval()
    x = 2 * torch.rand(3, 1, 22, 22) - 1
    with torch.no_grad():
        mean, deviation = x.mean((1, 2, 3), True), x.std((1, 2, 3), correction=0, keepdim=True)
        torch.testing.assert_close(network(x), inner((x - mean) / deviation))
    assert (network.group, network.num_classes, network.image_shape) == (P4, 3, (1, 22, 22))
    freeze(network, "head")
    head = {id(p) for p in inner.stages()["head"].parameters()}
    assert {id(p) for p in network.parameters() if p.requires_grad} == head


class Flipped(Preprocessing):
    """Says nothing of groups, and commutes with none."""

    def fit(self, images):
        return self

    def forward(self, x):
        return x.flip(2)


def test_one_that_would_break_the_invariance_is_refused():
    def behind(preprocess, group):
        return PreprocessedClassifier(preprocess, P4CNNClassifier((1, 22, 22), 3, group, width=4))

    for group, known in ((None, Z2), (P2, P2), (P4, P2), (P4M, P4)):
        assert behind(ZCAWhitening((1, 22, 22), group=group), known).group is known
    for group in (None, P2):
        with pytest.raises(ValueError, match=r"ZCAWhitening does not commute with p4.*--preprocess.group p4"):
            behind(ZCAWhitening((1, 22, 22), group=group), P4)
    assert behind(Flipped((1, 22, 22)), Z2).group is Z2
    with pytest.raises(ValueError, match="Flipped does not commute with p2"):
        behind(Flipped((1, 22, 22)), P2)
