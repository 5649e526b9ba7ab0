"""What of a classifier may learn, how fast, and from which weights it starts."""

import pytest
import torch
import yaml
from torch import nn

from eqgan.data.preprocess import ContrastNormalization
from eqgan.groups import P4, P4M, Z2
from eqgan.networks import IMAGENET, P4CNNClassifier, ResNet18
from eqgan.training import finetuning
from eqgan.training.callbacks import read_checkpoint
from eqgan.training.finetuning import FineTuning, start_from
from eqgan.training.load import load_classifier
from eqgan.training.preprocessed import PreprocessedClassifier
from tests.training.classifiers import squares


def small(group=P4, classes=3):
    torch.manual_seed(0)
    return P4CNNClassifier((1, 22, 22), classes, group, width=4)


def residual(group, classes=3, match="none"):
    torch.manual_seed(1)
    return ResNet18((1, 33, 33), classes, group, width=4, match=match, stem="small")


def test_what_decays_and_how_fast_each_stage_learns():
    """Filters and matrices decay, not the scales, shifts and biases."""
    network = residual(P4)
    groups = FineTuning(stage_decay=0.5, rates={"stage2": 7.0}).groups(network, lr=0.1)
    for group in groups:
        assert ({p.ndim for p in group["params"]} == {1}) == (group.get("weight_decay") == 0)
    rates = {group["name"]: group["lr"] for group in groups}
    assert (rates["head"], rates["stage4"], rates["stage3"], rates["stage2"]) == (0.1, 0.05, 0.025, 7.0)
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda: FineTuning(stage_decay=0.0), "stage_decay above 0"),
        (lambda: FineTuning(rates={"head": -1.0}), "rates of at least 0"),
        (lambda: FineTuning(rates={"hed": 1.0}).apply(residual(P4)), "no stage 'hed'"),
        (lambda: FineTuning("off-identity").apply(residual(Z2)), "off-identity taps"),
    ],
)
def test_values_that_cannot_be(made, told):
    with pytest.raises(ValueError, match=told):
        made()


def test_other_classes_have_a_new_head_alone(tmp_path):
    theirs, ours = small(classes=3), small(classes=2)
    nn.init.ones_(theirs.body.maps[0].weight)
    head = ours.stages()["head"].state_dict()
    torch.save(theirs.state_dict(), tmp_path / "weights.pt")
    start_from(ours, tmp_path / "weights.pt")
    assert torch.equal(ours.body.maps[0].weight, theirs.body.maps[0].weight)
    assert all(torch.equal(head[name], value) for name, value in ours.stages()["head"].state_dict().items())


@pytest.mark.parametrize("wrapped", [False, True])
def test_plain_residual_weights_are_inflated(wrapped, tmp_path):
    """The network starts as the average of the plain one over the group."""
    plain, network = residual(Z2).eval(), residual(P4).eval()
    torch.save(plain.state_dict(), tmp_path / "plain.pt")
    start_from(
        PreprocessedClassifier(ContrastNormalization((1, 33, 33)), network) if wrapped else network,
        tmp_path / "plain.pt",
    )
    x = torch.rand(2, 1, 33, 33)
    with torch.no_grad():
        average = torch.stack([plain(torch.rot90(x, k, (2, 3))) for k in range(4)]).mean(0)
        torch.testing.assert_close(network(x), average, rtol=1e-5, atol=1e-5)


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(small(P4M).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"weights\.pt: "):
        start_from(small(P4), tmp_path / "weights.pt")
    torch.save({"lr": 0.1}, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match="is not a checkpoint of eqgan"):
        start_from(small(P4), tmp_path / "odd.pt")


def test_torchvisions_weights_meet_images_standardised_as_theirs(small_place, monkeypatch):
    torch.manual_seed(0)
    weights = ResNet18((3, 33, 33), 5, Z2, width=4, stem="small").state_dict()
    monkeypatch.setattr(finetuning, "torchvision_weights", lambda name: weights)
    words = ["--init", "torchvision:resnet18", "--network.match", "none", "--epochs", "1"]
    words += ["--network.stem", "small"]
    data = squares(small_place.root / "grey.npz", side=33)
    small_place.train("--name", "started", *words, data=data, net="resnet18", group="p4")
    network = load_classifier(small_place.logs("started"))
    assert network.standardise.mean.flatten().tolist() == pytest.approx(IMAGENET["input_mean"])
    kept = yaml.safe_load((small_place.logs("started") / "config.yaml").read_text())
    assert kept["network"]["init_args"]["input_mean"] == list(IMAGENET["input_mean"])


def test_a_run_that_pretrains_and_one_that_goes_on(small_place):
    """A plain network on colours, then an inflated one on grey images, only its new taps learning."""
    means = ["--network.input_mean", "[0.5,0.5,0.5]", "--network.input_deviation", "[0.2,0.2,0.2]"]
    means += ["--network.stem", "small", "--trainer.limit_train_batches", "1", "--epochs", "1"]
    colour = squares(small_place.root / "colour.npz", side=33, channels=3)
    small_place.train("--name", "plain", *means, data=colour, net="resnet18", group="z2")
    grey = squares(small_place.root / "grey.npz", classes=2, side=33)
    words = ["--init", str(small_place.best("plain")), "--network.match", "none", "--train", "off-identity"]
    settings = {"data": grey, "net": "resnet18", "group": "p4", "lr": 0.01}
    summary = small_place.train("--name", "inflated", *means, *words, **settings)
    assert summary["invariance_error"] < 1e-9
    network = load_classifier(small_place.logs("inflated"))
    assert not any("parametrizations" in name for name in network.state_dict())
    state = read_checkpoint(small_place.best("plain"))["state_dict"]
    identity = {k.removeprefix("ema.module."): v for k, v in state.items() if k.startswith("ema.module.")}
    before, after = identity["body.residual.1.0.conv1.weight"], network.body.residual[1][0].conv1.weight
    assert torch.equal(after[..., : before.shape[-1]], before), "the identity taps are those of the plain one"
    assert after[..., before.shape[-1] :].abs().max() > 0, "the others have learnt"
