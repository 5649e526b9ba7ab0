"""The training step of classifiers, against a loop written out in plain PyTorch."""

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn

from eqgan.cli.classify import classify
from eqgan.data.augment import RandomRotation
from eqgan.data.loader import TensorLoader, to_unit
from eqgan.data.module import ImageData
from eqgan.groups import P4, PlaneGroup
from eqgan.networks import Classifier, P4CNNClassifier
from eqgan.training.callbacks import read_checkpoint
from eqgan.training.classification import Classification
from eqgan.training.finetuning import FineTuning
from tests.oracles.classifying import trained_by_hand

SHAPE = (1, 22, 22)


def small(seed=0, **options):
    torch.manual_seed(seed)
    return P4CNNClassifier(SHAPE, 3, P4, width=4, **options)


@pytest.mark.parametrize("schedule", ["constant", "one-cycle"])
def test_a_run_is_the_loop_one_would_write(schedule, small_place):
    """Adam with decay of filters only, smoothed labels, averaged weights; bit for bit at a constant rate.

    The biases in front of a batch norm have no gradient but rounding errors, which Adam makes as large as any
    other: where the rates differ in the last bit, they and the means that take them away again differ.
    """
    small_place.train(
        *("--name", "run", "--epochs", "2", "--optimizer.weight_decay", "0.1"),
        **{"net": "p4cnn", "augment": "none", "validation_fraction": 0, "schedule": schedule},
        **{"fit.statistics_batches": 0},
    )
    data = ImageData(str(small_place.root / "squares.npz"), batch_size=16, seed=3, drop_last=False)
    data.setup()
    pl.seed_everything(3, verbose=False)
    network = P4CNNClassifier(SHAPE, 3, P4, width=4, pool="mean")
    rates = [0.01] * 8
    if schedule == "one-cycle":
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))])
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=8, cycle_momentum=False)
        rates = [(cycle.get_last_lr()[0], optimizer.step(), cycle.step())[0] for _ in range(8)]
    loader = TensorLoader(data.train.images, data.train.labels, 16, seed=3, drop_last=False)
    average = trained_by_hand(network, loader, rates, decay=0.1, smoothing=0.1, ema=0.9)
    state = read_checkpoint(small_place.last("run"))["state_dict"]
    if schedule == "constant":
        for name, value in network.state_dict().items():
            assert torch.equal(state[f"network.{name}"], value), name
    for name, value in average.items():
        if not name.endswith((".bias", ".running_mean")) or schedule == "constant":
            torch.testing.assert_close(state[f"ema.module.{name}"], value, rtol=1e-4, atol=1e-6)


def test_augmentation_changes_training_images_alone():
    """Drawn from the global generator, whose state a checkpoint holds; never when a network is judged."""
    module = Classification(small(), augment=RandomRotation())
    images = torch.rand(4, *SHAPE) * 2 - 1
    seen = []
    for _ in range(2):
        torch.manual_seed(7)
        seen.append(module.prepared(images))
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], images)
    logits, _ = module.predict_logits([(images, torch.zeros(4, dtype=torch.long))])
    torch.testing.assert_close(logits, module.network.eval()(images).detach())


def test_statistics_leave_the_random_numbers_of_training_alone():
    module = Classification(small(), augment=RandomRotation(), statistics_batches=2)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    module.refresh_statistics([torch.rand(4, *SHAPE, generator=torch.Generator()) for _ in range(2)], seed=5)
    assert torch.equal(torch.rand(3), expected)
    norms = [m for m in module.network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(norm.running_mean.abs().sum() > 0 for norm in norms)


def test_what_is_frozen_stays_as_it_is():
    """Only the head is given to the optimiser; the frozen norms keep their statistics too."""
    module = Classification(small(), finetuning=FineTuning("head"), statistics_batches=1)
    before = {name: value.clone() for name, value in module.network.state_dict().items()}
    groups = module.finetuning.groups(module.network, 0.1)
    assert sum(len(group["params"]) for group in groups) == len(
        list(module.network.body.maps[-2].parameters())
    )
    module.network.train()(torch.rand(4, *SHAPE))
    module.refresh_statistics([torch.rand(4, *SHAPE)], seed=0)
    assert all(torch.equal(before[name], value) for name, value in module.network.state_dict().items())


class Pixels(Classifier):
    """A classifier of one's own: arguments with types, a forward method, and what its stages are."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, group: PlaneGroup):
        super().__init__(image_shape, num_classes, group)
        self.layer = nn.Linear(image_shape[1] ** 2, num_classes)

    def forward(self, x):
        return self.layer(x.flatten(1))

    def stages(self):
        return {"head": nn.ModuleList([self.layer])}


def test_a_classifier_of_ones_own(small_place):
    words = small_place.argv(
        "--name", "own", "--epochs", "1", net="tests.training.test_classification.Pixels"
    )
    place = words.index("--network.width")
    summary = classify([*words[:place], "--group", "p4", *words[place + 2 :]])
    assert summary["network"] == "Pixels"
    assert summary["invariance_error"] > 0.01, "it is blind to the group that it names"


def test_channels_last_changes_nothing_but_the_memory():
    images, labels = to_unit(torch.randint(0, 256, (4, *SHAPE), dtype=torch.uint8)), torch.arange(4) % 3
    losses = [
        F.cross_entropy(m.network(m.prepared(images)), labels)
        for m in (Classification(small(), channels_last=flag) for flag in (False, True))
    ]
    torch.testing.assert_close(*losses)
