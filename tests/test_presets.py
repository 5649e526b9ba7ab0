"""The presets: networks and lengths of their recipes, and the program that trains them all."""

import importlib
import json
import sys
from pathlib import Path

import pytest

import eqgan
from eqgan.cli import gan_parser, parse_gan
from eqgan.cli.runs import plain_settings
from eqgan.groups import P4, P4M, PM, Z2
from eqgan.training.load import gan_from_settings

ROOT = Path(eqgan.__file__).parents[1]
CONFIGS = {path.stem: path for path in sorted((ROOT / "configs").glob("*.y*ml"))}
MEASURED_ELSEWHERE = {"rotmnist_z2", "rotmnist_p4", "rotmnist_p4m"}  # compare_discriminators.py, study.py
IMAGES = {  # of a source: shape, classes
    "cifar10": ((3, 32, 32), 10),
    "bccd": ((3, 64, 64), 3),
    "mirabest": ((1, 64, 64), 2),
}
MADE = {  # generator and discriminator, hence every width; those of Dey et al. are the paper's own counts
    "gegan_rotmnist": (2_631_296, 1_478_657),
    "spgan_rotmnist": (2_631_296, 1_478_657),
    "vanilla": (1_493_520, 1_460_225),
}
STEPS = {  # of the generator, on so many images; the others take the default length
    "gegan_rotmnist": (20_009, 12_000),
    "spgan_rotmnist": (20_460, 6_000),
    "r3gan": (20_009, 12_000),
    "dcgan": (19_995, 12_000),
    "c4mnist_p4": (27_600, 3_000),
    "cifar10_pm": (39_050, 50_000),
    "bccd_p4m": (9_000, 1_448),
    "mirabest_p4m": (8_400, 698),
    "vanilla": (23_400, 60_000),
    **dict.fromkeys(sorted(MEASURED_ELSEWHERE), (2_992, 12_000)),
}


LOSSES, PENALTIES = "eqgan.training.losses.", "eqgan.training.penalties."
DEY = {  # arXiv:2005.01683, and the networks of arXiv:2202.01129
    "dataset.batch_size": 64,
    "conditional": True,
    "generator.init_args.group": P4,
    "generator.init_args.latent_dim": 64,
    "generator.init_args.embedding": 64,
    "discriminator.init_args.group": P4,
    "discriminator.init_args.conditioning": "projection",
    "gan.lr_generator": 1e-4,
    "gan.lr_discriminator": 4e-4,
    "gan.betas": (0.0, 0.9),
    "gan.discriminator_steps": 2,
    "gan.ema_decay": 0.999,
    "penalty.init_args.every": 1,
}
TISSUE = {  # the same for 64 pixels
    "dataset.size": 64,
    "dataset.batch_size": 32,
    "conditional": True,
    "symmetrise": True,
    "generator.init_args.group": P4M,
    "generator.init_args.latent_dim": 128,
    "generator.init_args.spectral": "bank",
    "discriminator.init_args.group": P4M,
    "discriminator.init_args.spectral": "bank",
    "loss.class_path": f"{LOSSES}RelativisticAverageLoss",
    "penalty.class_path": f"{PENALTIES}R1Penalty",
    "penalty.init_args.gamma": 0.1,
    "penalty.init_args.every": 1,
    "augment.class_path": "eqgan.training.augment.DiffAugment",
    "gan.ema_decay": 0.999,
}
DEFAULT = {  # what is measured in compare_discriminators.py
    "generator.init_args.latent_dim": 128,
    "dataset.batch_size": 64,
    "penalty.class_path": f"{PENALTIES}R1Penalty",
    "penalty.init_args.gamma": 0.1,
    "penalty.init_args.every": 8,
    "gan.lr_generator": 5e-4,
    "gan.lr_discriminator": 5e-4,
    "gan.discriminator_steps": 1,
    "gan.ema_decay": 0.999,
}
SLOW = {"gan.betas": (0.5, 0.99), "loss.class_path": f"{LOSSES}RelativisticAverageLoss"}
PUBLISHED = {  # what a source says in numbers, beside the widths and lengths above
    "gegan_rotmnist": {
        **DEY,
        "symmetrise": False,
        "generator.init_args.spectral": "bank",
        "discriminator.init_args.spectral": "bank",
        "loss.class_path": f"{LOSSES}RelativisticAverageLoss",
        "penalty.class_path": f"{PENALTIES}R1Penalty",
        "penalty.init_args.gamma": 0.1,
    },
    "spgan_rotmnist": {
        **DEY,
        "symmetrise": True,
        "loss.class_path": f"{LOSSES}LipschitzAlphaLoss",
        "loss.init_args.alpha": 2.0,
        "penalty.class_path": f"{PENALTIES}LipschitzPenalty",
        "penalty.init_args.weight": 10.0,
    },
    "r3gan": {
        "loss.class_path": f"{LOSSES}RelativisticPairingLoss",
        "penalty.class_path": f"{PENALTIES}R1R2Penalty",
        "generator.init_args.norm": False,
        "discriminator.init_args.spectral": None,
        "penalty.init_args.gamma": 1.0,
        "gan.lr_generator": 2e-4,
        "gan.lr_discriminator": 2e-4,
        "gan.betas": (0.0, 0.99),
        "gan.ema_decay": 0.999,
    },
    "dcgan": {
        "dataset.batch_size": 128,
        "generator.init_args.latent_dim": 100,
        "discriminator.init_args.group": Z2,
        "loss.class_path": f"{LOSSES}NonSaturatingLoss",
        "penalty.class_path": f"{PENALTIES}NoPenalty",
        "gan.lr_generator": 2e-4,
        "gan.lr_discriminator": 2e-4,
        "gan.betas": (0.5, 0.999),
    },
    "vanilla": {
        "epochs": 200,
        "dataset.batch_size": 512,
        "generator.init_args.latent_dim": 128,
        "discriminator.init_args.dropout": 0.3,
        "loss.class_path": f"{LOSSES}NonSaturatingLoss",
        "gan.lr_generator": 2e-4,
        "gan.lr_discriminator": 2e-4,
        "evaluation.grid": 64,
    },
    "c4mnist_p4": {
        **DEFAULT,
        **SLOW,
        "generator.init_args.latent_dim": 64,
        "dataset.source": "c4mnist",
        "dataset.fraction": 0.05,
        "evaluation.samples": 50_000,
    },
    "cifar10_pm": {
        **{key: value for key, value in TISSUE.items() if not key.startswith(("dataset.size", "augment"))},
        "dataset.batch_size": 64,
        "generator.init_args.group": PM,
        "discriminator.init_args.group": PM,
        "gan.lr_generator": 1e-4,
        "gan.lr_discriminator": 4e-4,
        "gan.betas": (0.0, 0.9),
        "gan.discriminator_steps": 2,
    },
    "bccd_p4m": {
        **TISSUE,
        "gan.lr_generator": 1e-4,
        "gan.lr_discriminator": 4e-4,
        "gan.betas": (0.0, 0.9),
        "gan.discriminator_steps": 2,
    },
    "mirabest_p4m": {
        **TISSUE,
        "gan.lr_generator": 5e-4,
        "gan.lr_discriminator": 5e-4,
        "gan.betas": (0.5, 0.99),
        "gan.discriminator_steps": 1,
    },
    "conv_hinge_p4": {
        **DEFAULT,
        "discriminator.init_args.spectral": "bank",
        "loss.class_path": f"{LOSSES}HingeLoss",
        "gan.betas": (0.0, 0.99),
    },
    "p4cnn": {**DEFAULT, **SLOW, "discriminator.init_args.width": 20},
    **{f"rotmnist_{g}": {**DEFAULT, **SLOW} for g in ("z2", "p4", "p4m")},
}


