"""A classifier behind a preprocessing is a classifier too."""

import torch

from eqgan.data.preprocess import ContrastNormalization
from eqgan.groups import P4
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
