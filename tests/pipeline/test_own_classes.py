"""Three classes of 224 px color photographs, drawn, from folders to an INT8 file."""

import json

import numpy as np
import pytest
from PIL import Image

import fertool
from fertool.cli.app import run
from fertool.data.synth import draw_faces

CLASSES = {"bored": (255, 120, 120), "confused": (120, 255, 120), "engaged": (120, 120, 255)}


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    monkeypatch.setenv("FERTOOL_CACHE", str(tmp_path / "cache"))
    faces, _ = draw_faces(60, seed=0, size=224)
    for k, face in enumerate(faces[:, 0]):
        name = list(CLASSES)[k % 3]
        tinted = face[..., None] * (np.array(CLASSES[name]) / 255)
        (tmp_path / "faces" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(tinted.astype(np.uint8)).save(tmp_path / "faces" / name / f"{k:02} é.jpg")
    (tmp_path / "faces" / "bored" / "broken.jpg").write_text("hello")
    return tmp_path / "faces"


def test_a_folder_of_color_photographs_becomes_an_int8_file(photographs, tmp_path, capsys):
    def succeeds(*words):
        assert run([*words, "--data", str(photographs)]) == 0

    teacher, pruned, int8, file = (
        str(tmp_path / name) for name in ("t.pt", "p.pt", "q.pt", "q.onnx")
    )
    shape = ("--input-size", "224", "--input-channels", "3", "--normalize", "imagenet")
    small = ("--arch", "nano_resnet", "--arch-arg", "width_mult=0.25", "--batch-size", "12")
    groups = ("--classes", "engaged,other=bored+confused", "--skip-unreadable")
    split = ("--split-seed", "7", "--test-fraction", "0.2")
    succeeds("train-teacher", "-o", teacher, *shape, *small, *groups, *split, "--epochs", "2")
    lighter = ("--target-flops", "0.7", "--round-to", "1", "--epochs", "1", "--no-bench")
    succeeds("prune", teacher, "-o", pruned, *lighter)
    succeeds("quantize", pruned, "-o", int8, "--calibration-images", "16", "--no-bench")
    succeeds("export", int8, "-o", file)
    told = capsys.readouterr().err
    assert "1 unreadable train images skipped: bored/broken.jpg (not a readable image)" in told

    model = fertool.load(int8)
    assert model.classes == ("engaged", "other")
    assert (model.input.size, model.input.channels) == (224, 3)
    assert model.input.mean == (0.485, 0.456, 0.406)
    options = model.lineage[0].options
    assert options["classes"] == "engaged,other=bored+confused"
    # The held-out images are those of the training, whose seed the lineage has.
    succeeds("eval", teacher, int8, file, "--split", "test", "--json")
    results = json.loads(capsys.readouterr().out)["results"]
    assert [result["n"] for result in results] == [12, 12, 12]
    assert len(results[0]["accuracy_ci95"]) == 2
    source = fertool.open_data(photographs)
    train, test = (source.fitted_to(model).split(name).images for name in ("train", "test"))
    pixels = {image.numpy().tobytes() for image in test}
    assert not pixels & {image.numpy().tobytes() for image in train}