@pytest.fixture(scope="module", params=CONFIGS)
def built(request):
    """Name, settings and networks of a config at its own widths, for images of its data."""
    parser = gan_parser()
    _, config = parse_gan(["--config", str(CONFIGS[request.param])])
    shape, classes = IMAGES.get(config.dataset.source, ((1, 28, 28), 10))
    gan = gan_from_settings(plain_settings(parser, config), shape, classes if config.conditional else 0)
    return request.param, config, gan


def test_every_config_builds_at_its_own_widths(built):
    name, _, gan = built
    counts = tuple(sum(p.numel() for p in n.parameters()) for n in (gan.generator, gan.discriminator))
    assert min(counts) > 10_000
    if name in MADE:
        assert counts == MADE[name]


def test_a_recipe_is_as_long_as_its_source_says(built):
    name, config, gan = built
    if name not in STEPS:
        assert config.epochs is None, "as long as the default"
        return
    steps, images = STEPS[name]
    assert images // config.dataset.batch_size * config.epochs // gan.discriminator_steps == steps


def test_a_recipe_has_the_numbers_of_its_source(built):
    name, config, _ = built
    assert {key: config[key] for key in PUBLISHED[name]} == PUBLISHED[name]


def test_the_published_networks_by_the_command_that_the_help_shows():
    words = ["--config", str(CONFIGS["gegan_rotmnist"]), "--gen", "p4", "--disc", "p4", "--conditional"]
    settings = plain_settings(gan_parser(), parse_gan(words)[1])
    gan = gan_from_settings(settings, (1, 28, 28), 10)
    assert sum(p.numel() for p in gan.generator.parameters()) == MADE["gegan_rotmnist"][0]
    assert sum(p.numel() for p in gan.discriminator.parameters()) == MADE["gegan_rotmnist"][1]


def test_every_number_is_of_a_preset():
    assert {*PUBLISHED} == {*CONFIGS}
    assert {*STEPS} <= {*CONFIGS}


