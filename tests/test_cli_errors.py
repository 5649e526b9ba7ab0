"""The command line answers what a person is likely to mistype with one clear line, and makes no folder."""

import re
from pathlib import Path

import pytest

from eqgan.cli import train_gan
from eqgan.cli.classify import classify
from tests.complaints import complaint_of


@pytest.fixture(autouse=True)
def _own_places(monkeypatch, tmp_path):
    """Every path that is not given is inside a folder of the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EQGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EQGAN_DATA", raising=False)


@pytest.fixture
def complaint(capsys, tmp_path):
    """Runs these words, which must fail; the one line they are answered with. No folder of a run is made."""

    def run(*words: str, status: int) -> str:
        line = complaint_of(lambda: train_gan(list(words)), capsys, status)
        assert not (tmp_path / "logs").exists()
        assert not (tmp_path / "samples").exists()
        return line

    return run


# --- words in the wrong place -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "setting"), [("disc: p4", "discriminator.group"), ("batch_size: 8", "dataset.batch_size")]
)
def test_short_forms_in_a_file_are_told_their_settings(line, setting, complaint, tmp_path):
    (tmp_path / "c.yaml").write_text(line + "\n")
    found = complaint("--config", "c.yaml", status=2)
    assert f"{line.partition(':')[0]!r} is short for the command line only: expected {setting!r}" in found


def test_a_run_of_the_other_kind_is_not_resumed(capsys, tmp_path):
    for kind, key, train in (("classifier", "network", train_gan), ("GAN", "generator", classify)):
        folder = tmp_path / "logs" / kind
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(f"{key}: null\n")
        line = complaint_of(lambda train=train, kind=kind: train(["--resume", kind]), capsys, 1)
        assert re.match(rf"--resume {kind}: expected the run of a .* got that of a {kind} ", line)


@pytest.mark.parametrize("words", [["--samples_dir", "file/samples"], ["--log_dir", "file"]])
def test_folders_that_cannot_be_made_leave_nothing(words, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    line = complaint_of(lambda: train_gan(["--data", "digits", "--epochs", "1", *words]), capsys, 1)
    assert "expected" in line
    assert "Choose another --log_dir" in line
    assert not [path for path in (tmp_path / "logs").glob("*") if path.is_dir()]


# --- mistypes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "typed", "nearest"),
    [
        ("--epoch 3", "epoch", "epochs"),
        ("--dis p4", "dis", "disc"),
        ("--batch-sise 3", "batch-sise", "batch-size"),
        ("--dataset.sorce digits", "dataset.sorce", "dataset.source"),
        ("--gan.lr_genrator=1e-3", "gan.lr_genrator", "gan.lr_generator"),
        ("--gan.lr_g 1e-3", "gan.lr_g", "gan.lr_generator"),
        ("--evaluation.sample 10", "evaluation.sample", "evaluation.samples"),
        ("--disc-arch conv --discriminator.widht 3", "widht", "width"),
        ("--gen vanilla --generator.hiden [3]", "hiden", "hidden"),
    ],
)
def test_unknown_options_name_the_nearest(words, typed, nearest, complaint):
    assert f"unknown setting {typed!r}; did you mean {nearest!r}?" in complaint(*words.split(), status=2)


def test_a_setting_of_another_class_lists_its_own(complaint):
    line = complaint("--disc-arch", "mlp", "--disc", "p4", status=2)
    assert "unknown setting 'group': the class that was chosen has no plane group" in line
    assert "hidden, dropout, spectral" in line


@pytest.mark.parametrize(
    ("content", "typed", "nearest"),
    [
        ("epoch: 3", "epoch", "epochs"),
        ("gan: {lr_genrator: 1e-3}", "gan.lr_genrator", "gan.lr_generator"),
        ("discriminatr: {class_path: eqgan.networks.ConvDiscriminator}", "discriminatr", "discriminator"),
        (
            "discriminator: {class_path: eqgan.networks.ConvDiscriminator, init_args: {group: p4, widht: 3}}",
            "widht",
            "width",
        ),
    ],
)
def test_unknown_keys_of_a_config_name_the_nearest(content, typed, nearest, complaint):
    Path("mine.yaml").write_text(content)
    line = complaint("--config", "mine.yaml", status=2)
    assert re.search(rf"unknown setting '{typed}\S*'; did you mean '{nearest}'\?", line)


@pytest.mark.parametrize("word", ["p5", "p4x", "square", "4"])
def test_unknown_groups(word, complaint):
    line = complaint("--disc-arch", "conv", "--disc", word, status=2)
    assert f"unknown plane group '{word}'; did you mean 'p" in line or "did you mean 'z2'" in line
    assert "Known: z2, p2, p4, pm, p2mm, p4m" in line


def test_an_unknown_group_in_a_config(complaint):
    Path("mine.yaml").write_text(
        "discriminator: {class_path: eqgan.networks.ConvDiscriminator, init_args: {group: p5}}"
    )
    assert "unknown plane group 'p5'; did you mean" in complaint("--config", "mine.yaml", status=2)


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        ("--gen vanila", "vanilla"),
        ("--gen=convolution", "conv"),
        ("--disc-arch cnn", "p4cnn"),
        ("--disc_arch mpl", "mlp"),
        ("--loss hing", "hinge"),
        ("--loss wassersten", "wasserstein"),
        ("--gen p4x", "p4"),
        ("--penalty r1+r2", "r1r2"),
        ("--augment adaptive", "ada"),
    ],
)
def test_unknown_choices_name_the_nearest(words, nearest, complaint):
    line = complaint(*words.split(), status=1)
    assert f"did you mean {nearest!r}? Known: " in line


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        ("--epochs 0", 1, "--epochs: expected at least 1, got 0"),
        ("--epochs two", 2, "epochs: Expected an int or null. Got value: two"),
        ("--seed 1.5", 2, "seed: "),
        ("--seed -1 --data digits", 1, "--seed: expected 0 to"),
        ("--fraction 0 --data digits", 1, "--fraction: expected a share above 0 and up to 1, got 0"),
        ("--fraction 1.5 --data digits", 1, "--fraction: "),
        ("--fraction 0.01 --batch-size 64 --data digits", 1, "Use --batch-size 14 or less"),
        ("--batch-size 0 --data digits", 1, "--batch-size: expected at least 1, got 0"),
        ("--batch-size 2000 --data digits", 1, "Use --batch-size 1437 or less"),
        ("--size 0 --data digits", 1, "--size: expected 1 to 4096 pixels, got 0"),
        ("--data rotmist", 1, "Did you mean 'rotmnist'?"),
        ("--data no/such/folder", 1, "no such file or folder"),
        ("--data images.npz", 1, "no such file or folder"),
        ("--data rotmnist --data-root nowhere", 1, "--data digits"),
        ("--data digits --size 29 --gen vanilla --disc-arch conv", 1, "Use --size 30, or --disc-arch mlp"),
        ("--data digits --size 29 --gen vanilla --disc-arch p4cnn", 1, "Use --size 30, or --disc-arch conv"),
        ("--data digits --size 29 --gen vanilla --disc-arch dcgan", 1, "sizes such as 16, 28, 32"),
        ("--data digits --size 29 --gen conv", 1, "or --gen vanilla"),
        ("--data digits --disc-arch conv --disc p6", 1, "Use one of z2, p2, p4, pm, p2mm, p4m"),
        ("--data digits --disc-arch conv --disc p6m", 1, "which p6m does not map to themselves"),
        ("--data digits --disc-arch conv --discriminator.width 0", 1, "width of at least 1, got 0"),
        ("--disc-arch conv --discriminator.spectral norm", 2, "'filter', 'bank', 'operator'"),
        ("--disc-arch conv --discriminator.match all", 2, "'parameters', 'activations', 'none'"),
        ("--data digits --gan.ema_decay 1", 1, "EMA decay in [0, 1), got 1"),
        ("--data digits --gan.betas [0.5,1.0]", 1, "betas in [0, 1)"),
        ("--gan.betas 0.5", 2, "gan.betas: "),
        ("--data digits --penalty.every 0", 1, "every >= 1"),
        ("--data digits --evaluation.samples 5", 1, "samples of at least 6"),
        ("--data digits --evaluation.classifier some.ckpt", 1, "it goes with --conditional"),
        ("--data digits --generator.width 0", 1, "expected a width of at least 1, got 0"),
        (
            "--data digits --gen vanilla --generator.hidden [8,0]",
            1,
            "expected a width of at least 1, got 8, 0",
        ),
        ("--data digits --disc-arch mlp --discriminator.hidden [-4]", 1, "width of at least 1, got -4"),
        ("--data digits --gen p4 --generator.momentum two", 2, "momentum: Expected a float. Got value: two"),
        ("--data digits --augment ada --augment.pipeline []", 1, "at least one change in the pipeline"),
        ("--augment.target 0.5", 2, "augment.target: there is no augment to set it of; choose one first"),
        ("--loss.alpha 2", 2, "unknown setting 'alpha': the class that was chosen has none"),
        ("--data digits --evaluation.every 0", 1, "every and grid of at least 1, got samples=10000, every=0"),
        ("--symmetrise maybe", 2, "symmetrise: Expected a bool. Got value: maybe"),
        (
            "--data digits --evaluation.reference dev",
            1,
            "digits has no dev split, expected one of: train, test",
        ),
        ("--data digits --fid-features nosuch:thing", 1, "'nosuch' cannot be imported"),
        ("--data digits --fid-features nonsense", 1, 'expected "package.module:factory"'),
        ("--data digits --precision 7-mixed", 1, "Precision '7-mixed' is invalid"),
        ("--data digits --trainer.speed 9", 1, "unexpected keyword argument 'speed'"),
        ("--data digits --trainer.accelerator abacus", 1, "invalid accelerator name"),
        ("--data digits --trainer.devices 0", 1, "--devices: expected a number from 1"),
        ("--discriminator no.such.Class", 2, "No module named 'no'"),
        ("--discriminator eqgan.networks.ConvGenerator", 2, "not correspond to a subclass of Discriminator"),
        ("--config nowhere.yaml", 2, "File does not exist"),
        ("--config .", 2, "not a file"),
        ("--config", 2, "--config: expected one argument"),
        ("--epochs", 2, "--epochs: expected one argument"),
        ("--gen", 1, "--gen: expected one argument"),
        ("--disc", 1, "--disc: expected one argument"),
        ("--loss", 1, "--loss: expected one argument"),
        ("train", 2, "unknown setting 'train'"),
    ],
)
def test_values_that_cannot_be(words, status, told, complaint):
    assert told in complaint(*words.split(), status=status)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("dataset: {source: digits\n  x: [", "Problems parsing config"),
        ("- a\n- b", "expected settings, one 'name: value' a line, got - a - b"),
        ("", "got an empty file"),
        ("epochs: many", "epochs: Expected an int or null. Got value: many"),
        ("seed: many", "seed: Expected an int. Got value: many"),
        ("a\tb: : c", "config"),
        ("seed:\nname: x", "seed: expected a value, got nothing (null)"),
        ("name: x\ngenerator:", "generator: expected a value, got nothing (null)"),
        ("gan: {betas: }", "gan.betas: expected a value, got nothing (null)"),
        ("loss: hinge", "loss: expected a class (class_path: package.module.Class; short names are for the"),
        ("augment: ada", "got 'ada'"),
        ("dataset: digits", "expected settings, one 'name: value' a line, or a file of them, got 'digits'"),
    ],
)
def test_malformed_configs(content, told, complaint):
    Path("mine.yaml").write_text(content)
    assert told in complaint("--config", "mine.yaml", status=2)


def test_a_file_that_is_no_text(complaint):
    Path("mine.yaml").write_bytes(bytes(range(256)))
    assert "expected a text file in YAML" in complaint("--config", "mine.yaml", status=2)


CONFIGS = Path(__file__).resolve().parents[1] / "configs"


@pytest.mark.parametrize(
    ("command", "path", "told"),
    [
        (classify, "rotmnist_p4.yaml", "it is one of eqgan train"),
        (train_gan, "classify/p4cnn.yaml", "it is one of eqgan classify"),
    ],
)
def test_the_config_of_the_other_command(command, path, told, capsys):
    assert told in complaint_of(lambda: command(["--config", str(CONFIGS / path)]), capsys, 2)
