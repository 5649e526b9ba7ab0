"""Trains the feature network that the package ships, and writes it with its record.

    python benchmarks/train_feature_network.py            # a few minutes on two cores

Data: Rotated MNIST's 12,000 training images and the 8,000 digits its definition leaves unused; the 50,000
test images judge it. Loss: cross entropy of the class + mean squared error of (cos, sin) of the angle.
Augmentation: quarter turns, which move the angle with them, and shifts by up to two pixels.
"""

import argparse
import hashlib
import json
import math
import platform
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor

import eqgan.networks
from eqgan.data.imageset import ImageSet
from eqgan.data.loader import to_unit
from eqgan.data.sources import load_images
from eqgan.files import atomic_write
from eqgan.networks.features import FeatureNetwork

FOLDER = Path(eqgan.networks.__file__).parent


def augment(x: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """One quarter turn and one shift for the whole batch: cheap, and different every batch."""
    turns, dx, dy = (int(torch.randint(a, b, ())) for a, b in ((0, 4), (-2, 3), (-2, 3)))
    padded = F.pad(torch.rot90(x, turns, (2, 3)), (2, 2, 2, 2), value=-1.0)
    side = x.shape[2]
    return padded[:, :, 2 + dy : 2 + dy + side, 2 + dx : 2 + dx + side], angle + turns * math.pi / 2


def losses(network: FeatureNetwork, x: Tensor, labels: Tensor, angle: Tensor) -> Tensor:
    logits, direction = network.heads(network(x))
    target = torch.stack([angle.cos(), angle.sin()], 1)
    return F.cross_entropy(logits, labels, label_smoothing=0.05) + F.mse_loss(direction, target)


def train(parts: list[ImageSet], epochs: int, batch_size: int, lr: float) -> FeatureNetwork:
    images = torch.cat([p.images for p in parts])
    labels = torch.cat([p.labels for p in parts])
    angles = torch.cat([p.angles for p in parts]).deg2rad().float()
    network = FeatureNetwork()
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    steps = epochs * (len(images) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps)
    for epoch in range(epochs):
        network.train()
        total = 0.0
        for rows in torch.randperm(len(images)).split(batch_size)[: len(images) // batch_size]:
            x, angle = augment(to_unit(images[rows]), angles[rows])
            loss = losses(network, x, labels[rows], angle)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}/{epochs}: loss {total / (len(images) // batch_size):.4f}", flush=True)
    return network.eval()


@torch.inference_mode()
def judge(network: FeatureNetwork, test: ImageSet) -> dict[str, float]:
    logits, directions = [], []
    for rows in to_unit(test.images).split(1000):
        a, b = network.heads(network(rows))
        logits.append(a)
        directions.append(b)
    direction = torch.cat(directions)
    angle = torch.atan2(direction[:, 1], direction[:, 0]).rad2deg()
    error = (angle - test.angles + 180).remainder(360).sub(180).abs()
    accuracy = (torch.cat(logits).argmax(1) == test.labels).double().mean()
    return {
        "test_accuracy": round(accuracy.item(), 5),
        "test_median_angle_error_degrees": round(error.median().item(), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", default=None)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    parts = [load_images("rotmnist", options.data_root, split=split) for split in ("train", "extra")]
    network = train(parts, options.epochs, batch_size=128, lr=3e-3)
    payload = save({name: t.contiguous() for name, t in network.state_dict().items()})
    record = {
        "name": "eqgan-digits-64",
        "features": network.feature_dim,
        "trained_on": "Rotated MNIST, 12,000 training images and the 8,000 unused ones",
        **judge(network, load_images("rotmnist", options.data_root, split="test")),
        "sha256": hashlib.sha256(payload).hexdigest(),
        "epochs": options.epochs,
        "seed": options.seed,
        "torch": torch.__version__,
        "hardware": platform.processor() or platform.machine(),
    }
    with atomic_write(options.out / "feature_network.safetensors") as temporary:
        temporary.write_bytes(payload)
    with atomic_write(options.out / "feature_network.json") as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2), f"{len(payload)} bytes")


if __name__ == "__main__":
    main()