@pytest.fixture(scope="module")
def presets():
    """As when it is called, the program finds the others beside it."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield importlib.import_module("presets")
    sys.path.remove(str(ROOT / "benchmarks"))


def test_the_program_knows_every_preset(presets):
    assert {*presets.PRESETS} == {*CONFIGS} - MEASURED_ELSEWHERE


def test_it_is_made_of_commands_that_parse(presets):
    for form in presets.FORMS.values():
        for name, preset in presets.PRESETS.items():
            _, config = parse_gan(presets.words(name, form, []))
            if form.epochs is None:
                assert config == parse_gan(["--config", str(CONFIGS[name]), "--seed", "0"])[1]
                continue
            steps = config.trainer["limit_train_batches"]
            images = config.dataset.passes * (form.images or preset.images)
            assert images >= steps * config.dataset.batch_size, "an epoch ends before its steps are made"
            assert steps * form.epochs == config.gan.discriminator_steps * (form.steps or preset.steps), (
                f"{name}: the steps do not split into {form.epochs} equal epochs"
            )


def called(presets, monkeypatch, tmp_path, *words):
    """Runs the program; its results."""
    where = ["--work", tmp_path / "work", "--out", tmp_path / "presets.json", "--docs", tmp_path / "docs"]
    monkeypatch.setattr(sys, "argv", ["presets.py", *words, *map(str, where)])
    presets.main()
    return json.loads((tmp_path / "presets.json").read_text())


def test_two_presets_are_trained_on_the_digits(presets, monkeypatch, tmp_path, capsys):
    result = called(presets, monkeypatch, tmp_path, "--check", "--only", "spgan_rotmnist,r3gan")
    assert (result["form"], result["finished"], result["planned"]) == ("check", 2, len(presets.PRESETS))
    first, second = result["presets"]
    assert (first["preset"], first["steps"], first["data"]) == ("spgan_rotmnist", 4, "digits")
    assert first["narrowed"] == ["--size", "28", "--generator.width", "4", "--discriminator.width", "4"]
    assert first["recipe_parameters"]["generator"] == 2_631_296 > first["parameters"]["generator"]
    assert second["recipe_steps"] == 107 * (first["training_images"] // 64)
    assert first["fid"]["training_images"] < first["fid"]["before"], "real images are no better than noise"
    assert first["invariance_error"] < 1e-4
    page = (tmp_path / "docs" / "presets.md").read_text()
    assert "| `r3gan` | arXiv:2501.05441 | digits, 1,437 of 28 pixels |" in page
    assert (tmp_path / "docs" / "images" / "presets.png").is_file()

    monkeypatch.setattr(presets, "trained", lambda *_: pytest.fail("a finished preset was repeated"))
    again = called(presets, monkeypatch, tmp_path, "--check", "--only", "r3gan")
    assert again["presets"] == result["presets"]


def test_the_score_before_training_is_that_of_the_first_weights(presets, monkeypatch, tmp_path):
    """It is taken when the run is over, from a network that is built anew."""
    words = presets.words("r3gan", presets.FORMS["check"], [])
    where = ["--log_dir", str(tmp_path / "logs"), "--samples_dir", str(tmp_path / "samples")]
    first, _ = presets.prepare(*parse_gan([*words, *where, "--name", "first"]))
    row = presets.trained("r3gan", presets.FORMS["check"], tmp_path, [])
    judge = first.judge()
    features = judge.features(first.gan, stream=0)
    assert row["fid"]["before"] == presets.score_features(features, judge.reference, neighbours=False).fid
    assert row["fid"]["before"] != row["fid"]["end"]


def test_it_says_what_did_not_learn(presets):
    page = importlib.import_module("presets_page")
    fids = {"before": 9.0, "end": 3.0}
    good = {"preset": "good", "fid": fids, "spread": 0.9, "coverage": 0.1, "rim": 0.0, "rollbacks": []}
    assert page.told([good]) == ["FID ended below where it began in 1 of 1 runs."]
    fids = {"before": 9.0, "end": 9.5}
    bad = {"preset": "bad", "fid": fids, "spread": 0.01, "coverage": 0.0, "rim": 2.0, "rollbacks": [{}]}
    first, _, *lines = page.told([good, bad])
    assert first == "FID ended below where it began in 1 of 2 runs."
    for line, said in zip(
        lines, ("not learn", "collapsed", "next to no", "a frame", "diverged"), strict=True
    ):
        assert "`bad`" in line
        assert said in line


def test_samples_that_are_one_image_and_a_bright_frame_are_seen(presets):
    draws, labels = presets.torch.Generator().manual_seed(0), presets.torch.arange(20) % 2
    images = presets.torch.rand(20, 1, 8, 8, generator=draws)
    one_a_class = images[labels]
    assert presets.deviation(one_a_class, labels) == 0 < presets.deviation(images, labels)
    framed = presets.torch.ones(2, 1, 8, 8)
    framed[..., 1:-1, 1:-1] = -1
    assert presets.rim(framed) == 1 == -presets.rim(-framed)


def test_an_unknown_preset_is_refused(presets, monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit):
        called(presets, monkeypatch, tmp_path, "--only", "gegan")
    assert "unknown gegan; known: gegan_rotmnist" in capsys.readouterr().err
