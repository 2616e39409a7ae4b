"""Nothing is chosen on test images, whichever way it is asked for.

Evaluating on them is no choice.
"""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from fertool import models
from fertool.data.fer2013_csv import write_csv
from fertool.data.synth import draw_faces
from fertool.spec import InputSpec

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
COMMANDS = {
    "train-teacher": (),
    "distill": ("MODEL",),
    "prune": ("MODEL", "--target-flops", "0.5"),
    "hessian-sensitivity": ("MODEL",),
    "quantize": ("MODEL",),
    "cascade": ("MODEL", "MODEL"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model.pt"
    torch.manual_seed(0)
    models.save_model(
        path, *models.create("micro_expnet", {"width_mult": 0.25}, InputSpec(), CLASSES)
    )
    return path


@pytest.fixture
def refused(fertool, model, tmp_path):
    """Run a command that must be refused for what it would choose on; returns the error line."""

    def call(command, *arguments):
        own = [model if part == "MODEL" else part for part in COMMANDS[command]]
        code, out, err = fertool(command, *own, *arguments, "-o", tmp_path / "out" / "o.pt")
        assert (code, out) == (2, ""), err
        *_, error, hint = err.splitlines()
        assert error.startswith("error: ")
        assert hint.startswith(
            "hint: what is chosen on the test images is no longer tested by them"
        )
        assert not list(tmp_path.glob("out/*"))
        return error

    return call


@pytest.fixture
def csv(tmp_path):
    """Write 98 drawn faces.

    Of the 14 for validation the first `same` are the first of the 14 for testing.
    """

    def make(same):
        images, labels = draw_faces(98, 0)
        images[70 : 70 + same] = images[84 : 84 + same]
        path = tmp_path / "faces.csv"
        write_csv(path, images, labels, ["train"] * 70 + ["val"] * 14 + ["test"] * 14)
        return path

    return make


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flag", ["--split", "--val-split", "--test-split"])
def test_a_flag_that_would_name_the_split(refused, command, flag):
    assert f"{flag}: {command} " in refused(command, "--data", "synth:280", flag, "test")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_recipe_that_would_name_the_split(refused, command, tmp_path):
    (tmp_path / "r.yaml").write_text(f"{command}: {{split: test}}\n")
    assert f"--split: {command} " in refused(
        command, "--data", "synth:280", "--recipe", tmp_path / "r.yaml"
    )


@pytest.mark.parametrize("command", ["train-teacher", "distill"])
def test_a_grid_over_the_split(refused, command):
    assert "grids on the validation split" in refused(
        command, "--data", "synth:280", "--grid", "split=val,test"
    )


@pytest.mark.parametrize("command", ["train-teacher", "distill", "prune", "quantize"])
def test_test_images_under_the_name_of_validation_images(refused, csv, command):
    line = refused(command, "--data", csv(14))
    assert "faces.csv: 14 of the 14 validation images are test images too" in line


def test_a_folder_of_validation_images_that_is_a_link_to_the_test_images(refused, tmp_path):
    for split, count in (("train", 4), ("test", 2)):
        for k, name in enumerate(CLASSES):
            folder = tmp_path / "faces" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = np.full((48, 48), 30 * k + 5 * index + (split == "test"), np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    os.symlink("test", tmp_path / "faces" / "val")
    assert "14 of the 14 validation images" in refused(
        "train-teacher", "--data", tmp_path / "faces"
    )


def test_a_few_copies_across_the_splits_as_fer2013_has_them_are_no_reason(fertool, csv, tmp_path):
    own = (
        "--arch",
        "micro_expnet",
        "--arch-arg",
        "width_mult=0.25",
        "--epochs",
        1,
        "--device",
        "cpu",
    )
    code, _, err = fertool("train-teacher", "--data", csv(7), *own, "-o", tmp_path / "o.pt")
    assert code == 0, err
    assert models.load_model(tmp_path / "o.pt")[0].metrics.split == "val"


def test_without_validation_images_they_come_from_the_training_images(csv, tmp_path):
    from fertool.data import DataOptions, open_data

    rows = csv(0).read_text().splitlines()
    (tmp_path / "two.csv").write_text(
        "\n".join(row for row in rows if not row.endswith("PublicTest")) + "\n"
    )
    source = open_data(str(tmp_path / "two.csv"), DataOptions())
    assert len(source.split("train")) + len(source.split("val")) == 70
    assert source.distinct_from("val", "test").all()
    (tmp_path / "test.csv").write_text(
        "\n".join(row for row in rows if not row.endswith("Training")) + "\n"
    )
    assert open_data(str(tmp_path / "test.csv"), DataOptions()).splits == ("val", "test")


@pytest.mark.parametrize("usage", ["PrivateTest", "test"])
def test_private_test_is_the_test_split_and_may_be_evaluated_on(fertool, model, csv, usage):
    path = csv(14)
    path.write_text(path.read_text().replace("PrivateTest", usage))
    code, out, err = fertool(
        "eval", model, "--data", path, "--split", "test", "--tta", "flip", "--json"
    )
    assert code == 0, err
    assert '"split": "test"' in out
