"""Exit code 3: a limit that the user set is missed."""

import json

import pytest
from onnx_files import example_spec, write_onnx

CLASSES = ("angry", "happy", "neutral")
QUICK = ("--runs", 20, "--warmup", 1, "--starts", 0)


@pytest.fixture
def fast(tmp_path):
    return write_onnx(tmp_path / "fast.onnx", spec=example_spec())


@pytest.fixture
def slow(tmp_path):
    return write_onnx(tmp_path / "slow.onnx", spec=example_spec(), work=4)


def test_a_slower_file_ends_with_code_3_and_all_figures(fertool, tmp_path, fast, slow):
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    assert fertool("bench", fast, "-o", old, *QUICK)[0] == 0
    code, out, err = fertool("bench", slow, "--against", old, "-o", new, "--json", *QUICK)
    assert code == 3
    assert "error: " in err
    assert "% slower than" in err
    found = json.loads(out)
    assert found == json.loads(new.read_text(encoding="utf-8"))
    # The old file ran beside the new one, and is no result of this benchmark.
    assert [result["file"] for result in found["results"]] == [str(slow)]
    (ratio,) = found["against"]["comparisons"]
    assert (ratio["method"], ratio["exceeded"]) == ("rerun", True)
    code, table, _ = fertool("bench", slow, "--against", old, *QUICK)
    assert code == 3
    assert "too slow" in table


def test_a_faster_file_passes_also_by_stored_times(fertool, tmp_path, fast, slow):
    old = tmp_path / "old.json"
    assert fertool("bench", slow, "-o", old, *QUICK)[0] == 0
    assert fertool("bench", fast, "--against", old, *QUICK)[0] == 0
    code, _, err = fertool("bench", fast, "--against", old, "--runs", 5)
    assert code == 2
    assert "--against with --runs 5: too few" in err
    slow.unlink()
    code, out, err = fertool("bench", fast, "--against", old, *QUICK, "--json")
    assert code == 0
    assert "times of two runs are compared" in err
    (ratio,) = json.loads(out)["against"]["comparisons"]
    assert (ratio["method"], ratio["exceeded"]) == ("stored", False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--max-regression", "5%"), "--max-regression 5% without --against"),
        (("--batch-size", "0"), "--batch-size 0: must be 1 or more"),
        (("--batch-size", "1,x"), "--batch-size 1,x: not numbers"),
        (("--runtime", "onnx"), "unknown --runtime 'onnx'"),
    ],
)
def test_wrong_options_are_usage_errors(fertool, fast, options, message):
    code, _, err = fertool("bench", fast, *options)
    assert code == 2
    assert message in err


@pytest.fixture
def angry_faces(tmp_path):
    path = tmp_path / "faces.csv"
    rows = []
    for number in range(60):
        face = " ".join([str(100 + number)] * 2304)
        rows.append(f"0,{face},PublicTest")
    path.write_text("\n".join(["emotion,pixels,Usage", *rows]) + "\n", encoding="utf-8")
    return path


def test_a_worse_file_ends_with_code_3(fertool, tmp_path, angry_faces):
    # The same graph, whose first output is called otherwise.
    others = ("happy", "angry", "neutral")
    right = write_onnx(tmp_path / "right.onnx", size=48, spec=example_spec(48))
    wrong = write_onnx(tmp_path / "wrong.onnx", size=48, spec=example_spec(48, classes=others))
    data = ("--data", angry_faces, "--json")
    code, out, err = fertool("eval", wrong, *data, "--not-worse-than", right, "--points", 50)
    assert code == 3
    assert "wrong.onnx: -100.00 points against" in err
    found = json.loads(out)
    assert [entry["file"] for entry in found["results"]] == [str(right), str(wrong)]
    assert found["limit"]["exceeded"] == [str(wrong)]
    code, out, _ = fertool("eval", right, wrong, *data, "--not-worse-than", wrong)
    assert code == 0
    assert json.loads(out)["limit"]["exceeded"] == []
    assert "limit" not in json.loads(fertool("eval", right, *data)[1])
