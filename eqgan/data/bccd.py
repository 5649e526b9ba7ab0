"""Blood cells: 64 x 64 cut-outs of stained smears under the microscope, which have no upright orientation."""

from eqgan.data.sprites import Sprite, SpriteSource

BCCD = SpriteSource(
    name="bccd",
    folder="bccd",
    side=64,
    labels="crops64_labels.npz",
    splits={
        "train": Sprite(
            "crops64_train.webp", 1448, "0b0d54acefd4438a328f0caa5dae75a1a21b1ca89e3bcf905595e118a3bc3b98"
        ),
        "test": Sprite(
            "crops64_test.webp", 350, "f0d2a2d1d17723b051f6f41243c4fb02a31594bfc1c58048c4588a8561df05cd"
        ),
    },
)
"""Cut-outs of red cells, white cells and platelets of BCCD (github.com/Shenggan/BCCD_Dataset, MIT).

Train and test come from different smears. The cut-outs were scaled to one size, so that size, which tells
these cells apart, is lost: for generative and equivariance tests, not for diagnosis.
"""
