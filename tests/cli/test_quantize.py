import json
import os

import pytest
import torch

from fertool import models
from fertool.cli.app import run
from fertool.spec import InputSpec

EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
DATA = ("--data", "synth:140")
QAT = ("--method", "qat", "--epochs", "1", "--batch-size", "16")
REPLACED = (*QAT, "--replace-activations", "relu")


def test_a_dry_run_prints_the_bits_and_the_size_that_a_real_one_has(fertool, tmp_path):
    torch.manual_seed(0)
    spec, module = models.create(
        "micro_expnet", {"width_mult": 0.25}, InputSpec(), ("happy", "sad")
    )
    model = tmp_path / "m.pt"
    models.save_model(model, spec, module)
    arguments = ("quantize", model, "--data", "synth:70", "--calibration-images", "4")
    code, out, err = fertool(*arguments, "--dry-run", "--json")
    assert code == 0, err
    assert os.listdir(tmp_path) == ["m.pt"]
    planned = json.loads(out)
    code, out, err = fertool(*arguments, "-o", tmp_path / "q.pt", "--json")
    assert code == 0
    change, measured = json.loads(out)["change"], json.loads(out)["change"]["speedup"]
    low, high = change["speedup_ci95"]
    assert low <= measured <= high
    assert f"{measured:.2f} x" in err
    assert ("not measurably faster" in err) == (change["speedup_ci95"][0] <= 1)
    written, _ = models.load_model(tmp_path / "q.pt")
    assert set(planned["quant"]["weights"]) == set(written.quant.weights)
    assert planned["size_bytes_before"] == model.stat().st_size
    assert abs(planned["size_bytes"] - (tmp_path / "q.pt").stat().st_size) < 100
    _, out, _ = fertool(*arguments, "--dry-run")
    assert "size" in out
    assert "points" in out


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A small network and its traces."""
    folder = tmp_path_factory.mktemp("chain")
    torch.manual_seed(0)
    spec, module = models.create("nano_resnet", {"width_mult": 0.5}, InputSpec(1, 32), EMOTIONS)
    models.save_model(folder / "m.pt", spec, module)
    assert (
        run(
            [
                "hessian-sensitivity",
                str(folder / "m.pt"),
                *DATA,
                "--trace-images",
                "4",
                "-o",
                str(folder / "s.json"),
            ]
        )
        == 0
    )
    return folder


def quantised(fertool, chain, output, *options):
    return fertool(
        "quantize",
        chain / "m.pt",
        "-o",
        output,
        *DATA,
        "--calibration-images",
        "16",
        "--no-bench",
        *options,
    )


@pytest.mark.parametrize("allocation", ["optimal", "hawq", "uniform"])
def test_a_budget_of_bytes_is_met_within_one_percent(fertool, chain, tmp_path, allocation):
    output, picture = tmp_path / "q.pt", tmp_path / "bits.png"
    shares = ("--sensitivity", chain / "s.json", "--allocation", allocation, "--plot-bits", picture)
    code, out, err = quantised(fertool, chain, output, "--target-size", "0.14", *shares, "--json")
    assert code == 0, err
    budget = 0.14 * (chain / "m.pt").stat().st_size
    assert 0.99 * budget <= output.stat().st_size <= 1.002 * budget
    told = json.loads(out)
    assert told["change"]["n"] > 0
    assert 0 <= told["change"]["top1_agreement"] <= 1
    assert "sensitivity" in told["provenance"][-1]["inputs"]
    bits = [width for rule in told["quant"]["weights"].values() for width in rule["bits"]]
    assert 2 <= min(bits) < max(bits) <= 8
    assert picture.read_bytes().startswith(b"\x89PNG")
    code, out, err = fertool("export", output, "-o", tmp_path / "q.onnx")
    assert code == 0, err
    assert (tmp_path / "q.onnx").stat().st_size < 1.1 * output.stat().st_size


def test_bits_of_activations_are_shared_out_and_kept_in_onnx(fertool, chain, tmp_path):
    output = tmp_path / "q.pt"
    code, out, err = quantised(fertool, chain, output, "--average-activation-bits", 5.5, "--json")
    assert code == 0, err
    bits = list(json.loads(out)["quant"]["activations"].values())
    assert 4 <= min(bits) < max(bits) <= 8
    code, out, err = fertool("export", output, "-o", tmp_path / "q.onnx", "--json")
    assert code == 0, err
    first, second = (
        json.loads(fertool("eval", file, *DATA, "--json")[1])
        for file in (output, tmp_path / "q.onnx")
    )
    assert first["accuracy"] == second["accuracy"]
    _, out, _ = quantised(fertool, chain, output, "--average-activation-bits", 5.5, "--dry-run")
    assert "activations of layers" in out
    code, _, err = quantised(
        fertool, chain, output, "--average-activation-bits", 5.5, "--activation-bits", 6
    )
    assert (code, err.splitlines()[-2].split(": ")[-1]) == (2, "more than one budget")


def test_a_mean_of_bits_and_one_width_for_all(fertool, chain, tmp_path):
    sizes = {}
    for name, options in {
        "mixed": ("--average-bits", 3, "--sensitivity", chain / "s.json"),
        "three": ("--bits", 3),
        "eight": (),
    }.items():
        code, out, err = quantised(fertool, chain, tmp_path / f"{name}.pt", *options, "--json")
        assert code == 0, err
        sizes[name] = json.loads(out)["size_bytes"]
    assert abs(sizes["mixed"] - sizes["three"]) < 3000
    assert sizes["three"] < 0.6 * sizes["eight"]


def test_a_network_trained_with_rounding_resumes_to_the_same_bytes(
    fertool, chain, tmp_path, monkeypatch
):
    options = ("--bits", 2, "--method", "qat", "--epochs", 2, "--batch-size", 16)
    code, out, err = quantised(fertool, chain, tmp_path / "whole.pt", *options, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["quant"]["method"] == "qat"
    assert len(told["history"]) == 2
    from fertool.training import engine

    epoch = engine._train_epoch

    def killed(job, progress, number):
        if number == 2:
            raise KeyboardInterrupt
        return epoch(job, progress, number)

    monkeypatch.setattr(engine, "_train_epoch", killed)
    assert quantised(fertool, chain, tmp_path / "again.pt", *options)[0] == 130
    monkeypatch.undo()
    assert not (tmp_path / "again.pt").exists()
    assert quantised(fertool, chain, tmp_path / "again.pt", *options)[0] == 0
    assert (tmp_path / "again.pt").read_bytes() == (tmp_path / "whole.pt").read_bytes()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--bits", "4", "--average-bits", "3"), "--bits and --average-bits: more than one budget"),
        (("--average-bits", "3"), "--average-bits: --allocation optimal needs --sensitivity"),
        (("--sensitivity", "{chain}/s.json"), "--sensitivity: no budget"),
        (("--average-bits", "1.5", "--allocation", "uniform"), "--average-bits"),
        (
            ("--target-size", "0.02", "--allocation", "uniform"),
            "--target-size 0.02: at 2 bits a weight",
        ),
        (("--average-bits", "3", "--sensitivity", "{chain}/m.pt"), "m.pt: not UTF-8 text"),
        (
            ("--average-bits", "3", "--sensitivity", "{chain}/nothing.json"),
            "nothing.json: no such file",
        ),
        (("--bits", "3", "--allocation", "hawq"), "--allocation: no budget"),
        (
            (
                "--average-bits",
                "3",
                "--sensitivity",
                "{chain}/s.json",
                "--plot-bits",
                "{chain}/s.json",
            ),
            "s.json",
        ),
        (("--method", "qat"), "--method qat: no epochs"),
        (("--epochs", "2"), "--epochs 2: --method ptq does not train"),
        (("--plot-bits", "{chain}/q.pt"), "--plot-bits"),
        (
            ("--replace-activations", "relu"),
            "--replace-activations relu: a network with other activations has to be trained",
        ),
        (("--float-epochs", "1"), "--float-epochs 1: --replace-activations none has none"),
        (
            (*REPLACED, "--average-bits", "3", "--sensitivity", "{chain}/s.json"),
            "--replace-activations relu: --sensitivity is about the network as it was",
        ),
    ],
)
def test_what_does_not_go_together_gets_one_error_and_leaves_nothing(fertool, chain, options, said):
    before = sorted(os.listdir(chain))
    options = [str(option).format(chain=chain) for option in options]
    code, _, err = quantised(fertool, chain, chain / "q.pt", *options)
    assert code in (1, 2)
    assert err.count("error: ") == 1
    assert said in err
    assert "hint: " in err
    assert sorted(os.listdir(chain)) == before


def test_the_traces_are_not_overwritten(fertool, chain):
    traces = chain / "s.json"
    before = traces.read_bytes()
    code, _, err = quantised(fertool, chain, traces, "--average-bits", 3, "--sensitivity", traces)
    assert code in (1, 2)
    assert "s.json" in err
    assert traces.read_bytes() == before


def test_traces_of_another_model_or_with_a_layer_missing(fertool, chain, tmp_path):
    text = json.loads((chain / "s.json").read_text())
    other = tmp_path / "other.json"
    for change, said in (
        ({"model_digest": "f" * 64}, "the traces are of model ffffffffffff"),
        ({"layers": text["layers"][1:]}, f"{text['layers'][0]['name']} is missing"),
    ):
        other.write_text(json.dumps({**text, **change}))
        code, _, err = quantised(
            fertool, chain, tmp_path / "q.pt", "--average-bits", 3, "--sensitivity", other
        )
        assert code == 1
        assert said in err
        assert not (tmp_path / "q.pt").exists()


def test_what_processors_without_vnni_answer_is_told(fertool, tmp_path):
    torch.manual_seed(0)
    spec, module = models.create(
        "nano_resnet", {"width_mult": 0.25}, InputSpec(size=32), ("happy", "sad")
    )
    models.save_model(tmp_path / "m.pt", spec, module)
    arguments = (
        "quantize",
        tmp_path / "m.pt",
        "--data",
        "synth:70",
        "--calibration-images",
        "8",
        "--dry-run",
        "--json",
    )
    for weight_range, told in (("reduced", "with and without VNNI"), ("full", "(emulated)")):
        code, out, err = fertool(*arguments, "--weight-range", weight_range)
        assert code == 0, err
        assert told in err
        assert 0 <= json.loads(out)["change"]["accuracy_without_vnni"] <= 1


@pytest.fixture(scope="module")
def swishing(tmp_path_factory):
    """A small network with HardSwish."""
    path = tmp_path_factory.mktemp("swishing") / "m.pt"
    torch.manual_seed(0)
    spec, module = models.create(
        "mobilenet_v3_small", {"width_mult": 0.25}, InputSpec(1, 32), EMOTIONS
    )
    models.save_model(path, spec, module)
    return path


def test_replaced_activations_are_trained_twice(fertool, swishing, tmp_path, monkeypatch):
    arguments = (
        "quantize",
        swishing,
        *DATA,
        "--calibration-images",
        "16",
        "--no-bench",
        *REPLACED,
    )
    code, out, err = fertool(*arguments, "-o", tmp_path / "q.pt", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert [(epoch["round"], epoch["phase"]) for epoch in told["history"]] == [
        (1, "as floats"),
        (2, "with rounding"),
    ]
    assert told["provenance"][-1]["options"]["replace_activations"] == "relu"
    spec, module = models.load_model(tmp_path / "q.pt")
    assert "hardswish" in {node.op for node in models.load_model(swishing)[0].graph.nodes}
    assert "hardswish" not in {node.op for node in (*spec.graph.nodes, *module.graph.nodes)}
    assert sorted(os.listdir(tmp_path)) == ["q.pt", "q.pt.history.json"]
    # Killed in the second training, it goes on to the same file.
    from fertool.training import engine

    epoch, calls = engine._train_epoch, []

    def killed(job, progress, number):
        calls.append(number)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return epoch(job, progress, number)

    monkeypatch.setattr(engine, "_train_epoch", killed)
    assert fertool(*arguments, "-o", tmp_path / "again.pt")[0] == 130
    assert fertool(*arguments, "-o", tmp_path / "again.pt")[0] == 0
    assert len(calls) == 3
    assert (tmp_path / "again.pt").read_bytes() == (tmp_path / "q.pt").read_bytes()


def test_replaced_activations_take_float_epochs_and_a_note_where_nothing_is_to_replace(
    fertool, swishing, chain, tmp_path
):
    common = (*DATA, "--calibration-images", "16", "--no-bench", *REPLACED)
    code, out, err = fertool(
        "quantize", swishing, "-o", tmp_path / "q.pt", *common, "--float-epochs", "0", "--json"
    )
    assert code == 0, err
    assert len(json.loads(out)["history"]) == 1
    code, _, err = fertool("quantize", chain / "m.pt", "-o", tmp_path / "same.pt", *common)
    assert code == 0
    assert "nano_resnet has no HardSwish and no SiLU; there is nothing to replace" in err
