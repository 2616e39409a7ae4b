"""predict, data crop and eval --detect at the command line: what is printed, and the exit codes."""

import io
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models" / "nano_resnet.3bit.onnx"
PICTURES = ROOT / "tests" / "faces" / "pictures"


def test_lines_for_faces_and_for_none(fertool):
    code, out, err = fertool("predict", MODEL, PICTURES)
    assert code == 0
    lines = out.splitlines()
    assert "happy" in lines[0]
    assert lines[1].endswith("chelsea.jpg  no face")
    assert "3 pictures, 1 face, 2 without a face" in err


def test_an_unreadable_picture_is_named_and_the_rest_done(fertool, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"nothing")
    target = tmp_path / "out.jsonl"
    code, out, err = fertool(
        "predict", MODEL, tmp_path / "bad.jpg", tmp_path / "none.png", PICTURES, "-o", target
    )
    assert code == 1
    assert out == ""
    assert "bad.jpg: not a readable image" in err
    assert "none.png: no such file" in err
    assert "error: 2 of 5 could not be read" in err
    assert "Traceback" not in err
    assert len(target.read_text().splitlines()) == 5


def test_json_is_one_object(fertool):
    code, out, _ = fertool("predict", MODEL, PICTURES / "astronaut.jpg", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["detector"] == "yunet"
    assert found["template"] == "fer2013"
    assert found["pictures"][0]["faces"][0]["label"] == "happy"


def test_a_name_that_is_not_utf8_becomes_json(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(PICTURES / "astronaut.jpg", bytes(photos) + b"/caf\xe9.jpg")
    for suffix in ("jsonl", "json", "csv"):
        target = tmp_path / f"out.{suffix}"
        command = [sys.executable, "-m", "fertool", "predict", MODEL, photos, "-o", target]
        done = subprocess.run(command, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        text = target.read_text()
        assert "caf\\udce9" in text
        if suffix == "json":
            assert json.loads(text)["summary"]["faces"] == 1


def test_a_picture_from_stdin(fertool, monkeypatch):
    class Stdin:
        buffer = io.BytesIO((PICTURES / "astronaut.jpg").read_bytes())

    monkeypatch.setattr(sys, "stdin", Stdin)
    code, out, _ = fertool("predict", MODEL, "-")
    assert code == 0
    assert out.startswith("stdin  face 0 at 133,48")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "out.txt"], "results are written as .jsonl"),
        (["--min-score", "7"], "--min-score"),
        (["--detector", "haar"], "haar"),
        (["--draw", "out.png"], "is one file, for 3 pictures"),
    ],
)
def test_wrong_usage_is_told_before_any_work(fertool, arguments, message):
    code, out, err = fertool("predict", MODEL, PICTURES, *arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert out == ""


def test_a_file_that_is_no_model(fertool, tmp_path):
    code, _, err = fertool("predict", PICTURES / "astronaut.jpg", PICTURES)
    assert code == 1
    assert "error:" in err


def test_a_full_disk_is_told(fertool, tmp_path):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full")
    target = tmp_path / "out.csv"
    target.symlink_to(full)
    code, _, err = fertool("predict", MODEL, PICTURES, "-o", target)
    assert code == 1
    assert "out.csv" in err
    assert "Traceback" not in err


def test_crops_of_a_folder(fertool, tmp_path):
    target = tmp_path / "crops"
    code, out, err = fertool("data", "crop", PICTURES, "-o", target)
    assert code == 0
    assert out.strip() == str(target)
    assert "2 without a face" in err
    assert [path.name for path in target.iterdir()] == ["astronaut.png"]
    code, out, _ = fertool("data", "crop", PICTURES, "-o", target, "--json")
    assert json.loads(out)["crops"] == 1


def test_photographs_are_evaluated(fertool, tmp_path):
    for name, picture in (("happy", "astronaut.jpg"), ("neutral", "coffee.jpg")):
        (tmp_path / name).mkdir()
        shutil.copy(PICTURES / picture, tmp_path / name)
    code, out, err = fertool("eval", MODEL, "--data", tmp_path, "--detect")
    assert code == 0
    assert "1, all wrong" in out
    assert "no split folders" in err


def test_ctrl_c_in_a_video_leaves_whole_files(tmp_path):
    av = pytest.importorskip("av")
    clip = tmp_path / "clip.mkv"
    with av.open(clip, "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for _ in range(3000):
            gray = np.full((240, 320, 3), 90, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(gray, format="rgb24")))
        container.mux(stream.encode(None))
    results, drawn = tmp_path / "out.jsonl", tmp_path / "drawn.mp4"
    command = [
        sys.executable,
        "-m",
        "fertool",
        "predict",
        MODEL,
        clip,
        "-o",
        results,
        "--draw",
        drawn,
    ]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in the background of a shell, Ctrl-C is ignored by all they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not (results.exists() and results.stat().st_size > 2000):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert "Traceback" not in err
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert 0 < len(lines) < 3000
    with av.open(drawn) as container:
        assert abs(len(list(container.decode(video=0))) - len(lines)) <= 1
