"""The passes over an exported graph one by one."""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from settled import patterns, settled

from fertool.config.exporting import ExportConfig
from fertool.config.quantization import QuantizeConfig
from fertool.errors import UsageError
from fertool.exporting import check_parity, export_model, open_onnx
from fertool.exporting.passes import FAST, PLAIN, SMALL, STANDARD_OPERATORS, list_passes, run_passes
from fertool.quant import quantize_model

PASSES = list_passes()
NAMES = tuple(PASSES)
RAW = ExportConfig(skipped_passes=NAMES)


@pytest.fixture(scope="module")
def networks():
    """A float network and an integer one, with gates, pools and depthwise convolutions."""
    spec, module, data = settled("mobilenet_v3_small", width_mult=0.25)
    quant, integer = quantize_model(spec, module, data, QuantizeConfig(calibration_images=32))
    return {"floats": (spec, module), "integers": (replace(spec, quant=quant), integer)}


@pytest.fixture(scope="module")
def graphs(networks):
    """Their graphs, as they are traced and after onnxsim."""
    made = {}
    for kind, network in networks.items():
        made[kind] = onnx.load_from_string(export_model(*network, RAW))  # type: ignore[call-arg]
        made[f"simplified {kind}"] = PASSES["simplify"](made[kind])
    return made


def logits(model):
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"images": patterns(14, seed=1).images.numpy()})[0]


def assert_same_logits(before, after):
    expected, found = logits(before), logits(after)
    # Sums in another order, which may move a value over the edge of a rounding.
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())
    assert (found.argmax(1) == expected.argmax(1)).all()


@pytest.mark.parametrize("kind", ["floats", "integers", "simplified floats", "simplified integers"])
@pytest.mark.parametrize("name", NAMES[1:])
def test_each_pass_alone_keeps_the_logits_and_its_argument(graphs, kind, name):
    before = graphs[kind].SerializeToString()
    assert_same_logits(graphs[kind], run_passes(graphs[kind], PASSES, [name]))
    assert graphs[kind].SerializeToString() == before


@pytest.mark.parametrize("kind", ["floats", "integers"])
def test_simplification_keeps_the_logits(graphs, kind):
    assert_same_logits(graphs[kind], graphs[f"simplified {kind}"])


@pytest.mark.parametrize("name", NAMES[1:])
def test_all_but_one_keep_the_logits(graphs, name):
    before = graphs["simplified integers"]
    assert_same_logits(before, run_passes(before, PASSES, NAMES[1:], skipped=(name,)))


def test_an_export_leaves_out_the_passes_that_are_named(networks):
    spec, module = networks["integers"]
    packed = ExportConfig(packed=True, simplify=False)
    whole = export_model(spec, module, packed)
    skipped = replace(packed, skipped_passes=("pack-weights",))
    larger = export_model(spec, module, skipped)
    assert len(whole) < len(larger) < len(export_model(spec, module, RAW))
    assert check_parity(open_onnx(larger), module, spec, patterns(28, seed=1).images).ok


def test_files_get_their_passes_in_the_order_of_the_list():
    for kind in (PLAIN, FAST, SMALL):
        order = [*STANDARD_OPERATORS, *kind]
        assert order == [name for name in NAMES if name in order]
    assert {*STANDARD_OPERATORS, *PLAIN, *SMALL} == set(NAMES)


def test_an_unknown_pass_is_a_usage_error(networks):
    with pytest.raises(UsageError, match="unknown pass 'fold'") as caught:
        export_model(*networks["floats"], ExportConfig(skipped_passes=("fold",)))  # type: ignore[call-arg]
    assert "clip-gates" in caught.value.hint
