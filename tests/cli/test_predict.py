"""What a trained classifier says of images."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from eqgan.cli.predict import predict
from eqgan.data.loader import to_unit
from eqgan.training.load import load_classifier
from tests.training.classifiers import ClassifierPlace, squares


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = ClassifierPlace(tmp_path_factory.mktemp("predict"))
    place.train("--name", "grey", "--epochs", "1", "--trainer.limit_train_batches", "1")
    colour = squares(place.root / "colour.npz", channels=3)
    place.train("--name", "colour", "--epochs", "1", "--trainer.limit_train_batches", "1", data=colour)
    return place


@pytest.fixture
def pictures(tmp_path):
    """One picture in several modes and formats."""
    values = np.random.RandomState(0).randint(0, 256, (22, 22), dtype=np.uint8)
    grey = Image.fromarray(values)
    grey.save(tmp_path / "grey.png")
    grey.convert("RGB").save(tmp_path / "rgb.webp", lossless=True)
    grey.convert("RGBA").save(tmp_path / "rgba.png")
    Image.fromarray(values.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    grey.resize((90, 60)).save(tmp_path / "large.jpg")
    return [*sorted(tmp_path.glob("*.*g")), tmp_path / "rgb.webp"]


def test_probabilities_are_those_of_the_network(place, pictures, json_of):
    found = {one["image"]: one for one in json_of(predict, place.best("grey"), *pictures)}
    pixels = np.asarray(Image.open(pictures[0].with_name("grey.png")))[None, None]
    logits = load_classifier(place.best("grey"))(to_unit(torch.from_numpy(pixels.copy())))
    expected = logits.softmax(1)[0]
    for path in pictures:
        given = found[str(path)]["probabilities"]
        assert sum(given.values()) == pytest.approx(1)
        assert list(given.values()) == sorted(given.values(), reverse=True)
        assert found[str(path)]["class"] == next(iter(given))
        if path.stem != "large":
            assert [given[name] for name in "012"] == pytest.approx(expected.tolist(), abs=1e-6)


def test_colours(place, pictures, json_of):
    """A network for colours reads grey images, and one for grey images reads colours."""
    draw = np.random.RandomState(1)
    path = pictures[0].with_name("colours.png")
    Image.fromarray(draw.randint(0, 256, (22, 22, 3), dtype=np.uint8)).save(path)
    for name in ("grey", "colour"):
        found = json_of(predict, place.best(name), path, pictures[0])
        assert all(sum(one["probabilities"].values()) == pytest.approx(1) for one in found)


def test_the_table(place, pictures, capsys):
    found = predict([str(place.best("grey")), str(pictures[0]), "--top", "2"])
    told = capsys.readouterr().out
    best, second, third = found[0]["probabilities"].items()
    for name, share in (best, second):
        assert f"{name}  {100 * share:.1f} %" in told
    assert f"{third[0]}  {100 * third[1]:.1f} %" not in told


@pytest.mark.parametrize(
    ("content", "told"),
    [(None, "no such image"), (b"no image", "expected an image, got a file that cannot be read")],
)
def test_images_that_cannot_be_read(content, told, place, tmp_path, complaint):
    path = tmp_path / "odd.png"
    if content is not None:
        path.write_bytes(content)
    line = complaint(predict, place.best("grey"), path)
    assert told in line
    assert str(path) in line


def test_the_others_are_answered(place, pictures, tmp_path, capsys):
    (tmp_path / "odd.png").write_bytes(b"no image")
    with pytest.raises(SystemExit) as stopped:
        predict(
            [str(place.best("grey")), str(pictures[0]), str(tmp_path / "odd.png"), str(pictures[1]), "--json"]
        )
    told = capsys.readouterr()
    assert stopped.value.code == 1
    assert [one["image"] for one in json.loads(told.out)] == [str(pictures[0]), str(pictures[1])]
    assert "odd.png: expected an image" in told.err


def test_an_image_that_is_named_twice_is_answered_twice(place, pictures, json_of):
    assert len(json_of(predict, place.best("grey"), pictures[0], pictures[0])) == 2


def test_a_folder_is_no_image(place, tmp_path, complaint):
    assert "a folder, expected images" in complaint(predict, place.best("grey"), tmp_path)


def test_checkpoints_that_cannot_be_used(place, pictures, tmp_path, complaint):
    assert "no checkpoint at" in complaint(predict, "nowhere.ckpt", pictures[0])
    (tmp_path / "text.ckpt").write_text("text")
    assert "is damaged or no plain checkpoint" in complaint(predict, tmp_path / "text.ckpt", pictures[0])
    told = complaint(predict, place.best("grey"), pictures[0], "--group", "p4m")
    assert "holds a p4 network, expected p4m" in told
    told = complaint(predict, place.best("grey"), pictures[0], "--group", "p5", status=2)
    assert "unknown plane group 'p5'" in told


def test_mistypes(place, pictures, complaint):
    told = complaint(predict, place.best("grey"), pictures[0], "--tpo", "1", status=2)
    assert "did you mean '--top'?" in told
    assert "at least 1" in complaint(predict, place.best("grey"), pictures[0], "--top", "0", status=2)
    assert "images" in complaint(predict, place.best("grey"), status=2)


def test_help(help_of):
    told = help_of(predict)
    assert "eqgan predict" in told
    assert "examples:" in told
