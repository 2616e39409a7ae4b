"""The JSON file: what it holds, and what is said when it does not fit."""

import json

import pytest

from fertool.errors import FertoolError
from fertool.hessian import LayerSensitivity, Sensitivity

LAYERS = (
    LayerSensitivity("stem.0", (0.1, 2e-17), (0.01, 0.0), weight_params=9),
    LayerSensitivity("head", (1 / 3,), (0.25,), weight_params=2),
)
SENSITIVITY = Sensitivity("ab" * 32, "exact", samples=32, probes=0, seed=5, layers=LAYERS)
CHANNELS = {"stem.0": 2, "head": 1}


def test_the_file_comes_back_as_it_was():
    assert Sensitivity.from_json(SENSITIVITY.to_json(), "sens.json") == SENSITIVITY


def test_the_file_has_the_keys_that_scripts_read():
    data = json.loads(SENSITIVITY.to_json())
    assert {"model_digest", "samples", "probes", "method", "hessian", "seed", "layers"} == set(data)
    assert data["hessian"] == "kl"
    assert data["layers"][0] == {
        "name": "stem.0",
        "weight_trace": [0.1, 2e-17],
        "weight_trace_sem": [0.01, 0.0],
        "activation_trace": [],
        "weight_params": 9,
    }


def changed(**changes):
    return json.dumps({**json.loads(SENSITIVITY.to_json()), **changes})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not a sensitivity file"),
        ("[1]", "not a sensitivity file"),
        ("{}", "layers"),
        (changed(extra=1), "extra"),
        (changed(layers=[{"name": "head", "weight_trace": [1.0]}]), "weight_trace_sem"),
        (
            changed(layers=[{**json.loads(SENSITIVITY.to_json())["layers"][0], "weight_trace": [1.0]}]),
            "1 traces, 2 errors",
        ),
        (SENSITIVITY.to_json().replace("2e-17", "-1.0"), "stem.0: weight_trace holds a negative"),
        (SENSITIVITY.to_json().replace("2e-17", "NaN"), "stem.0: weight_trace holds a negative or infinite"),
        (changed(method="lanczos"), "lanczos"),
        (changed(hessian="cross-entropy"), "cross-entropy"),
    ],
)
def test_a_file_that_is_no_sensitivity_file_is_named(text, said):
    with pytest.raises(FertoolError, match=said) as caught:
        Sensitivity.from_json(text, "sens.json")
    assert caught.value.message.startswith("sens.json: ")
    assert caught.value.hint


def test_fits_its_own_model():
    SENSITIVITY.require_fit("ab" * 32, CHANNELS, "sens.json")


def test_traces_of_another_model_are_refused():
    with pytest.raises(FertoolError, match=r"sens\.json: the traces are of model abababababab, not of this one, cdcd"):
        SENSITIVITY.require_fit("cd" * 32, CHANNELS, "sens.json")


def test_all_layers_that_do_not_fit_are_listed():
    with pytest.raises(FertoolError) as caught:
        SENSITIVITY.require_fit("ab" * 32, {"stem.0": 3, "stem.1": 4}, "sens.json")
    for said in ("stem.1 is missing", "head is unknown", "stem.0 has traces of 2 channels, the model has 3"):
        assert said in caught.value.message
