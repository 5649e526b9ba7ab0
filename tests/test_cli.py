"""The command line: short forms, configs, names, and the doors that lead to it."""

import ast
import logging
import re
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest
import yaml

import eqgan
from eqgan.__main__ import COMMANDS
from eqgan.__main__ import main as door
from eqgan.cli import building, expand, parse_gan, parsing, runs, train_gan
from eqgan.data.module import ImageData
from eqgan.groups import P4, P4M, SQUARE_PLANE_GROUPS

ROOT = Path(eqgan.__file__).parents[1]


@pytest.fixture(autouse=True)
def _own_places(monkeypatch, tmp_path):
    """Every path that is not given is inside a folder of the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EQGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EQGAN_DATA", raising=False)


# --- what the short forms stand for ----------------------------------------------------------------------


def parsed(*words):
    return parse_gan(list(words))[1]


@pytest.mark.parametrize("word", [*SQUARE_PLANE_GROUPS, "P4M", "p1"])
def test_groups(word):
    group = parsed("--disc", word).discriminator.init_args.group
    assert group in SQUARE_PLANE_GROUPS.values()
    assert group.name == {"P4M": "p4m", "p1": "z2"}.get(word, word)


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        ("--gen vanilla", "generator.class_path", "eqgan.networks.VanillaGenerator"),
        ("--gen=conv", "generator.class_path", "eqgan.networks.ConvGenerator"),
        ("--disc-arch conv", "discriminator.class_path", "eqgan.networks.ConvDiscriminator"),
        ("--disc-arch p4cnn", "discriminator.class_path", "eqgan.networks.P4CNNDiscriminator"),
        ("--disc-arch mlp", "discriminator.class_path", "eqgan.networks.MLPDiscriminator"),
        ("--disc p4m --disc-arch conv", "discriminator.init_args.group", P4M),
        ("--loss ns", "loss.class_path", "eqgan.training.losses.NonSaturatingLoss"),
        ("--loss hinge", "loss.class_path", "eqgan.training.losses.HingeLoss"),
        ("--loss ra", "loss.class_path", "eqgan.training.losses.RelativisticAverageLoss"),
        ("--loss rp", "loss.class_path", "eqgan.training.losses.RelativisticPairingLoss"),
        ("--loss alpha --loss.alpha 3", "loss.init_args.alpha", 3.0),
        ("--penalty gp --penalty.one_sided true", "penalty.init_args.one_sided", True),
        ("--penalty none", "penalty.class_path", "eqgan.training.penalties.NoPenalty"),
        ("--augment none", "augment", None),
        ("--augment ada --augment.target 0.5", "augment.init_args.target", 0.5),
        ("--augment group --augment.group p4m", "augment.init_args.group", P4M),
        ("--gen p4", "generator.class_path", "eqgan.networks.GroupGenerator"),
        ("--gen=P4MM", "generator.init_args.group", P4M),
        ("--gen p4 --generator.momentum 0.5", "generator.init_args.momentum", 0.5),
        ("--generator.start=9 --gen p4m", "generator.init_args.start", 9),
        ("--gen p4 --gen vanilla", "generator.class_path", "eqgan.networks.VanillaGenerator"),
        ("--gen vanilla --gen p4", "generator.class_path", "eqgan.networks.GroupGenerator"),
        ("--gen-arch residual", "generator.class_path", "eqgan.networks.ResidualGenerator"),
        ("--gen p4m --gen-arch residual", "generator.init_args.group", P4M),
        ("--gen-arch residual --gen p4m", "generator.class_path", "eqgan.networks.ResidualGenerator"),
        ("--conditional", "conditional", True),
        ("--disc-arch residual", "discriminator.class_path", "eqgan.networks.ResidualDiscriminator"),
        ("--loss eqgan.training.losses.HingeLoss", "loss.class_path", "eqgan.training.losses.HingeLoss"),
        ("--data digits", "dataset.source", "digits"),
        ("--data-root there", "dataset.root", "there"),
        ("--size 32", "dataset.size", 32),
        ("--batch-size 7", "dataset.batch_size", 7),
        ("--batch_size=7", "dataset.batch_size", 7),
        ("--fraction 0.25", "dataset.fraction", 0.25),
        ("--fid-features inception", "evaluation.features", "inception"),
        ("--log-dir here", "log_dir", Path("here")),
        ("--samples_dir=here", "samples_dir", Path("here")),
        ("--symmetrise false", "symmetrise", False),
        ("--seed 9", "seed", 9),
        ("--epochs 3", "epochs", 3),
        ("--name mine", "name", "mine"),
        # any nested setting
        ("--gan.lr_generator 2e-4", "gan.lr_generator", 2e-4),
        ("--gan.betas [0.1,0.2]", "gan.betas", (0.1, 0.2)),
        ("--penalty.gamma 7", "penalty.init_args.gamma", 7.0),
        ("--evaluation.every 5", "evaluation.every", 5),
        ("--trainer.limit_train_batches 3", "trainer", {"limit_train_batches": 3}),
        ("--disc-arch conv --discriminator.width 9", "discriminator.init_args.width", 9),
        ("--discriminator.width 9 --disc-arch conv", "discriminator.init_args.width", 9),
        ("--disc-arch conv --discriminator.spectral null", "discriminator.init_args.spectral", None),
        ("--gen vanilla --generator.hidden [8,9]", "generator.init_args.hidden", (8, 9)),
    ],
)
def test_what_words_stand_for(words, key, value):
    assert parsed(*words.split())[key] == value


def test_a_class_chosen_by_name_takes_nothing_over():
    """Not the width of the class that was there before."""
    Path("mine.yaml").write_text(
        "discriminator:\n  class_path: eqgan.networks.P4CNNDiscriminator\n"
        "  init_args: {group: p4m, width: 77}\n"
    )
    of_file = parsed("--config", "mine.yaml").discriminator.init_args
    assert (of_file.width, of_file.group) == (77, P4M)
    other = parsed("--config", "mine.yaml", "--disc-arch", "conv", "--disc", "p4").discriminator
    assert other.class_path.endswith("ConvDiscriminator")
    assert other.init_args.width != 77
    assert other.init_args.group == P4


@pytest.mark.parametrize(
    ("of_file", "kept"),
    [("ResidualGenerator", "ResidualGenerator"), ("ConvGenerator", "GroupGenerator")],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_group_after_gen_keeps_the_equivariant_generator_of_a_config(of_file, kept, first):
    """Its widths too: two runs of one config then differ in the group and in nothing else."""
    group = "group: p2, " if kept == of_file else ""
    Path("mine.yaml").write_text(
        f"generator: {{class_path: eqgan.networks.{of_file}, init_args: {{{group}width: 9}}}}"
    )
    words = ["--config", "mine.yaml", "--gen", "p4m"]
    generator = parsed(*(words if first else [*words[2:], *words[:2]])).generator
    assert generator.class_path == f"eqgan.networks.{kept}"
    assert generator.init_args.group == P4M
    assert (generator.init_args.width == 9) == (kept == of_file)


@pytest.mark.parametrize("first", [True, False])
def test_what_is_typed_overrides_the_config(first):
    Path("mine.yaml").write_text(
        "epochs: 5\ngan: {lr_generator: 0.3}\nloss: {class_path: eqgan.training.losses.HingeLoss}\n"
        "discriminator: {class_path: eqgan.networks.ConvDiscriminator, init_args: {group: p4, width: 8}}"
    )
    config, typed = ["--config", "mine.yaml"], ["--disc", "p4m", "--loss", "ns", "--gan.lr_generator", "0.1"]
    words = config + typed if first else typed + config
    settings = parsed(*words)
    assert settings.epochs == 5
    assert settings.gan.lr_generator == 0.1
    assert settings.loss.class_path.endswith("NonSaturatingLoss")
    assert settings.discriminator.init_args.group == P4M
    assert settings.discriminator.init_args.width == 8


def test_two_configs_and_an_inline_one():
    Path("a.yaml").write_text("epochs: 5\nseed: 5")
    Path("b.yaml").write_text("seed: 6")
    settings = parsed("--config=a.yaml", "--name", "x", "--config", "b.yaml")
    assert (settings.epochs, settings.seed, settings.name) == (5, 6, "x")


def test_expand_leaves_other_words_alone():
    words = ["--resume", "run", "--overwrite", "--gan.betas", "[0.5,0.9]"]
    assert expand(words) == words
    assert expand([]) == []


def test_print_config_round_trips(capsys):
    words = ["--disc", "p4m", "--disc-arch", "conv", "--loss", "ns", "--seed", "5", "--fraction", "0.5"]
    words += ["--discriminator.spectral", "null"]
    with pytest.raises(SystemExit) as stop:
        train_gan([*words, "--print_config"])
    assert not stop.value.code
    text = capsys.readouterr().out
    Path("printed.yaml").write_text(text)
    assert yaml.safe_load(text)["discriminator"]["init_args"]["group"] == "p4m"
    again, first = parsed("--config", "printed.yaml"), parsed(*words)
    again.pop("config"), first.pop("config")
    assert again == first
    with pytest.raises(SystemExit):
        train_gan(["--config", "printed.yaml", "--print_config"])
    assert capsys.readouterr().out == text


def test_help_shows_the_short_forms(capsys):
    with pytest.raises(SystemExit) as stop:
        train_gan(["--help"])
    assert not stop.value.code
    told = capsys.readouterr().out
    for option in (*parsing.SHORT, *parsing.CHOICES):
        assert option in told
    for _, names in parsing.CHOICES.values():
        assert all(name in told for name in names)
    assert ",".join(SQUARE_PLANE_GROUPS) in told
    for option in ("--epochs", "--seed", "--name", "--config", "--print_config", "--resume", "--overwrite"):
        assert option in told


# --- what a run is called, and what it falls back to -----------------------------------------------------


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("--gen conv --disc-arch conv --disc p4m --loss hinge --seed 2", "digits-conv-conv_p4m-hinge-s2"),
        ("--gen vanilla --disc-arch mlp --loss ns --seed 0", "digits-vanilla-mlp-ns-s0"),
        (
            "--gen p4m --disc p4 --disc-arch conv --loss rp --conditional --augment ada",
            "digits-dey_p4m-conv_p4-rp-cond-ada-s0",
        ),
        (
            "--gen-arch residual --disc z2 --loss ls --augment group --augment.group p4m",
            "digits-residual_p4-dcgan_z2-ls-group_p4m-s0",
        ),
        (
            "--gen conv --disc-arch p4cnn --disc z2 --loss ra --seed 1 --fraction 0.5",
            "digits-50pct-conv-p4cnn_z2-ra-s1",
        ),
    ],
)
def test_a_run_is_named_after_what_tells_it_apart(words, name):
    settings = parsed("--data", "digits", *words.split())
    data = ImageData(**settings.dataset, seed=settings.seed)
    data.setup()
    assert building.default_name(settings, data) == name


def test_without_mnist_the_digits_are_used_and_recorded(tmp_path, monkeypatch, caplog):
    """One clear line says so, and the settings name the set that was really used."""
    monkeypatch.setenv("EQGAN_NO_DOWNLOAD", "1")
    small = "--disc-arch conv --discriminator.width 2 --gen conv --generator.width 1 --evaluation.samples 20"
    with caplog.at_level(logging.WARNING):
        parser, settings = parse_gan([*small.split(), "--data-root", str(tmp_path / "empty"), "--seed", "2"])
        assert settings.dataset.source == "auto"
        run, resuming = building.prepare(parser, settings)
    told = [record.getMessage() for record in caplog.records if record.name == "eqgan"]
    assert len(told) == 1
    assert "using scikit-learn's 1,797 digits instead" in told[0]
    assert run.folder.name.startswith("digits-conv-conv_p4-")
    assert not resuming
    assert yaml.safe_load(run.folder.config.read_text())["dataset"]["source"] == "digits"


@pytest.mark.parametrize(("epochs", "every", "steps"), [(None, None, 100), (7, None, 10_000), (None, 3, 1)])
def test_lengths_that_were_left_open_are_steps(epochs, every, steps):
    """The same amount of training for a large and a small set; never less than one pass."""
    settings = parsed("--epochs", str(epochs or "null"), "--evaluation.every", str(every or "null"))
    assert (settings.epochs, settings.evaluation.every) == (epochs, every)
    building.set_lengths(settings, steps)
    assert settings.epochs == epochs or 1000 <= settings.epochs * steps <= 10_000
    assert settings.evaluation.every == every or settings.evaluation.every >= 1
    assert settings.epochs >= 1


def test_precision(monkeypatch):
    monkeypatch.setattr(runs.torch.cuda, "is_available", lambda: False)
    for native, chosen in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(runs, "cpu_multiplies_bf16", lambda native=native: native)
        assert runs.precision_for("auto") == chosen
        assert runs.precision_for("64-true") == "64-true"
    monkeypatch.undo()
    assert isinstance(runs.cpu_multiplies_bf16(), bool)


# --- the doors -------------------------------------------------------------------------------------------


def test_the_installed_command(monkeypatch, capsys):
    (script,) = entry_points(group="console_scripts", name="eqgan")
    main = script.load()
    assert main is door
    monkeypatch.setattr("sys.argv", ["eqgan"])
    main()
    told = capsys.readouterr().out
    assert all(re.search(rf"eqgan {name} +\w", told) for name in COMMANDS)
    monkeypatch.setattr("sys.argv", ["eqgan", "--version"])
    main()
    assert capsys.readouterr().out == f"eqgan {version('eqgan')}\n"
    monkeypatch.setattr("sys.argv", ["eqgan", "trian"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    known = ", ".join(COMMANDS)
    assert capsys.readouterr().err == f"eqgan: error: unknown command 'trian'; known: {known}\n"
    monkeypatch.setattr("sys.argv", ["eqgan", "train", "--epochs", "0"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    assert "--epochs: expected at least 1" in capsys.readouterr().err


def test_the_script_is_only_a_door():
    tree = ast.parse((ROOT / "train_gan.py").read_text())
    statements = [node for node in tree.body if not isinstance(node, ast.Expr)]
    assert [type(node) for node in statements] == [ast.Import, ast.ImportFrom, ast.If]
    assert statements[1].module == "eqgan.__main__"


def test_an_interrupt_while_a_command_is_loaded(monkeypatch, capsys):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr("eqgan.__main__.import_module", interrupted)
    with pytest.raises(SystemExit) as stop:
        door(["classify"])
    assert stop.value.code == 130
    assert capsys.readouterr().err == "eqgan: error: stopped\n"
