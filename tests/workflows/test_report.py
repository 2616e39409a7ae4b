"""The page that `report` makes of files: what is found by itself, and mistakes on images."""

import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from fertool import models
from fertool.artifact.header import read_spec
from fertool.data.pixels import to_input
from fertool.errors import UsageError
from fertool.results import Epoch, History
from fertool.spec import ProvenanceStep
from fertool.workflows.data import open_data
from fertool.workflows.model import load
from fertool.workflows.outputs import history_path
from fertool.workflows.report import make_report

pytest.importorskip("matplotlib")
TILE = re.compile(r"<li><figure>.*?</figure></li>")
PNG = re.compile(r'src="data:image/png;base64,([^"]+)"')


class Notes:
    """A reporter that keeps what it is told."""

    def __init__(self):
        self.lines = []

    def note(self, message):
        self.lines.append(message)

    warn = note

    def progress(self, title, *, brief=False):
        from fertool.reporter import SILENT

        return SILENT.progress(title, brief=brief)


@pytest.fixture(scope="module")
def data():
    return open_data("synth:400")


@pytest.fixture(scope="module")
def pair(small, data, tmp_path_factory):
    """A teacher and a student that was distilled from it and predicts otherwise now and then."""
    folder = tmp_path_factory.mktemp("pair")
    teacher, student = folder / "teacher.pt", folder / "student.pt"
    model = load(small)
    images = data.fitted(model.input, model.classes).split("train")
    set_statistics(model, images)
    models.save_model(teacher, model.spec, model.module)
    torch.manual_seed(1)
    for parameter in model.module.parameters():
        parameter.data += 0.3 * parameter.abs().mean() * torch.randn_like(parameter)
    set_statistics(model, images)
    step = ProvenanceStep("distill", {}, {"teacher0": read_spec(teacher).digest})
    models.save_model(student, replace(model.spec, provenance=(step,)), model.module)
    return teacher, student


def set_statistics(model, images):
    """Fit batch normalization to the images: without it all logits would be about the same."""
    model.module.train()
    with torch.no_grad():
        for _ in range(30):
            model.module(to_input(images.images[:128], model.input))
    model.module.eval()


def write_history(model, accuracy=0.5):
    epochs = [
        Epoch(epoch=k + 1, train_loss=1.0, val_loss=1.0, val_accuracy=accuracy) for k in range(3)
    ]
    content = History(file=model.name, history=tuple(epochs)).as_dict()
    history_path(model).write_text(json.dumps(content))


def test_training_curves_of_a_model_and_its_teacher_are_found(pair, tmp_path):
    _, student = pair
    for model in pair:
        (tmp_path / model.name).write_bytes(model.read_bytes())
        write_history(tmp_path / model.name)
    # Of another training in the same folder.
    (tmp_path / "other.pt").write_bytes(b"no model")
    write_history(tmp_path / "other.pt")
    page = make_report([tmp_path / student.name])
    assert "Loss and validation accuracy: teacher, student<" in page
    assert "Training" not in make_report([student])
    # Named as well, each is drawn once.
    named = make_report([tmp_path / "student.pt", history_path(tmp_path / "student.pt")])
    assert "Loss and validation accuracy: student, teacher<" in named


def test_a_damaged_history_is_told_and_left_out(pair, tmp_path):
    _, student = pair
    (tmp_path / "student.pt").write_bytes(student.read_bytes())
    history_path(tmp_path / "student.pt").write_text("{")
    reporter = Notes()
    page = make_report([tmp_path / "student.pt"], reporter=reporter)
    assert "Model card: student.pt" in page
    assert len(reporter.lines) == 1
    assert reporter.lines[0].startswith("training curves left out: ")


def answers(path, images):
    model = load(path)
    return model.predict(images.images.numpy()[:, 0])


def test_mistakes_are_counted_and_the_surest_come_first(pair, data):
    page = make_report(list(pair), data, mistakes=3)
    model = load(pair[0])
    images = data.fitted(model.input, model.classes).split("val")
    labels = images.labels.numpy()
    before, after = answers(pair[0], images), answers(pair[1], images)
    right_before, right_after = before.argmax(1) == labels, after.argmax(1) == labels
    n = len(labels)
    kinds = {
        "Right before, wrong after": right_before & ~right_after,
        "Wrong before, right after": ~right_before & right_after,
        "Wrong before and after": ~right_before & ~right_after,
    }
    for title, of_kind in kinds.items():
        if of_kind.any():
            assert f"{title}: {of_kind.sum()} of {n}" in page
    both = np.where(kinds["Wrong before and after"], np.minimum(before.max(1), after.max(1)), 0)
    first = TILE.findall(page[page.index("Wrong before and after") :].replace("\n", ""))[0]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(PNG.findall(first)[0]))))
    (shown,) = np.flatnonzero((images.images[:, 0].numpy() == pixels).all((1, 2)))
    # In float32 two may be equally sure.
    assert both[shown] >= both.max() - 1e-6
    assert f"labeled {model.classes[labels[shown]]}" in first
    assert (
        f"after: {model.classes[after[shown].argmax()]} {100 * after[shown].max():.1f} %" in first
    )
    # The paired test comes with the images, and so does the verdict.
    assert "points of accuracy, " in page
    assert f"(val, n {n}, p " in page


def test_without_data_or_with_no_mistakes_the_page_holds_no_image(pair, data):
    assert not PNG.search(make_report(list(pair)))
    page = make_report(list(pair), data, mistakes=0)
    assert not PNG.search(page)
    assert "McNemar p" in page
    card = make_report(list(pair), data, as_markdown=True)
    assert "base64" not in card
    assert "Surest mistakes" not in card
    assert "McNemar p" in card


def test_the_same_files_give_the_same_bytes(pair, data):
    first = make_report(list(pair), data, mistakes=2, grad_cam=True)
    assert first == make_report(list(pair), data, mistakes=2, grad_cam=True)


def test_grad_cam_of_both_models_stands_beside_each_image(pair, data):
    page = make_report(list(pair), data, mistakes=2, grad_cam=True)
    tiles = TILE.findall(page.replace("\n", ""))
    assert tiles
    for tile in tiles:
        image, before, after = PNG.findall(tile)
        assert before != after
        assert Image.open(io.BytesIO(base64.b64decode(image))).mode == "L"
        assert Image.open(io.BytesIO(base64.b64decode(before))).mode == "RGB"
        # Read out once, not three times.
        assert tile.count('alt=""') == 2
    assert "where teacher.pt and student.pt look" in page


def test_one_model_has_mistakes_but_no_comparison(pair, data):
    page = make_report([pair[0]], data, mistakes=2)
    assert "predicted: " in page
    assert "before: " not in page
    assert "McNemar" not in page


def test_what_cannot_be_shown_is_refused(pair, data, tmp_path):
    write_history(tmp_path / "teacher.pt")
    with pytest.raises(UsageError, match="``data`` without a model"):
        make_report([history_path(tmp_path / "teacher.pt")], data)
    with pytest.raises(UsageError, match="``grad_cam=True`` without ``data``"):
        make_report(list(pair), grad_cam=True)
