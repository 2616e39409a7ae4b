"""The seven commands in sequence on drawn faces, read back through what they print."""

import json

import pytest
import torch

from fertool import models

DATA = ("--data", "synth:420")
SMALL = ("--arch-arg", "width_mult=0.25")


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Every stage made once; returns the folder and what the commands printed."""
    from contextlib import redirect_stderr, redirect_stdout
    from io import StringIO

    from fertool.cli.app import run

    folder, printed = tmp_path_factory.mktemp("chain"), {}

    def step(name, *arguments):
        with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
            code = run([str(argument) for argument in arguments])
        assert code == 0, err.getvalue()
        printed[name] = out.getvalue()

    f = {
        name: folder / name
        for name in ("t.pt", "s.pt", "p.pt", "h.json", "q.pt", "s.onnx", "q.onnx", "b.json")
    }
    step(
        "train-teacher",
        "train-teacher",
        "-o",
        f["t.pt"],
        *DATA,
        "--arch",
        "resnet18",
        *SMALL,
        "--epochs",
        1,
    )
    step("distill", "distill", f["t.pt"], "-o", f["s.pt"], *DATA, *SMALL, "--epochs", 2, "--json")
    step(
        "prune",
        "prune",
        f["s.pt"],
        "-o",
        f["p.pt"],
        *DATA,
        "--target-flops",
        0.5,
        "--round-to",
        8,
        "--epochs",
        1,
    )
    step("hessian", "hessian-sensitivity", f["p.pt"], "-o", f["h.json"], *DATA, "--trace-images", 7)
    step("quantize", "quantize", f["p.pt"], "-o", f["q.pt"], *DATA, "--calibration-images", 70)
    step("export", "export", f["s.pt"], "-o", f["s.onnx"], *DATA)
    step("export int8", "export", f["q.pt"], "-o", f["q.onnx"], *DATA, "--json")
    step(
        "bench",
        "bench",
        f["s.onnx"],
        f["q.onnx"],
        f["p.pt"],
        *DATA,
        "--runs",
        20,
        "--warmup",
        2,
        "--starts",
        1,
        "-o",
        f["b.json"],
    )
    step("eval", "eval", f["s.onnx"], f["q.onnx"], f["q.pt"], *DATA, "--json")
    step("report", "report", f["s.pt"], f["q.pt"], f["b.json"], "-o", folder / "report.html")
    return folder, printed


def test_each_file_tells_its_whole_history(chain, fertool):
    folder, _ = chain
    _, out, _ = fertool("show", folder / "q.onnx", "--json")
    shown = json.loads(out)
    assert {
        "arch",
        "params",
        "macs",
        "size_bytes",
        "classes",
        "input",
        "metrics",
        "provenance",
        "digest",
    } <= set(shown)
    assert [step["command"] for step in shown["provenance"]] == ["distill", "prune", "quantize"]
    teacher, _ = models.load_model(folder / "t.pt")
    assert shown["provenance"][0]["inputs"]["teacher.0"] == teacher.digest
    assert shown["metrics"]["split"] == "val"


def test_pruning_and_quantising_make_it_smaller_on_disk(chain):
    folder, _ = chain
    student, _ = models.load_model(folder / "s.pt")
    pruned, _ = models.load_model(folder / "p.pt")
    assert pruned.macs <= 0.5 * student.macs
    assert pruned.params < student.params
    assert (folder / "q.pt").stat().st_size < 0.5 * (folder / "p.pt").stat().st_size


def test_sensitivity_names_the_model_it_is_of(chain):
    folder, _ = chain
    spec, module = models.load_model(folder / "p.pt")
    found = json.loads((folder / "h.json").read_text())
    assert found["model_digest"] == spec.digest
    weights = dict(module.named_modules())
    for layer in found["layers"]:
        for key in ("weight_trace", "activation_trace"):
            assert len(layer[key]) == len(weights[layer["name"]].weight)
            assert min(layer[key]) >= 0


def test_sensitivity_is_that_of_a_float_model(chain, fertool, tmp_path):
    folder, _ = chain
    code, out, err = fertool(
        "hessian-sensitivity", folder / "q.pt", *DATA, "-o", tmp_path / "h.json"
    )
    assert (code, out) == (1, "")
    assert "error: " in err
    assert "a quantized model" in err


def test_torch_and_onnx_runtime_agree_on_every_image_or_nearly(chain):
    _, printed = chain
    assert json.loads(printed["export int8"])["parity"]["top1_agreement"] >= 0.99
    student, onnx, torch_ = json.loads(printed["eval"])["results"]
    assert student["n"] == onnx["n"] == 42
    assert abs(onnx["accuracy"] - torch_["accuracy"]) <= 1 / 42
    assert set(student["deduplicated"]) == {"n", "accuracy", "accuracy_ci95"}


def test_bench_follows_its_contract(chain):
    folder, _ = chain
    report = json.loads((folder / "b.json").read_text())
    for entry in report["results"]:
        assert {"median", "mean", "p90", "p99", "min"} <= set(entry["latency_s"])
        assert len(entry["samples_s"]) == 20
        assert entry["peak_rss_bytes"] > entry["size_bytes"] > 0
        assert entry["n"] == 42
    assert [entry["candidate"] for entry in report["comparisons"]] == [
        str(folder / "q.onnx"),
        str(folder / "p.pt"),
    ]


def test_the_report_is_one_file_that_fetches_nothing(chain):
    folder, _ = chain
    page = (folder / "report.html").read_text()
    assert "micro_expnet" in page
    assert 'src="http' not in page
    assert 'href="http' not in page


def test_prune_works_as_it_stands(chain, fertool):
    folder, _ = chain
    code, out, err = fertool("prune", folder / "s.pt", "--target-flops", "0.5")
    assert code == 0
    assert out.strip() == str(folder / "s.pruned.pt")
    assert "no --data" in err
    spec, module = models.load_model(folder / "s.pruned.pt")
    assert torch.isfinite(module(torch.zeros(1, 1, 48, 48))).all()
    assert spec.macs <= 0.5 * models.load_model(folder / "s.pt")[0].macs


@pytest.mark.parametrize(
    "stage", ["train", "distill", "prune", "quantize", "hessian", "export", "export int8", "report"]
)
def test_the_same_command_gives_the_same_bytes_under_another_name(chain, fertool, stage, tmp_path):
    folder, _ = chain
    commands = {
        "train": ("t.pt", "train-teacher", *DATA, "--arch", "resnet18", *SMALL, "--epochs", 1),
        "distill": ("s.pt", "distill", folder / "t.pt", *DATA, *SMALL, "--epochs", 2),
        "prune": (
            "p.pt",
            "prune",
            folder / "s.pt",
            *DATA,
            "--target-flops",
            0.5,
            "--round-to",
            8,
            "--epochs",
            1,
        ),
        "quantize": ("q.pt", "quantize", folder / "p.pt", *DATA, "--calibration-images", 70),
        "hessian": ("h.json", "hessian-sensitivity", folder / "p.pt", *DATA, "--trace-images", 7),
        "export": ("s.onnx", "export", folder / "s.pt", *DATA),
        "export int8": ("q.onnx", "export", folder / "q.pt", *DATA),
        "report": ("report.html", "report", folder / "s.pt", folder / "q.pt", folder / "b.json"),
    }
    first, *arguments = commands[stage]
    again = tmp_path / f"another name{(folder / first).suffix}"
    assert fertool(*arguments, "-o", again)[0] == 0
    assert again.read_bytes() == (folder / first).read_bytes()


def test_evaluating_pruning_without_data_and_drawing_repeat_to_the_byte(chain, fertool, tmp_path):
    folder, _ = chain
    made = []
    for name in ("first", "second"):
        where = tmp_path / name
        where.mkdir()
        assert (
            fertool("eval", folder / "q.onnx", folder / "q.pt", *DATA, "-o", where / "e.json")[0]
            == 0
        )
        assert (
            fertool("prune", folder / "s.pt", "--target-params", "0.6", "-o", where / "p.pt")[0]
            == 0
        )
        assert fertool("data", "synth", "-o", where / "faces.csv", "--count", "70")[0] == 0
        made.append({path.name: path.read_bytes() for path in where.iterdir()})
    assert len(made[0]) == 3
    assert made[0] == made[1]
