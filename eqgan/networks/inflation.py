"""From a plain residual network to an equivariant one that starts as the plain one's group average."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from eqgan.groups import Z2, PlaneGroup
from eqgan.networks.classifiers import Classifier
from eqgan.networks.resnet import GroupResNet
from eqgan.networks.resnet_body import Stem

# mean and deviation of images in [0, 1] with which torchvision's weights were trained
IMAGENET: dict[str, Any] = {
    "input_mean": (0.485, 0.456, 0.406),
    "input_deviation": (0.229, 0.224, 0.225),
}
_RENAMED = (  # torchvision's names, and ours
    (r"conv1\.", "body.stem.0."),
    (r"bn1\.", "body.stem.1."),
    (r"layer(\d+)\.(\d+)\.downsample\.", r"body.residual.{stage}.\2.shortcut."),
    (r"layer(\d+)\.(\d+)\.", r"body.residual.{stage}.\2."),
    (r"fc\.", "head."),
)


def inflate(network: GroupResNet, group: PlaneGroup) -> GroupResNet:
    """The network over ``group`` whose logits are the plain one's, averaged over the group:

        inflated(x) = 1/|G| sum_g plain(g x)    exactly, in eval.

    Each plain filter w stands on the identity tap, psi_s = w for s = e and 0 otherwise, so that the value at
    g of every fiber is the plain network's on the image turned by g^-1; batch norm is shared, and the mean
    over the fiber comes before the head. All other taps, (|G| - 1)/|G| of the weights, are zero and free to
    learn. (To spread w over the fiber would average the maps after the first layer: another network.)

    Raises:
        ValueError: if the network has a symmetry already, or its strides are not exact under ``group``.
    """
    if network.group.order > 1:
        raise ValueError(f"expected a plain (z2) network to inflate, got one over {network.group}")
    layout = network.layout | {"match": "none", "pool": "mean", "fiber": None}
    inflated = GroupResNet(network.image_shape, network.num_classes, group, **layout)
    inflated.to(next(network.parameters()))
    initialise(inflated, network.state_dict())
    return inflated.train(network.training)


def plain_resnet(
    weights: Mapping[str, Tensor],
    image_shape: tuple[int, int, int],
    num_classes: int | None = None,
    stem: Stem = "large",
    input_mean: tuple[float, ...] | None = None,
    input_deviation: tuple[float, ...] | None = None,
) -> GroupResNet:
    """The z2 ``GroupResNet`` that computes what torchvision's network with these weights does.

    Args:
        weights: state dict of a torchvision ResNet of basic blocks (18 or 34 layers), of any width.
        image_shape: (channels, side, side); a side such as 225 keeps it exact when it is inflated.
        num_classes: with another number of classes than the weights have, the head starts afresh.
        stem: what the first convolution, whose stride a state dict does not show, is followed by.
        input_mean, input_deviation: those the weights were trained with (``IMAGENET``), so that the network
            takes images in [-1, 1]; without them it takes what torchvision's takes.
    """
    layout = _layout(weights)
    classes = len(weights["fc.bias"])
    network = GroupResNet(
        image_shape,
        num_classes or classes,
        Z2,
        **layout,
        stem=stem,
        input_mean=input_mean,
        input_deviation=input_deviation,
    )
    initialise(network, weights, head=num_classes in (None, classes))
    return network


@torch.no_grad()
def initialise(network: Classifier, weights: Mapping[str, Tensor], head: bool = True) -> None:
    """Copies weights into the network: from one over the same group as they are, from a plain one (this
    package's or torchvision's) onto the identity taps.

    Args:
        network: any classifier of the layout of the weights, with as many fields as they have channels
            (``match="none"``). With ``pool="mean"``, filled from a plain one it is its group average.
        weights: a state dict.
        head: False leaves the head as it is, for other classes.

    Raises:
        ValueError: for weights of another layout, naming the first difference; the network is then unchanged.
    """
    wanted, given = network.state_dict(), _own_names(weights)
    if not head:
        own_head = {id(p) for p in network.stages()["head"].parameters()}
        kept = [name for name, p in network.named_parameters() if id(p) in own_head]
        wanted, given = ({n: w for n, w in of.items() if n not in kept} for of in (wanted, given))
    counters = {name for name in wanted if name.endswith("num_batches_tracked")}  # absent from old files
    different = sorted((wanted.keys() - counters) ^ (given.keys() - counters))
    if different:
        kind = "lack" if different[0] in wanted else "have besides"
        raise ValueError(
            f"the weights are of another layout than the network: they {kind} {different[0]!r} (and "
            f"{len(different) - 1} more). Give the network the blocks, widths and stem of the weights, and "
            "freeze it after it is initialised."
        )
    order = network.group.order
    filled = {name: _on_identity(name, w, wanted[name], order) for name, w in given.items() if name in wanted}
    for name, value in filled.items():
        wanted[name].copy_(value)


def _on_identity(name: str, given: Tensor, own: Tensor, order: int) -> Tensor:
    """A plain filter (out, in, cells) on the first of the |G| taps of ours; anything else as it is."""
    given = given.flatten(2) if given.ndim == 4 else given
    if given.shape == own.shape:
        return given
    if name.startswith("body.stem.0.") and given.shape[:2] == own.shape[:2]:
        raise ValueError(
            f"{name}: the network's first window has {own.shape[2]} cells, that of the weights "
            f"{given.shape[2]}. On an even side it is wider by one, so that its strides are exact: take an "
            "odd side, such as 225 for 224 (--size 225), or 33 for 32."
        )
    if own.ndim == given.ndim == 3 and own.shape == (*given.shape[:2], order * given.shape[2]):
        taps = own.new_zeros(own.shape)
        taps[..., : given.shape[2]] = given
        return taps
    raise ValueError(
        f"{name}: the network's has shape {tuple(own.shape)}, the weights' {tuple(given.shape)}. Fields must "
        "be as many as the weights' channels: match='none' with their widths; head=False for other classes."
    )


def _own_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under this package's names, whichever they came with."""
    if "fc.weight" not in weights:
        return dict(weights)
    return {_own_name(name): weight for name, weight in weights.items()}


