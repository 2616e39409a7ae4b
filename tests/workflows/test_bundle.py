"""The folder for a board: it runs without fertool, and it is there whole or not at all."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fertool
from fertool.artifact import atomic_folder
from fertool.results import BoardResult
from fertool.strict_json import read_json

MODELS = Path(__file__).parents[2] / "models"
INT8 = MODELS / "nano_resnet.int8.onnx"
# In place of an environment without them: neither is found.
WITHOUT_FERTOOL = """
import runpy, sys
sys.modules.update(dict.fromkeys(("fertool", "torch", "cv2")))
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """A bundle of a float model and an INT8 file, with labels."""
    folder = tmp_path_factory.mktemp("bundle")
    data = fertool.open_data("synth:140")
    models = [MODELS / "nano_resnet.pt", INT8]
    fertool.export_bundle(models, folder / "board", data=data, simplify=False, bundle_images=5)
    return folder / "board"


def run_on_board(folder, *arguments, program="run.py"):
    words = [sys.executable, "-c", WITHOUT_FERTOOL, str(folder / program), *arguments]
    return subprocess.run(words, check=True, capture_output=True, text=True, cwd="/").stdout


def test_the_folder_has_everything(board):
    assert {file.name for file in board.iterdir()} == {
        *("run.py", "timing.py", "start.py", "machine.py", "camera.py", "README.md", "bundle.json"),
        *("cases.npz", "yunet.onnx", "YUNET_LICENSE", "nano_resnet.onnx", INT8.name),
    }
    readme = (board / "README.md").read_text()
    assert "$" not in readme
    assert "5 test images (validation images of the data set)" in readme
    assert (board / INT8.name).read_bytes() == INT8.read_bytes()


@pytest.fixture(scope="module")
def printed(board):
    return run_on_board(board, "--runs", "120", "--warmup", "1", "--starts", "2")


def test_a_board_prints_what_it_measured(printed):
    result = read_json(printed, BoardResult, "board", "", "")
    assert [entry.file for entry in result.files] == ["nano_resnet.onnx", INT8.name]
    assert result.failed == ()
    assert result.block == 6
    for entry in result.files:
        assert len(entry.samples_s) == 120
        assert len(entry.load_s) == len(entry.first_pass_s) == 2
        assert entry.agreement.n == 5
        assert entry.agreement.top1_agreement == 1
        assert entry.agreement.max_probability_diff < 1e-6
        assert entry.agreement.correct is not None
    assert result.environment.processor == result.home.processor
    assert result.environment.versions["onnxruntime"]


def test_a_file_that_does_not_run_costs_only_its_own_row(board, tmp_path):
    copied = tmp_path / "copied"
    copied.mkdir()
    for file in board.iterdir():
        (copied / file.name).write_bytes(file.read_bytes() if file.is_file() else b"")
    (copied / "nano_resnet.onnx").write_bytes(b"half")
    result = json.loads(run_on_board(copied, "--runs", "1", "--warmup", "0", "--starts", "1"))
    assert [entry["file"] for entry in result["files"]] == [INT8.name]
    assert [entry["file"] for entry in result["failed"]] == ["nano_resnet.onnx"]
    # What ONNX Runtime says, and no path of a user's Python.
    assert "Protobuf parsing failed" in result["failed"][0]["error"]
    assert sys.executable not in result["failed"][0]["error"]


