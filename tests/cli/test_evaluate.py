import json

import numpy as np
import pytest
import torch

from fertool import models
from fertool.spec import InputSpec
from fertool.workflows.evaluate import log_mean_softmax

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model.pt"
    spec, module = models.create("micro_expnet", {"width_mult": 0.25}, InputSpec(), CLASSES)
    models.save_model(path, spec, module)
    return path


def write_csv(path, *splits):
    """Seven distinct images a split, the same ones in each."""
    rng = np.random.default_rng(0)
    faces = [" ".join(map(str, rng.integers(0, 256, 2304))) for _ in CLASSES]
    rows = [f"{label},{face},{split}" for split in splits for label, face in enumerate(faces)]
    path.write_text("\n".join(["emotion,pixels,Usage", *rows]) + "\n")
    return path


@pytest.mark.parametrize(
    "splits", [("PrivateTest",), ("Training", "PrivateTest")], ids=["no training", "all copies"]
)
def test_a_test_set_alone_or_of_copies_alone_has_no_deduplicated_figure(
    fertool, model, tmp_path, splits
):
    data = write_csv(tmp_path / "faces.csv", *splits)
    code, out, err = fertool("eval", model, "--data", data, "--split", "test", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["n"] == 7
    assert found["deduplicated"] is None


@pytest.mark.parametrize("tta", ["none", "flip", "ten-crop"])
def test_the_figure_of_a_single_crop_stands_apart(fertool, model, tta):
    code, out, err = fertool("eval", model, "--data", "synth:280", "--tta", tta, "--json")
    assert code == 0, err
    found = json.loads(out)
    alone = json.loads(fertool("eval", model, "--data", "synth:280", "--json")[1])
    assert found["tta"] == tta
    if tta == "none":
        assert found["single_crop"] is None
    else:
        assert found["single_crop"] == {
            key: alone[key] for key in ("n", "accuracy", "accuracy_ci95")
        }
        assert found["ece"] != alone["ece"]


def test_models_that_answer_about_different_images_are_not_compared(fertool, model, tmp_path):
    other = tmp_path / "six.pt"
    models.save_model(
        other, *models.create("micro_expnet", {"width_mult": 0.25}, InputSpec(), CLASSES[1:])
    )
    code, out, err = fertool("eval", model, other, "--data", "synth:280")
    assert (code, out) == (1, "")
    assert "six.pt: knows 24 of the images" in err
    code, out, _ = fertool("eval", model, model, "--data", "synth:280", "--split", "test", "--json")
    assert code == 0
    assert json.loads(out)["comparisons"][0]["mcnemar_p"] == 1


def test_views_vote_with_probabilities_even_when_they_round_to_zero():
    sure = np.array([[[0.0, 300.0]], [[0.0, 200.0]]], np.float32)
    voted = log_mean_softmax(sure)
    assert np.isfinite(voted).all()
    logits = torch.randn(3, 5, 7, dtype=torch.float64)
    np.testing.assert_allclose(
        log_mean_softmax(logits.numpy()), logits.softmax(2).mean(0).log().numpy()
    )


def test_json_has_the_same_keys_for_one_file_and_for_many(fertool, tmp_path, model):
    one, two = (
        json.loads(fertool("eval", *files, "--data", "synth:280", "--json")[1])
        for files in ((model,), (model, model))
    )
    assert set(two) == {"results", "comparisons"} <= set(one)
    assert one["comparisons"] == []
    assert one["results"] == two["results"][:1]
    assert {key: one[key] for key in one["results"][0]} == one["results"][0]


def test_corruptions_are_measured_drawn_and_reported(fertool, model, tmp_path):
    report, picture, page = (tmp_path / name for name in ("e.json", "c.png", "page.html"))
    own = ("--data", "synth:140", "--split", "train", "--corruptions", "jpeg,noise")
    code, out, err = fertool("eval", model, *own, "--plot", picture, "-o", report)
    assert code == 0, err
    assert "under corruptions, relative" in out
    assert "sigma, gray levels" in out
    assert picture.read_bytes().startswith(b"\x89PNG")
    found = json.loads(report.read_text())["corruptions"]
    assert list(found["by_name"]) == ["noise", "jpeg"]
    assert [level["strength"] for level in found["by_name"]["jpeg"]["levels"]] == [
        50,
        30,
        20,
        10,
        5,
    ]
    assert found["reference"] is None
    assert found["mean"]["levels"] == 10
    code, _, err = fertool("report", report, "-o", page)
    assert code == 0, err
    assert "Accuracy under corruptions" in page.read_text()
    again = json.loads(fertool("eval", model, *own, "--json")[1])
    assert again["corruptions"] == found


def test_the_json_without_corruptions_has_no_such_key(fertool, model):
    found = json.loads(fertool("eval", model, "--data", "synth:280", "--json")[1])
    assert "corruptions" not in found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--corruptions", "fog"], "unknown corruption 'fog'"),
        (["--corruptions", "all", "--detect"], "--corruptions with --detect"),
        (["--plot", "x.png"], "--plot x.png: there is nothing to draw"),
        (["--corruption-seed", 1], "--corruption-seed 1: nothing is corrupted"),
    ],
    ids=str,
)
def test_wrong_uses_of_corruptions_are_one_line_and_a_hint(fertool, model, arguments, message):
    code, out, err = fertool("eval", model, "--data", "synth:280", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert "\nhint: " in err
