"""`export` as a user meets it: forms of a file, capitals in its name,
and what `eval` makes of it afterwards.
"""

import json

import onnx
import pytest

from fertool import models
from fertool.spec import InputSpec

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


@pytest.fixture(scope="module")
def integers(tmp_path_factory):
    from fertool.cli.app import run

    folder = tmp_path_factory.mktemp("models")
    spec, module = models.create("micro_expnet", {"width_mult": 0.5}, InputSpec(), CLASSES)
    models.save_model(folder / "float.pt", spec, module)
    command = [
        "quantize",
        folder / "float.pt",
        "-o",
        folder / "int8.pt",
        "--data",
        "synth:140",
        "--no-bench",
    ]
    assert run([str(word) for word in command]) == 0
    return folder / "int8.pt"


def test_plain_files_have_nothing_but_standard_operators_and_packed_ones_are_smaller(
    fertool, integers, tmp_path
):
    sizes, kinds = {}, {}
    for form in ("plain", "packed"):
        path = tmp_path / f"{form}.onnx"
        code, _, err = fertool("export", integers, "-o", path, "--no-simplify", f"--{form}")
        assert code == 0, err
        sizes[form] = path.stat().st_size
        kinds[form] = {node.op_type for node in onnx.load(path).graph.node}
    # A Cast makes the scale of a hidden linear layer, for OpenCV.
    assert not {"BitShift", "Split", "Pad", "Concat"} & kinds["plain"]
    assert "BitShift" in kinds["packed"]
    assert sizes["packed"] < sizes["plain"]


def test_packed_weights_need_their_operators(fertool, integers, tmp_path):
    code, out, err = fertool(
        "export", integers, "-o", tmp_path / "m.onnx", "--packed", "--opset", "17"
    )
    assert (code, out) == (2, "")
    assert "--packed with --opset 17" in err
    assert list(tmp_path.iterdir()) == []


def test_capitals_in_a_suffix_are_as_good(fertool, integers, tmp_path):
    path = tmp_path / "MODEL.ONNX"
    assert fertool("export", integers, "-o", path, "--no-simplify")[0] == 0
    assert json.loads(fertool("show", path, "--json")[1])["arch"] == "micro_expnet"
    code, out, err = fertool("eval", path, "--data", "synth:140", "--json")
    assert code == 0, err
    assert json.loads(out)["n"] > 0


def test_a_damaged_file_is_not_evaluated(fertool, integers, tmp_path):
    path = tmp_path / "m.onnx"
    assert fertool("export", integers, "-o", path, "--no-simplify")[0] == 0
    content = bytearray(path.read_bytes())
    for position in range(0, len(content), len(content) // 8):
        damaged = bytearray(content)
        damaged[position] ^= 4
        path.write_bytes(damaged)
        code, out, err = fertool("eval", path, "--data", "synth:70")
        assert (code, out) == (1, ""), position
        assert err.count("error:") == 1
