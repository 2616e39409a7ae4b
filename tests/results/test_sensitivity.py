"""The JSON file: what it holds, and the errors where it does not fit."""

import json
from dataclasses import replace

import pytest

from fertool.errors import FertoolError
from fertool.results import LayerSensitivity, Sensitivity

LAYERS = (
    LayerSensitivity("stem.0", (0.1, 2e-17), (0.01, 0.0), 9, (0.5, 7e-9), (0.125, 0.0)),
    LayerSensitivity("head", (1 / 3,), (0.25,), 2, (3.0,), (0.75,)),
)
SENSITIVITY = Sensitivity("ab" * 32, "exact", samples=32, probes=0, seed=5, layers=LAYERS)
SIGNED = replace(
    SENSITIVITY,
    method="hutchinson",
    hessian="cross-entropy",
    layers=(LayerSensitivity("head", (-0.5,), (0.25,), 2, (-3.0,), (0.75,)),),
)
CHANNELS = {"stem.0": 2, "head": 1}


def test_the_file_comes_back_as_it_was():
    for written in (SENSITIVITY, SIGNED):
        assert Sensitivity.from_json(written.to_json(), "sens.json") == written


def test_a_file_without_traces_of_activations_is_read():
    data = json.loads(SENSITIVITY.to_json())
    for layer in data["layers"]:
        layer["activation_trace"] = []
        del layer["activation_trace_sem"]
    read = Sensitivity.from_json(json.dumps(data), "old.json")
    assert [layer.weight_trace for layer in read.layers] == [(0.1, 2e-17), (1 / 3,)]
    assert {layer.activation_trace for layer in read.layers} == {
        layer.activation_trace_sem for layer in read.layers
    }
    assert read.layers[0].activation_trace == ()
    assert Sensitivity.from_json(read.to_json(), "old.json") == read


def test_the_file_has_the_keys_that_scripts_read():
    data = json.loads(SENSITIVITY.to_json())
    assert {"model_digest", "samples", "probes", "method", "hessian", "seed", "layers"} == set(data)
    assert data["hessian"] == "kl"
    assert data["layers"][0] == {
        "name": "stem.0",
        "weight_trace": [0.1, 2e-17],
        "weight_trace_sem": [0.01, 0.0],
        "activation_trace": [0.5, 7e-9],
        "activation_trace_sem": [0.125, 0.0],
        "weight_params": 9,
    }


def changed(**changes):
    return json.dumps({**json.loads(SENSITIVITY.to_json()), **changes})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a sensitivity file"),
        ("[1]", "not a sensitivity file"),
        ("{}", "hessian"),
        (changed(extra=1), "extra"),
        (changed(layers=[{"name": "head", "weight_trace": [1.0]}]), "weight_trace_sem"),
        (
            changed(
                layers=[{**json.loads(SENSITIVITY.to_json())["layers"][0], "weight_trace": [1.0]}]
            ),
            "unequal numbers of values, 1 of weight_trace, 2 of weight_trace_sem",
        ),
        (SENSITIVITY.to_json().replace("2e-17", "-1.0"), "stem.0: weight_trace holds a negative"),
        (SENSITIVITY.to_json().replace("2e-17", "NaN"), "NaN is no number"),
        (
            SENSITIVITY.to_json().replace("7e-09", "-1.0"),
            "stem.0: activation_trace holds a negative",
        ),
        (
            SENSITIVITY.to_json().replace("[3.0]", "[3.0,1.0]"),
            "1 of weight_trace_sem, 2 of activation_trace",
        ),
        (SIGNED.to_json().replace("-3.0", "-Infinity"), "-Infinity is no number"),
        (SIGNED.to_json().replace("0.25", "-0.25"), "head: weight_trace_sem holds a negative"),
        (changed(method="lanczos"), "lanczos"),
        (changed(hessian="cross-entropy"), "'exact' of 'cross-entropy'"),
    ],
)
def test_a_file_that_is_no_sensitivity_file_is_named(text, message):
    with pytest.raises(FertoolError, match=message) as caught:
        Sensitivity.from_json(text, "sens.json")
    assert caught.value.message.startswith("sens.json: ")
    assert caught.value.hint


def test_fits_its_own_model():
    SENSITIVITY.require_fit("ab" * 32, CHANNELS, "sens.json")


def test_who_needs_traces_that_are_never_negative_gets_no_others():
    with pytest.raises(FertoolError, match="the Hessian of cross-entropy, not of kl") as caught:
        SIGNED.require_fit("ab" * 32, {"head": 1}, "sens.json")
    assert caught.value.hint == "run fertool hessian-sensitivity with ``method=exact or probe``"
    SIGNED.require_fit("ab" * 32, {"head": 1}, "sens.json", accept=("kl", "cross-entropy"))
    with pytest.raises(FertoolError, match="not of cross-entropy"):
        SENSITIVITY.require_fit("ab" * 32, CHANNELS, "sens.json", accept=("cross-entropy",))


def test_the_relative_error_is_that_of_the_median_live_channel():
    traces, errors = (2.0, -4.0, 0.0, 1.0, 0.0), (0.2, 0.8, 0.0, 0.3, 1.0)
    layer = LayerSensitivity("head", traces, errors, 2)
    assert replace(SENSITIVITY, layers=(layer,)).relative_error() == pytest.approx(
        (0.2 + 0.3) / 2
    )  # of .1 .2 .3 inf
    dead = LayerSensitivity("head", (0.0,), (0.0,), 2)
    assert replace(SENSITIVITY, layers=(dead,)).relative_error() == 0


def test_traces_of_another_model_are_refused():
    with pytest.raises(
        FertoolError,
        match=r"sens\.json: the traces are of model abababababab, not of this one, cdcd",
    ):
        SENSITIVITY.require_fit("cd" * 32, CHANNELS, "sens.json")


def test_all_layers_that_do_not_fit_are_listed():
    with pytest.raises(FertoolError) as caught:
        SENSITIVITY.require_fit("ab" * 32, {"stem.0": 3, "stem.1": 4}, "sens.json")
    for message in (
        "stem.1 is missing",
        "head is unknown",
        "stem.0 has traces of 2 channels, the model has 3",
    ):
        assert message in caught.value.message
