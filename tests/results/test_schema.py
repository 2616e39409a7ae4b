"""The JSON Schemas: every key has its meaning, and the keys are those of the JSON."""

from __future__ import annotations

import pytest

from fertool.results import ImportResult, LogitsSummary
from fertool.results.schema import RESULTS, json_schema


@pytest.mark.parametrize("name", RESULTS)
def test_every_key_of_a_result_has_a_meaning(name: str) -> None:
    if RESULTS[name] is LogitsSummary:
        return  # docs/artifact.md has them.
    schema = json_schema(RESULTS[name])
    properties = schema["$defs"][RESULTS[name].__name__]["properties"]
    assert [key for key, part in properties.items() if not part.get("description")] == []


def test_a_key_that_is_a_keyword_stands_as_the_json_has_it() -> None:
    definition = json_schema(ImportResult)["$defs"]["ImportResult"]
    assert "import" in definition["properties"]
    assert "import" in definition["required"]


def test_what_may_be_missing_is_not_required_and_never_null() -> None:
    change = json_schema(RESULTS["quantize"])["$defs"]["Change"]
    assert "required" not in change or "latency_s" not in change["required"]
    assert change["properties"]["latency_s"]["unit"] == "s"
    assert change["properties"]["latency_s"]["type"] == "number"
