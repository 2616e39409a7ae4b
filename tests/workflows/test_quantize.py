"""Quantization as a function: the same files as the command, models in memory, nothing printed."""

import copy

import pytest
import torch

from fertool.config.quantization import QuantizeConfig
from fertool.errors import FertoolError, UsageError
from fertool.reporter import SilentReporter
from fertool.workflows.data import open_data
from fertool.workflows.model import load
from fertool.workflows.quantize import preview_quantization, quantize
from fertool.workflows.sensitivity import sensitivity

CALIBRATION = {"calibration_images": 16, "bench": False}
FLAGS = ("--calibration-images", 16, "--no-bench", "--data", "synth:140")


class Notes(SilentReporter):
    """Keeps the notes."""

    def __init__(self):
        self.notes = []

    def note(self, message):
        self.notes.append(message)


@pytest.fixture(scope="module")
def data():
    return open_data("synth:140")


@pytest.fixture(scope="module")
def traces(small, data):
    return sensitivity(load(small), data, trace_images=4)


def test_the_function_writes_the_bytes_of_the_command(fertool, small, data, traces, tmp_path):
    file = tmp_path / "s.json"
    file.write_text(traces.to_json())
    options = ("--target-size", 0.2, "--keep-float", "features.1.*")
    code, _, err = fertool(
        "quantize", small, "-o", tmp_path / "a.pt", *FLAGS, *options, "--sensitivity", file
    )
    assert code == 0, err
    given = {"target_size": 0.2, "keep_float": ("features.1.*",), **CALIBRATION}
    for name, known in (("b.pt", str(file)), ("c.pt", traces)):
        output = tmp_path / name
        quantize(load(small), data, output=output, sensitivity=known, **given)
        assert output.read_bytes() == (tmp_path / "a.pt").read_bytes()


def test_a_model_in_memory_is_that_of_its_file_and_nothing_is_printed(
    fertool, small, data, tmp_path, capsys
):
    model = load(small)
    before = copy.deepcopy(model.module.state_dict())
    options = {"method": "qat", "epochs": 1, "batch_size": 16, "replace_activations": "relu"}
    result = quantize(model, data, bits=4, seed=3, **options, **CALIBRATION)
    assert result.path is None
    assert [epoch.phase for epoch in result.history] == ["as floats", "with rounding"]
    assert {bits for bits in result.layer_bits.values() if bits} == {(4,)}
    assert result.change.average_bits == pytest.approx(4)
    assert result.before is model
    assert capsys.readouterr() == ("", "")
    after = model.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)

    saved = result.save(tmp_path / "a.pt")
    assert saved.spec.digest == result.spec.digest
    assert saved.change is result.change
    flags = ("--method", "qat", "--epochs", 1, "--batch-size", 16, "--bits", 4, "--seed", 3)
    command = ("quantize", small, "-o", tmp_path / "b.pt", *FLAGS, *flags)
    assert fertool(*command, "--replace-activations", "relu")[0] == 0
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_missing_traces_are_estimated_with_a_note(small, data):
    model, reporter = load(small), Notes()
    options = {"average_bits": 3, **CALIBRATION}
    alone = quantize(model, data, reporter=reporter, **options)
    assert any("no ``sensitivity`` given" in note for note in reporter.notes)
    estimated = sensitivity(model, data)
    assert quantize(model, data, sensitivity=estimated, **options).spec == alone.spec


def test_fisher_needs_no_traces_and_meets_the_budget(small, data):
    reporter = Notes()
    options = {"average_bits": 3, "allocation": "fisher", "calibration_images": 16}
    found = preview_quantization(load(small), data, reporter=reporter, **options)
    assert 2.97 <= found.change.average_bits <= 3
    assert len({bits for layer in found.layer_bits.values() for bits in layer}) > 1
    assert not any("sensitivity" in note for note in reporter.notes)


def test_a_preview_has_the_bits_and_the_size_of_the_model(small, data, tmp_path):
    model = load(small)
    options = {"average_bits": 3, "allocation": "uniform", "calibration_images": 16}
    planned = preview_quantization(model, data, **options)
    made = quantize(model, data, bench=False, output=tmp_path / "q.pt", **options)
    assert planned.quant == made.quant
    assert planned.size_bytes == made.size_bytes == (tmp_path / "q.pt").stat().st_size
    assert planned.spec.digest == made.spec.digest
    assert planned.preview.size_bytes_before == small.stat().st_size


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"bit": 3}, "unknown option 'bit'", "did you mean 'bits'?"),
        ({"rounding": "compensated"}, "unknown ``rounding`` 'compensated'", "gptq"),
        ({"bits": 4, "average_bits": 3}, "``bits`` and ``average_bits``: more than one budget", ""),
        ({"bits": 9}, "``bits=9``: must be 2 or more and at most 8", ""),
        ({"epochs": 2}, "``epochs=2``: ``method=ptq`` does not train", "``method=qat``"),
        ({"method": "qat"}, "``method=qat``: no epochs to train", "``epochs=5``"),
        ({"allocation": "hawq"}, "``allocation``: no budget to allocate", "``average_bits``"),
        ({"float_epochs": 1}, "``float_epochs=1``: ``replace_activations=none`` has none", ""),
        ({"percentile": 40}, "unknown option 'percentile'", ""),
    ],
)
def test_a_wrong_option_is_named_by_its_field(small, data, options, message, hint):
    with pytest.raises(UsageError) as error:
        quantize(load(small), data, **options)
    assert message in error.value.message
    assert hint in error.value.hint


def test_traces_without_a_use_are_refused(small, data, traces):
    with pytest.raises(UsageError, match="``sensitivity``: no budget"):
        quantize(load(small), data, sensitivity=traces)
    replaced = {"method": "qat", "epochs": 1, "average_bits": 3, "replace_activations": "relu"}
    with pytest.raises(UsageError, match="about the network as it was"):
        quantize(load(small), data, sensitivity=traces, **replaced)


def test_a_quantized_model_is_refused(small, data):
    made = quantize(load(small), data, **CALIBRATION)
    with pytest.raises(FertoolError, match="mobilenet_v3_small: the model is quantized already"):
        quantize(made, data, average_bits=3)


def test_a_config_and_options_together():
    config = QuantizeConfig(average_bits=3, allocation="uniform")
    config.require_sensitivity()
    with pytest.raises(UsageError, match="``allocation=optimal`` needs ``sensitivity``"):
        QuantizeConfig(average_bits=3).require_sensitivity()
    with pytest.raises(UsageError, match="``percentile=40``"):
        QuantizeConfig(percentile=40)
