"""From "my images have no up" to an exported classifier that cannot tell which way up they are.

    pip install -e . onnx onnxscript onnxruntime && python docs/tutorial.py

Half a minute on two cores. What it prints is at the end of this file, and a test checks it.

To use your own images, put them into one folder a class, `photos/train/cats/1.png` and for tests
`photos/test/cats/2.png`, write `--data photos --size 28` in step 2, and read the images of step 3 as its
comment says; step 4 stays as it is. `eqgan predict logs/galaxies photo.png` asks without any of this.
"""

from pathlib import Path

import numpy as np
import onnxruntime
import torch

from eqgan.cli.classify import classify
from eqgan.groups import P4
from eqgan.testing import assert_invariant
from eqgan.training.load import load_classifier

# ---- 1. Images without an up ----------------------------------------------------------------------
# Round galaxies with one or two satellites, seen from any side.


def draw(rng: np.random.Generator, satellites: int) -> np.ndarray:
    rows, columns = np.mgrid[-14:14, -14:14] + 0.5
    image = np.exp(-(rows**2 + columns**2) / 18)
    first = rng.uniform(0, 2 * np.pi)
    for angle in first + np.linspace(0, rng.uniform(1.2, 3.0), satellites):
        down, right = 8 * np.sin(angle), 8 * np.cos(angle)
        image += 0.8 * np.exp(-((rows - down) ** 2 + (columns - right) ** 2) / 3)
    image += rng.normal(0, 0.08, image.shape)
    return (255 * np.clip(image, 0, 1)).astype(np.uint8)


rng = np.random.default_rng(0)
labels = {"train": rng.integers(0, 2, 800), "test": rng.integers(0, 2, 400)}
arrays = {}
for split, values in labels.items():
    arrays[f"x_{split}"] = np.stack([draw(rng, 1 + value) for value in values])
    arrays[f"y_{split}"] = values  # 0 for one satellite, 1 for two
np.savez("galaxies.npz", **arrays)

# ---- 2. Training ----------------------------------------------------------------------
# The same as typing: eqgan classify --data galaxies.npz --net p4cnn --epochs 4 ...
# Its table shows the error on the test images as they are and turned by any angle.

words = "--data galaxies.npz --net p4cnn --epochs 4 --batch-size 32 --name galaxies --overwrite"
summary = classify(words.split())
errors = {name: scores["error"] for name, scores in summary["test"].items()}
print("every test error below 5 %:", max(errors.values()) < 0.05)

# ---- 3. The law ----------------------------------------------------------------------
# Not nearly invariant, after much augmentation: exactly, by construction. In float64 it can be seen.

network = load_classifier("logs/galaxies").double()
# Networks take values from -1 to 1, at the size they were trained on. Of files:
#   from eqgan.data.folder import read_images
#   files = sorted(Path("photos/test").rglob("*.png"))[:8]
#   images = read_images(files, network.image_shape).double() / 127.5 - 1
images = torch.from_numpy(arrays["x_test"][:8])[:, None].double() / 127.5 - 1
assert_invariant(network, images, P4)
print("invariant under", network.group, "to 1e-10")

# ---- 4. Export ----------------------------------------------------------------------
# To run elsewhere, without this package and without torch. It takes the same values from -1 to 1, float32 of
# shape (batch, channels, 28, 28), and answers with logits in the order of network.class_names.

network.float()
batch = {0: torch.export.Dim("batch")}
program = torch.onnx.export(network, (images.float(),), dynamo=True, dynamic_shapes=(batch,), verbose=False)
program.save("galaxies.onnx")
session = onnxruntime.InferenceSession("galaxies.onnx")
name = session.get_inputs()[0].name
few = images[:3].float()
upright, turned = (session.run(None, {name: x.numpy()})[0] for x in (few, few.rot90(1, (2, 3))))
with torch.no_grad():
    print("the same numbers elsewhere:", np.allclose(upright, network(few).numpy(), atol=1e-4))
print("the same numbers for turned images:", np.allclose(upright, turned, atol=1e-4))
print("one logit for each of:", *network.class_names)
print("files:", *(path for path in ("galaxies.npz", "galaxies.onnx") if Path(path).is_file()))

# every test error below 5 %: True
# invariant under p4 to 1e-10
# the same numbers elsewhere: True
# the same numbers for turned images: True
# one logit for each of: 0 1
# files: galaxies.npz galaxies.onnx
