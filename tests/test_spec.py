import base64
import json
import re
import zlib
from dataclasses import asdict

import pytest
from graphs import toy_graph
from mutations import mutations

from fertool.errors import FertoolError
from fertool.gate_spec import GateSpec
from fertool.header_json import canonical_json
from fertool.spec import (
    ComputeSpec,
    InputSpec,
    Metrics,
    ProvenanceStep,
    QuantSpec,
    Spec,
    WeightQuant,
)


def spec(**changes):
    fields = {
        "arch": "toy",
        "arch_args": {},
        "graph": toy_graph(),
        "input": InputSpec(),
        "classes": ("x", "y"),
    }
    return Spec(**{**fields, **changes})


def test_normalisation_is_the_same_map_in_both_forms():
    shape = InputSpec(1, 48, (100 / 255,), (0.25,))
    for pixel in (0, 100, 255):
        direct = (pixel / 255 - shape.mean[0]) / shape.std[0]
        assert (pixel - shape.zero_point[0]) * shape.scale[0] == pytest.approx(direct)


@pytest.mark.parametrize("fields", [{"mean": (0.0, 0.0)}, {"channels": 3}, {"std": (1.0, 1.0)}])
def test_a_normalisation_without_a_value_for_each_channel_is_refused(fields):
    with pytest.raises(FertoolError):
        InputSpec(**fields)


def test_any_mean_is_taken_and_one_between_two_pixel_values_has_no_integer_zero_point():
    usual, imagenet = InputSpec(), InputSpec(3, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert usual.integer_zero_point
    assert usual.zero_point == (129,)
    assert not imagenet.integer_zero_point
    assert imagenet.zero_point == pytest.approx((123.675, 116.28, 103.53))


def test_text_is_canonical_whatever_the_order_of_the_keys():
    assert spec(arch_args={"a": 1, "b": 2}).to_json() == spec(arch_args={"b": 2, "a": 1}).to_json()
    assert canonical_json({"b": [1, 2.5], "a": "é"}) == '{"a":"é","b":[1,2.5]}'


def test_history_grows_oldest_first_and_a_change_loses_the_digest():
    first = spec(digest="abc").with_step(ProvenanceStep("train-teacher", seed=1))
    second = first.with_step(ProvenanceStep("prune"), graph=toy_graph(1))
    assert [step.command for step in second.provenance] == ["train-teacher", "prune"]
    assert second.digest == ""
    assert second.graph != first.graph
    assert Spec.from_json(second.to_json(), "x") == second


def test_the_header_of_an_onnx_file_is_short_and_still_readable():
    weights = {f"layer{i}": WeightQuant(bits=(2, 3, 3, 4) * 50, limit=63) for i in range(20)}
    plain = spec(quant=QuantSpec(weights=weights, activations={"layer0": 8}))
    text = plain.to_json(deflated=True)
    assert len(text) < 0.2 * len(plain.to_json())
    assert json.loads(text)["classes"] == ["x", "y"]
    assert Spec.from_json(text, "x") == plain
    assert spec().to_json(deflated=True) == spec().to_json()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 7}, "format 7"),
        ({"input": {"channels": "many"}}, "damaged"),
        ({"provenance": [{"surprise": 1}]}, "damaged"),
        ({"quant": {"weights": 3, "activations": {}, "method": "ptq"}}, "damaged"),
        ({"quant": "no table"}, "damaged"),
        ({"quant": "nonsense"}, "damaged"),
        ({"quant": base64.b85encode(zlib.compress(b"[" * 100_000)).decode()}, "damaged"),
        ({"quant": base64.b85encode(zlib.compress(b" " * (70 << 20))).decode()}, "damaged"),
    ],
)
def test_a_damaged_header_is_one_error_that_names_the_file(change, message):
    text = json.dumps({**json.loads(spec().to_json()), **change})
    with pytest.raises(FertoolError, match=rf"file\.pt: .*{message}"):
        Spec.from_json(text, "file.pt")


@pytest.mark.parametrize("text", ["", "[]", "3", "{}", "nonsense", '{"format": 1}'])
def test_what_is_no_header_is_refused(text):
    with pytest.raises(FertoolError, match=r"file\.pt"):
        Spec.from_json(text, "file.pt")


FULL = spec(
    params=12,
    macs=34,
    gates=GateSpec(profiles=(toy_graph(), toy_graph(1)), hidden=4, shares=(0.5, 0.5)),
    quant=QuantSpec(
        weights={"conv": WeightQuant(bits=(8, 4), limit=64)},
        activations={"conv": 8},
        compute=ComputeSpec(("conv",), "auto", "table", "a processor", "a runtime", 1.25, 1.5),
    ),
    metrics=Metrics("val", 10, 0.5, (0.2, 0.8), 0.4),
    provenance=(ProvenanceStep("train-teacher", {"epochs": 3}, {"data": "ab"}, {"torch": "2"}, 7),),
)


