"""The picture of ``eqgan compare`` in the documentation: three short runs on Rotated MNIST, and a browser.

    python benchmarks/picture_of_compare.py --data-root DIR      # about 20 minutes on one core

Needs a Chromium on the PATH (or EQGAN_BROWSER). Finished runs in --work are kept and not repeated. Writes
docs/images/compare.png.
"""

import argparse
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # tests.browser

from eqgan.cli import train_gan  # noqa: E402
from eqgan.cli.compare import compare  # noqa: E402
from tests.browser import Browser  # noqa: E402

GROUPS = ("z2", "p4", "p4m")


def trained(work: Path, group: str, root: str | None) -> Path:
    """The folder of the run with a discriminator of this group."""
    logs = work / "logs" / f"rotmnist-{group}"
    if not (logs / "summary.json").is_file():
        words = ["--data", "rotmnist", "--disc", group, "--epochs", "12", "--name", logs.name]
        words += ["--evaluation.every", "1", "--evaluation.samples", "5000"]
        words += ["--log-dir", str(work / "logs"), "--samples-dir", str(work / "samples")]
        train_gan([*words, "--overwrite", *(["--data-root", root] if root else [])])
    return logs


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", help="where MNIST lies; else EQGAN_DATA, else data/")
    parser.add_argument("--work", type=Path, default=Path("compare_picture"), help="where the runs lie")
    options = parser.parse_args()
    page = options.work / "compare.html"
    compare([*(str(trained(options.work, group, options.data_root)) for group in GROUPS), "--out", str(page)])
    profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    with profile, Browser(Path(profile.name)) as browser:
        browser.open(page, 1280)
        height = browser.js(
            "document.querySelector('[aria-labelledby=h-samples]').getBoundingClientRect().bottom"
        )
        browser.resize(1280, round(height) + 18)
        browser.settle()
        browser.point("#chart-fid svg", 0.45, 0.4)
        browser.screenshot(HERE.parent / "docs" / "images" / "compare.png")


if __name__ == "__main__":
    main()
