"""Draws docs/images/co_rotated_patches.png: where a co-rotated patch of p4 is read.

python benchmarks/draw_co_rotated_patches.py
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from eqgan.groups import C4, square_window, window_action

TARGET = Path(__file__).resolve().parents[1] / "docs" / "images" / "co_rotated_patches.png"
CELL = 2  # of the 3x3 window: the upper right corner


def main() -> None:
    figure, axes = plt.subplots(1, 4, figsize=(9, 2.6))
    cells = square_window(3) / 2
    for t, axis in enumerate(axes):
        read = cells[window_action(C4, 3)[t, CELL]]
        for x, y in cells:
            axis.add_patch(plt.Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor="0.6"))
        axis.add_patch(plt.Rectangle(read - 0.5, 1, 1, color="tab:orange"))
        axis.annotate("", read, (0, 0), arrowprops={"arrowstyle": "->", "lw": 1.5})
        axis.text(0, -0.3, "x", ha="center", va="center")
        axis.set_title(f"plane t = {90 * t}°", fontsize=10)
        axis.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), aspect="equal")
        axis.axis("off")
    figure.suptitle("in[t](x + t z) for z = the upper right cell", y=0.02, fontsize=10)
    figure.tight_layout()
    figure.savefig(TARGET, dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main()