@pytest.mark.parametrize("option", ["--threads", "--runs", "--starts"])
def test_a_board_refuses_what_measures_nothing(board, option):
    words = [sys.executable, str(board / "run.py"), option, "0"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"argument {option}: invalid positive value: '0'" in done.stderr


def test_images_are_taken_from_the_whole_split(board):
    cases = np.load(board / "cases.npz")
    assert sorted(cases.files) == ["images_0", "labels_0", "logits_0", "logits_1"]
    assert cases["images_0"].shape == (5, 1, 48, 48)
    assert len(set(cases["labels_0"].tolist())) > 1


def write_clip(folder):
    """Write three colored frames, brighter to the right, as a video."""
    av = pytest.importorskip("av")
    clip = folder / "clip.mp4"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for _ in range(3):
            pixels = np.linspace(0, 255, 96)[:, None] * [0.9, 0.5, 0.2]
            pixels = np.broadcast_to(pixels.astype(np.uint8), (64, 96, 3))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return clip


def test_the_camera_program_labels_a_video(board, tmp_path):
    clip = write_clip(tmp_path)
    text = run_on_board(board, INT8.name, "--source", str(clip), program="camera.py")
    lines = text.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("frame 0  ")
    assert lines[0].endswith(" ms")


def test_the_programs_need_little(board):
    assert len((board / "run.py").read_text().splitlines()) < 100
    for program in board.glob("*.py"):
        # Python 3.8 is the oldest that ONNX Runtime 1.17.3 runs on.
        words = [sys.executable, "-m", "ruff", "check", "--target-version", "py38", program]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_a_bundle_replaces_a_bundle_but_no_other_files(board, fertool, tmp_path):
    folder = tmp_path / "board"
    command = ("export", INT8, "-o", folder, "--bundle", "--bundle-images", "2")
    assert fertool(*command)[:2] == (0, f"{folder}\n")
    (folder / "__pycache__").mkdir()
    assert fertool(*command)[0] == 0
    (folder / "result.json").write_text("{}")
    code, out, err = fertool(*command)
    assert (code, out) == (1, "")
    assert "holds other files (result.json)" in err
    assert (folder / "bundle.json").exists()


def test_a_full_disk_leaves_the_old_bundle(fertool, tmp_path, monkeypatch):
    folder = tmp_path / "board"
    command = ("export", INT8, "-o", folder, "--bundle", "--bundle-images", "2")
    assert fertool(*command)[0] == 0
    before = {file.name: file.read_bytes() for file in folder.iterdir()}

    def fail(path, content):
        if path.name == "run.py":
            raise OSError(28, "No space left on device")
        path.write_bytes(content)

    monkeypatch.setattr(atomic_folder, "_write_synced", fail)
    code, _, err = fertool(*command)
    assert code == 1
    assert "No space left" in err
    assert [entry.name for entry in tmp_path.iterdir()] == ["board"]
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("other.onnx",), "invalid choice: 'other.onnx'"),
        ((INT8.name, "--source", "missing.mp4"), "missing.mp4: [Errno 2] No such file"),
    ],
)
def test_the_camera_program_tells_wrong_uses(board, arguments, message):
    pytest.importorskip("av")
    words = [sys.executable, "-c", WITHOUT_FERTOOL, str(board / "camera.py"), *arguments]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    """A bundle of files that resize crops, gray ones and colored ones, one with a softmax."""
    folder = tmp_path_factory.mktemp("crops")
    model = fertool.load(MODELS / "nano_resnet.pt")
    model = replace(model, spec=replace(model.spec, temperature=1.7))
    colored, gray = folder / "colored.onnx", folder / "gray.onnx"
    fertool.export(model, colored, with_preprocessing=True, with_softmax=True)
    fertool.export(model, gray, with_preprocessing=True, crop_layout="nchw", crop_channels=1)
    fertool.export_bundle([colored, gray], folder / "board", bundle_images=3)
    return folder / "board"


def test_files_that_resize_crops_run_on_a_board(crops):
    cases = np.load(crops / "cases.npz")
    assert cases["images_0"].shape == (3, 96, 96, 3)
    assert cases["images_1"].shape == (3, 1, 96, 96)
    printed = run_on_board(crops, "--runs", "20", "--warmup", "1", "--starts", "1")
    result = read_json(printed, BoardResult, "board", "", "")
    assert result.failed == ()
    for entry in result.files:
        assert entry.agreement.top1_agreement == 1
        assert entry.agreement.max_probability_diff < 1e-6
    files = json.loads((crops / "bundle.json").read_text())["files"]
    assert [(file["layout"], file["output"]) for file in files] == [
        ("NHWC", "probabilities"),
        ("NCHW", "logits"),
    ]


def test_the_camera_program_gives_files_that_resize_crops_what_they_take(crops, tmp_path):
    clip = write_clip(tmp_path)
    names, probabilities = [], []
    for file in ("colored.onnx", "gray.onnx"):
        text = run_on_board(crops, file, "--source", str(clip), program="camera.py")
        words = [line.split() for line in text.splitlines()]
        names.append([found[2] for found in words])
        probabilities.append([float(found[3].rstrip("%")) for found in words])
    assert len(names[0]) == 3
    assert names[0] == names[1]
    # Pillow's gray of the board is rounded, that of the graph is not.
    assert probabilities[0] == pytest.approx(probabilities[1], abs=2)


def test_json_tells_what_the_folder_holds(fertool, tmp_path):
    folder = tmp_path / "board"
    command = ("export", INT8, "-o", folder, "--bundle", "--bundle-images", "2", "--json")
    code, out, err = fertool(*command)
    assert code == 0, err
    printed = json.loads(out)
    assert printed.pop("folder") == str(folder)
    assert printed == json.loads((folder / "bundle.json").read_text())
    assert printed["files"][0]["labels"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((INT8, INT8, "-o", "a.onnx"), "2 models for one file"),
        ((INT8, "-o", "a.onnx", "--bundle-images", "3"), "--bundle-images 3 without --bundle"),
        ((INT8, INT8, "--bundle"), "another file of the bundle has the name nano_resnet.int8.onnx"),
        ((INT8, "--bundle", "-o", "a.onnx"), "a bundle is a folder"),
        ((MODELS / "nano_resnet.pt", "--bundle", "--format", "tflite"), "and tflite files do not"),
        ((INT8, "--bundle", "--bundle-images", "0"), "bundle-images"),
    ],
)
def test_wrong_uses_are_told(fertool, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = fertool("export", *arguments)
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())
    assert "hint:" in err
    assert list(tmp_path.iterdir()) == []
