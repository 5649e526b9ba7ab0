"""With every generator, discriminator, loss, penalty and augmentation, a resumed run is the unbroken one."""

import itertools

import pytest

from eqgan.cli import train_gan
from eqgan.cli.parsing import CHOICES
from tests.training.runs import Place, require_same_run

# each choice of each option comes once; an option that has fewer begins again
ROUNDS = {option: list(CHOICES[option][1]) for option in ("--loss", "--penalty", "--augment", "--disc-arch")}
GENERATORS = [("--gen", name) for name in ("vanilla", "conv", "p4", "p4m")]
GENERATORS += [("--gen-arch", "residual", "--gen", "z2"), ("--gen-arch", "residual", "--gen", "p4")]
WIDTH = {"mlp": ("--discriminator.hidden", "[8]"), "vanilla": ("--generator.hidden", "[8]")}


def cases() -> list[tuple[str, ...]]:
    longest = max(len(names) for names in [*ROUNDS.values(), GENERATORS])
    columns = [itertools.cycle([(option, name) for name in names]) for option, names in ROUNDS.items()]
    rows = zip(range(longest), itertools.cycle(GENERATORS), *columns)
    return [tuple(word for part in row[1:] for word in part) for row in rows]


def words_of(case: tuple[str, ...]) -> list[str]:
    """The words of a small run; conditional where both networks are more than plain."""
    kind = dict(zip(case[::2], case[1::2]))
    words = ["--data", "digits", "--batch-size", "16", "--fraction", "0.03", "--precision", "32-true", *case]
    words += WIDTH.get(kind["--disc-arch"], ("--discriminator.width", "2"))
    words += WIDTH.get(kind.get("--gen", ""), ("--generator.width", "4"))
    if kind["--gen"] not in ("vanilla", "conv") and kind["--disc-arch"] != "mlp":
        told = "auxiliary" if kind["--gen"] == "p4m" else "projection"
        words += ["--conditional", "--discriminator.conditioning", told]
    words += [] if kind["--disc-arch"] == "mlp" else ["--disc", "p2"]
    words += ["--evaluation.samples", "8", "--evaluation.every", "1", "--evaluation.grid", "4"]
    return [*words, "--trainer.log_every_n_steps", "2"]


@pytest.mark.parametrize("case", cases(), ids=lambda case: "-".join(case[1::2]))
def test_it_goes_on_as_if_never_stopped(case, place: Place):
    words = [*words_of(case), *place.words]
    train_gan([*words, "--name", "whole", "--epochs", "2"])
    train_gan([*words, "--name", "stopped", "--epochs", "1"])
    train_gan([*words, "--resume", "stopped", "--epochs", "2"])  # every choice typed again: also allowed
    require_same_run(place, "stopped", "whole")


def test_nothing_is_left_out():
    chosen = {word for case in cases() for word in case}
    for option in ROUNDS:
        assert set(CHOICES[option][1]) <= chosen
    assert {"auxiliary", "projection"} <= {word for case in cases() for word in words_of(case)}
