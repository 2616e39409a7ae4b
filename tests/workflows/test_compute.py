"""`quantize` with `compute`: what the command writes and says, by table and by the clock."""

import json
from dataclasses import replace

import pytest

from fertool.config.quantization import QuantizeConfig
from fertool.errors import FertoolError, UsageError
from fertool.graph.folding import fold_for_inference
from fertool.models.float_prefix import float_prefix
from fertool.quant import shipped_times
from fertool.quant_spec import ComputeSpec
from fertool.runtime import kernel_timing
from fertool.spec import QuantSpec, WeightQuant
from fertool.workflows import compute as workflow
from fertool.workflows.compute import choose_compute
from fertool.workflows.data import open_data
from fertool.workflows.model import load
from fertool.workflows.quantize import quantize

FLAGS = ("--calibration-images", 16, "--no-bench", "--data", "synth:140")


@pytest.fixture(scope="module")
def data():
    return open_data("synth:140")


def test_a_float_file_is_shown_exported_and_trained_like_any_other(fertool, small, tmp_path):
    code, output, err = fertool(
        "quantize", small, "-o", tmp_path / "a.pt", *FLAGS, "--compute", "float", "--json"
    )
    assert code == 0, err
    assert "layers compute with floats on integer weights" in err
    found = json.loads(output)["quant"]
    assert sorted(found["compute"]["float_layers"]) == sorted(found["weights"])
    assert found["activations"] == {}
    code, output, err = fertool("show", tmp_path / "a.pt")
    assert code == 0, err
    assert "layers compute with floats" in " ".join(output.split())
    code, _, err = fertool("export", tmp_path / "a.pt", "-o", tmp_path / "a.onnx")
    assert code == 0, err
    assert "same top class as torch on 100.00%" in err


def test_training_keeps_what_computes_with_floats(small, data):
    trained = quantize(
        load(small),
        data,
        compute="float",
        method="qat",
        epochs=1,
        batch_size=16,
        calibration_images=16,
        bench=False,
    )
    assert trained.quant.float_layers == trained.quant.weights.keys()
    assert not trained.module.grids.index


def test_the_table_decides_and_is_named(small, data, monkeypatch):
    """By kernels of integers that take a hundredth, and by those that take a hundred times."""
    images = data.fitted_to(load(small)).split("train")
    table = shipped_times()
    for factor, wanted in ((0.01, 0), (100, 1)):
        rows = {}
        for kind, entries in table.rows.items():
            rows[kind] = [(sizes, floats, factor * floats) for sizes, floats, _ in entries]
        changed = replace(table, rows=rows)
        monkeypatch.setattr("fertool.quant.shipped_times", lambda found=changed: found)
        quantized = quantize(
            load(small), data, compute="auto", calibration_images=16, bench=False
        ).quant
        assert len(quantized.float_layers) == wanted * len(quantized.weights)
        assert quantized.compute.processor == table.processor
        assert quantized.compute.times == "table"
        assert (quantized.compute.expected_speedup > 2) == (factor < 1)
    assert choose_compute(load(small), QuantizeConfig(), images) is None


@pytest.mark.parametrize(("speedup", "taken"), [(1.5, "integers"), (0.9, "floats")])
def test_the_clock_takes_integers_only_where_they_are_faster_beyond_doubt(
    small, data, monkeypatch, speedup, taken
):
    class Pair:
        def __init__(self, speedup):
            self.speedup, self.speedup_ci95 = speedup, (speedup - 0.05, speedup + 0.05)

    class Timed:
        # Floats first, then integers; chosen regions never.
        comparisons = (Pair(0.99), Pair(speedup))

    monkeypatch.setattr(kernel_timing, "time_kernel", lambda kind, sizes: (1e-6, 1e-3))
    monkeypatch.setattr(workflow, "bench_networks", lambda *networks, reporter: Timed)
    model = load(small)
    images = data.fitted_to(model).split("train")
    config = QuantizeConfig(compute="auto", measure=True)
    choice = choose_compute(model, config, images)
    assert choice.spec.measured_speedup == (speedup if taken == "integers" else 0.99)
    assert choice.spec.times == "measured"
    folded = fold_for_inference(model.module)
    prefix = float_prefix(folded, model.input)
    assert choice.float_nodes == (prefix if taken == "integers" else set(folded.graph.by_name))


def test_wrong_options_and_headers_are_one_message():
    with pytest.raises(UsageError, match=r"``measure`` with ``compute=int8``"):
        QuantizeConfig(measure=True)
    with pytest.raises(UsageError, match="compute"):
        QuantizeConfig(compute="int4")
    with pytest.raises(FertoolError, match=r"no integers, the first 'mouth'"):
        QuantSpec({"nose": WeightQuant((8,))}, {}, compute=ComputeSpec(("mouth",), "float"))
