import base64
import json
import zlib

import pytest

from fertool.errors import FertoolError
from fertool.spec import InputSpec, QuantSpec, Spec, Step, WeightQuant, canonical_json


def spec(**changes):
    fields = {"arch": "toy", "arch_args": {}, "widths": {"b": 2, "a": 1}, "input": InputSpec(), "classes": ("x", "y")}
    return Spec(**{**fields, **changes})


def test_normalisation_is_the_same_map_in_both_forms():
    shape = InputSpec(1, 48, (100 / 255,), (0.25,))
    for pixel in (0, 100, 255):
        direct = (pixel / 255 - shape.mean[0]) / shape.std[0]
        assert (pixel - shape.zero_point[0]) * shape.scale[0] == pytest.approx(direct)


@pytest.mark.parametrize("fields", [{"mean": (0.5,)}, {"mean": (0.0, 0.0)}, {"channels": 3}])
def test_a_normalisation_that_no_graph_can_hold_is_refused(fields):
    with pytest.raises(FertoolError):
        InputSpec(**fields)


def test_text_is_canonical_whatever_the_order_of_the_keys():
    assert spec(widths={"a": 1, "b": 2}).to_json() == spec(widths={"b": 2, "a": 1}).to_json()
    assert canonical_json({"b": [1, 2.5], "a": "é"}) == '{"a":"é","b":[1,2.5]}'


def test_history_grows_oldest_first_and_a_change_loses_the_digest():
    first = spec(digest="abc").with_step(Step("train-teacher", seed=1))
    second = first.with_step(Step("prune"), widths={"a": 1, "b": 1})
    assert [step.command for step in second.provenance] == ["train-teacher", "prune"]
    assert second.digest == ""
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
