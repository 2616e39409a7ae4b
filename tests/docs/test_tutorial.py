"""The tutorial from photographs to a page is carried out as a reader would."""

import re
import runpy
import shlex
from pathlib import Path

import numpy as np
import pytest

import fertool
from fertool.cli.app import run

PAGE = Path(__file__).parents[2] / "docs" / "tutorial" / "photographs.md"
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
PARTS = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FERTOOL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    # In place of the download: what is tested here is not the page in a browser.
    runtime = tmp_path / "onnxruntime-web-1.30.0.tgz"
    runtime.mkdir()
    for name in PARTS:
        (runtime / name).write_text("const a=1;export{a as Tensor};")
    return tmp_path


def test_photographs_of_own_classes_end_in_a_page(folder):
    for kind, title, text in BLOCK.findall(PAGE.read_text()):
        if kind == "python":
            # Half of the photographs, for time.
            (folder / title).write_text(text.replace("draw_faces(700,", "draw_faces(350,"))
        elif kind == "sh":
            for line in text.splitlines():
                carry_out(line)

    model = fertool.load("int8.pt")
    assert model.classes == ("bored", "confused", "engaged")
    assert model.input.channels == 3
    assert "data-crop" not in [step.command for step in model.lineage]
    faces = fertool.open_data("crops").fitted_to(model)
    held_out = faces.split("test")
    photographs = held_out.images.permute(0, 2, 3, 1).numpy()
    answers = model.predict(photographs).argmax(axis=1)
    accuracy = np.mean(answers == held_out.labels.numpy())
    # Chance is a third; the page tells 81 % of twice as many.
    assert accuracy > 0.55

    rows = Path("predictions.csv").read_text().splitlines()
    assert rows[0].endswith("p_bored,p_confused,p_engaged")
    engaged = [row for row in rows[1:] if ",engaged," in row]
    assert len(rows) > 45
    assert len(engaged) > len(rows) / 2
    page = Path("app.html").read_text()
    assert "Attention" in page
    assert "confused" in page


def carry_out(line):
    """Run a command of the page."""
    program, *words = shlex.split(line)
    if program == "python":
        runpy.run_path(words[0])
    elif program == "fertool":
        assert run(words) == 0, line
    else:
        assert line.startswith("npm pack"), line