def test_every_wrong_value_in_a_header_is_one_error_or_means_nothing_else():
    refused = 0
    for what, changed in mutations(json.loads(FULL.to_json())):
        read, message = read_or_message(json.dumps(changed))
        if read is None:
            refused += 1
            assert re.fullmatch(r"file\.pt: .{10,400}", message), what
            assert message.isprintable(), what
        else:
            assert Spec.from_json(read.to_json(), "file.pt") == read, what
    assert refused > 500


def read_or_message(text):
    try:
        return Spec.from_json(text, "file.pt"), ""
    except FertoolError as error:
        return None, error.message


def packed(value, blanks=0):
    """Return a graph's JSON as a header holds it, whether it is one or not."""
    return base64.b85encode(zlib.compress(json.dumps(value).encode() + b" " * blanks)).decode()


FILLED = packed(toy_graph().to_builtins(), blanks=2 << 20)
PACKED = json.loads(FULL.to_json())["graph"]
WIDE = {
    "name": "conv",
    "op": "conv2d",
    "in": ["x"],
    "args": {"out_channels": 10**9, "kernel_size": [3, 3]},
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"input": {"size": "abc"}}, '`input.size` is "abc", expected int'),
        ({"input": {"size": 2**31}}, "`input.size` is 2147483648, expected int <= 1024"),
        ({"input": {"std": [0.0]}}, "`input.std[0]` is 0.0, expected float >= 1e-06"),
        ({"graph": 3}, "`graph` is 3, expected text"),
        ({"graph": "nonsense"}, "`graph` does not unpack"),
        ({"graph": PACKED[:-20]}, "`graph` is cut off"),
        ({"graph": packed({"nodes": []})}, "`nodes` is a list of 0"),
        ({"graph": packed("x" * (5 << 20))}, "unpacks to more than 4,194,304 bytes"),
        (
            {"gates": {"profiles": [FILLED] * 3, "hidden": 4, "shares": [0.1] * 3}},
            "unpacks to more than",
        ),
        (
            {"graph": packed({"inputs": ["x"], "nodes": [WIDE], "outputs": ["conv"]})},
            'node "conv" (conv2d): `out_channels` is 1000000000, expected int <= 65536',
        ),
        ({"classes": ["x", "x"]}, "`classes` has a name twice"),
        ({"classes": []}, "`classes` is a list of 0"),
        ({"classes": "xy"}, '`classes` is "xy", expected list'),
        ({"params": -1}, "`params` is -1, expected int >= 0"),
        (
            {"gates": {"profiles": [PACKED] * 2000, "hidden": 4, "shares": [0.1] * 2000}},
            "2000 profiles",
        ),
        ({"gates": {"profiles": [], "hidden": 4, "shares": []}}, "0 profiles"),
        (
            {"gates": {"profiles": [{"a": 1}], "hidden": 4, "shares": [1.0]}},
            "`gates.profiles` is a map of 1",
        ),
        ({"gates": {"profiles": [PACKED], "hidden": 4, "shares": []}}, "1 profiles and 0 shares"),
        ({"gates": {"profiles": [PACKED], "hidden": 0, "shares": [1.0]}}, "neither `hidden`"),
        (
            {"gates": {"profiles": [PACKED], "hidden": 0, "shares": [1.0], "thresholds": [0.5]}},
            "1 profiles and 1 thresholds",
        ),
        (
            {"quant": {"weights": {"c": {"bits": "89", "limit": 127}}, "activations": {}}},
            "`quant.weights.c.bits[1]` is 9",
        ),
        (
            {"metrics": {**asdict(Metrics("val", 1, 0.9, (0.1, 0.2), 0.5))}},
            "outside of its interval",
        ),
        ({"provenance": [{"command": "x", "surprise": 1}]}, "unknown keys: provenance[0].surprise"),
    ],
)
def test_a_damaged_header_names_the_key_its_value_and_what_was_expected(change, said):
    text = json.dumps({**json.loads(spec().to_json()), **change})
    with pytest.raises(FertoolError) as caught:
        Spec.from_json(text, "file.pt")
    assert caught.value.message.startswith("file.pt: the fertool header is damaged: ")
    assert said in caught.value.message


TEMPLATE = ((0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.4, 0.8), (0.6, 0.8))


def test_temperature_and_template_are_kept_and_not_written_where_unknown():
    known = spec(temperature=1.5, face_template=TEMPLATE)
    again = Spec.from_json(known.to_json(), "x")
    assert (again.temperature, again.face_template) == (1.5, TEMPLATE)
    assert not {"temperature", "face_template"} & json.loads(spec().to_json()).keys()


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 0.0},
        {"temperature": "warm"},
        {"face_template": TEMPLATE[:4]},
        {"face_template": [[2, 0]] * 5},
    ],
)
def test_a_temperature_or_template_out_of_bounds_is_refused(wrong):
    header = {**json.loads(spec().to_json()), **wrong}
    with pytest.raises(FertoolError, match=next(iter(wrong))):
        Spec.from_json(json.dumps(header), "x")
