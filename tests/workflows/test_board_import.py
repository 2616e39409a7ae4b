"""What a board printed becomes rows of a benchmark, and is compared with nothing else."""

import json
from pathlib import Path

import pytest

import fertool
from fertool.results import Environment

INT8 = Path(__file__).parents[2] / "models" / "nano_resnet.int8.onnx"
FIGURES = {"params": 100, "macs": 1000, "digest": "0" * 64, "sha256": "1" * 64, "dynamic": False}
FIGURES |= {"images": "images_0", "logits": "logits_0", "labels": "labels_0", "split": "val"}
FIGURES |= {"template": [[0.5, 0.5]] * 5, "peak_rss_bytes": 50_000_000}


def entry(file, seconds, quantized, difference):
    # A little uneven, as times are.
    samples = [seconds * (1 + 0.01 * (number % 7)) for number in range(200)]
    agreement = {"n": 64, "top1_agreement": 1.0, "max_probability_diff": difference, "correct": 40}
    times = {"samples_s": samples, "load_s": [0.02, 0.03], "first_pass_s": [0.004, 0.005]}
    own = {"file": file, "quantized": quantized, "size_bytes": 1000, "agreement": agreement}
    return {**FIGURES, **times, **own}


def result_of(machine, **changes):
    files = [entry("float.onnx", 0.004, False, 3e-7), entry("int8.onnx", 0.001, True, 0.0042)]
    result = {"board": 1, "home": {"processor": "home"}, "environment": machine}
    result |= {"files": files, "failed": [], "threads": 1, "warmup": 5, "block": 10}
    return {**result, "celsius_before": 48.3, "celsius_after": 61.0, **changes}


def pi(name="Raspberry Pi 5 Model B Rev 1.0"):
    versions = {"onnxruntime": "1.32.0"}
    sets = ["asimd", "asimddp"]
    system = {"system": "Linux aarch64", "python": "3.11.2", "cores": 4}
    return {"processor": name, "versions": versions, "instruction_sets": sets, **system}


@pytest.fixture
def pi5(tmp_path):
    path = tmp_path / "pi5.json"
    path.write_text(json.dumps(result_of(pi())))
    return path


def test_rows_of_a_board_stand_in_the_table(fertool, pi5):
    code, out, err = fertool("bench", "--import", pi5)
    assert code == 0, err
    words = " ".join(out.split())
    assert "pi5/float.onnx" in words
    assert "Raspberry Pi 5 Model B Rev 1.0, Linux aarch64; with dot product" in words
    assert "48 to 61 °C; 64 test images" in words
    assert "0.0042" in words
    assert "4.00 x" in words


def test_machines_are_never_compared(pi5, tmp_path, fertool):
    pi4 = tmp_path / "pi4.json"
    pi4.write_text(json.dumps(result_of(pi("Raspberry Pi 4 Model B Rev 1.4"))))
    code, out, err = fertool("bench", "--import", pi5, "--import", pi4, "--import", pi4, "--json")
    assert code == 0, err
    measured = json.loads(out)
    pairs = [(pair["baseline"], pair["candidate"]) for pair in measured["comparisons"]]
    assert [(Path(a).parent.name, Path(b).parent.name) for a, b in pairs] == [
        ("pi5", "pi5"),
        ("pi4", "pi4"),
    ]
    assert [run["source"] for run in measured["imports"]] == [str(pi5), str(pi4)]
    assert measured["environment"]["processor"].startswith("Raspberry Pi 5")
    first = measured["results"][0]
    assert first["accuracy"] == 40 / 64
    assert first["agreement"]["n"] == 64
    assert first["load_s"]["samples"] == [0.02, 0.03]


def test_a_run_on_this_machine_is_not_paired_with_files_measured_now(tmp_path):
    options = {"runs": 20, "warmup": 1, "starts": 0}
    here = fertool.benchmark(INT8, **options)
    path = tmp_path / "earlier.json"
    path.write_text(json.dumps(result_of(json.loads(json.dumps(_plain(here.environment))))))
    measured = fertool.benchmark(INT8, imports=(str(path),), **options)
    assert len(measured.results) == 3
    (comparison,) = measured.comparisons
    assert Path(comparison.baseline).name == "float.onnx"
    assert measured.environment == here.environment


def _plain(environment: Environment):
    return {name: getattr(environment, name) for name in ("processor", "system", "cores")}


def test_the_report_shows_a_board(fertool, pi5, tmp_path):
    bench, page = tmp_path / "bench.json", tmp_path / "page.md"
    assert fertool("bench", "--import", pi5, "-o", bench)[0] == 0
    assert fertool("report", bench, "-o", page)[0] == 0
    text = page.read_text()
    assert "pi5/int8.onnx" in text
    assert "Raspberry Pi 5" in text
    assert "100.0 %<br>0.0042" in text


def test_files_that_did_not_run_are_told(fertool, tmp_path):
    path = tmp_path / "pi.json"
    failed = [{"file": "new.onnx", "error": "exit code -4"}]
    path.write_text(json.dumps(result_of(pi(), failed=failed)))
    code, _, err = fertool("bench", "--import", path)
    assert code == 0
    assert "new.onnx did not run there: exit code -4" in err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"board": 2}, "`board` is 2, which is not known"),
        ({"files": []}, "no file ran"),
        ({"block": 7}, "not the same number of whole blocks"),
        ({"environment": None}, "`environment` is null, expected map"),
    ],
)
def test_other_json_is_refused(fertool, tmp_path, changes, message):
    path = tmp_path / "pi.json"
    path.write_text(json.dumps(result_of(pi(), **changes)))
    code, out, err = fertool("bench", "--import", path)
    assert (code, out) == (1, "")
    assert message in " ".join(err.split())
    assert "python run.py > result.json" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--json",), "no file to measure"),
        (("--import", "pi5.json", "--data", "synth:70"), "--data with results of boards alone"),
    ],
)
def test_wrong_uses_are_told(fertool, pi5, monkeypatch, arguments, message):
    monkeypatch.chdir(pi5.parent)
    code, out, err = fertool("bench", *arguments)
    assert (code, out) == (2, "")
    assert message in err