def _own_name(name: str) -> str:
    for pattern, ours in _RENAMED:
        if found := re.match(pattern, name):
            stage = int(found[1]) - 1 if found.groups() else 0
            return found.expand(ours.replace("{stage}", str(stage))) + name[found.end() :]
    return name


def _layout(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Blocks, widths and windows, read from the names and shapes of torchvision's weights."""
    firsts = {m[1]: w for n, w in weights.items() if (m := re.match(r"layer(\d+)\.0\.conv1\.weight$", n))}
    basic = {"conv1.weight", "fc.weight", "fc.bias"} <= weights.keys() and firsts
    if not basic or any(".conv3." in name for name in weights):
        raise ValueError(
            "expected the state dict of a torchvision ResNet of basic blocks (resnet18 or resnet34), got "
            f"names such as {', '.join(list(weights)[:3])}"
        )
    stages = sorted(firsts, key=int)
    blocks = [len([n for n in weights if re.match(rf"layer{s}\.\d+\.conv1\.weight$", n)]) for s in stages]
    return {
        "blocks": tuple(blocks),
        "widths": tuple(firsts[s].shape[0] for s in stages),
        "stem_window": weights["conv1.weight"].shape[-1],
        "kernel_size": firsts[stages[0]].shape[-1],
    }


def torchvision_weights(name: str) -> dict[str, Tensor]:
    """The weights that torchvision gives out for a network, trained on ImageNet (``IMAGENET``).

    Downloaded once, into torch's hub folder, and checked by the hash in their name.

    Args:
        name: resnet18 or resnet34.

    Raises:
        ValueError: for another network.
        FileNotFoundError: if they are not there and cannot be downloaded, or EQGAN_NO_DOWNLOAD is set.
    """
    from torchvision.models import get_model_weights  # slow to import

    if name not in ("resnet18", "resnet34"):
        raise ValueError(f"torchvision:{name}: expected torchvision:resnet18 or torchvision:resnet34")
    weights = get_model_weights(name).DEFAULT
    path = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    if os.environ.get("EQGAN_NO_DOWNLOAD") and not path.is_file():
        raise FileNotFoundError(
            f"no weights at {path}, and EQGAN_NO_DOWNLOAD is set. {_elsewhere(weights.url)}"
        )
    try:
        return dict(weights.get_state_dict(check_hash=True, weights_only=True))
    except (OSError, RuntimeError) as error:
        told = " ".join(str(error).split())
        raise FileNotFoundError(f"torchvision:{name} ({told}). {_elsewhere(weights.url)}") from error


def _elsewhere(url: str) -> str:
    return f"Fetch {url} where there is a network, and name the file: --init FILE"


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a file: ``.safetensors``, or what ``torch.save`` wrote of tensors alone.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the file holds anything but tensors.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    if path.suffix == ".safetensors":
        return load_file(path)
    found = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(found, Mapping) or not all(isinstance(w, Tensor) for w in found.values()):
        raise ValueError(f"{path}: expected a state dict, names and tensors, got {type(found).__name__}")
    return dict(found)
