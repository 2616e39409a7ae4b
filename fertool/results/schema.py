"""JSON Schemas of what commands print and write, from the types of the results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from fertool.results.benchmark import BenchResult
from fertool.results.board import BoardResult, BundleResult
from fertool.results.changes import PrunePreview, PruneResult, QuantizePreview, QuantizeResult
from fertool.results.data_info import DataInfo
from fertool.results.evaluation import EvaluationReport
from fertool.results.fields import Result
from fertool.results.model_results import ExportResult, ImportResult, TrainingResult
from fertool.results.model_summary import LogitsSummary, ModelSummary, ShownModel
from fertool.results.predictions import CropReport, PredictionReport
from fertool.results.sensitivity import Sensitivity
from fertool.results.sweep import SweepResults
from fertool.results.training import History

_DIALECT = "https://json-schema.org/draft/2020-12/schema"

RESULTS: Mapping[str, type[Result]] = {
    "bench": BenchResult,
    "bench-board": BoardResult,
    "cascade": ModelSummary,
    "data-crop": CropReport,
    "data-info": DataInfo,
    "distill": TrainingResult,
    "eval": EvaluationReport,
    "export": ExportResult,
    "export-bundle": BundleResult,
    "hessian-sensitivity": Sensitivity,
    "import": ImportResult,
    "predict": PredictionReport,
    "prune": PruneResult,
    "prune-dry-run": PrunePreview,
    "quantize": QuantizeResult,
    "quantize-dry-run": QuantizePreview,
    "show": ShownModel,
    "show-logits": LogitsSummary,
    "train-teacher": TrainingResult,
    "train-teacher-history": History,
    "train-teacher-sweep": SweepResults,
}
"""What each command prints as JSON and, behind its name, in other cases or in other files."""


def json_schema(kind: type[Result]) -> dict[str, Any]:
    """Return the JSON Schema of a result, with the meaning of each key and its unit."""
    # msgspec names a key by its field, while the JSON drops the underscore of `import_`.
    schema = _with_json_keys(msgspec.json.schema(kind))
    return {"$schema": _DIALECT, **schema}


def _with_json_keys(part: Any) -> Any:
    """Return part of a schema with `import_` as the JSON has it; see `Result.as_dict`."""
    if isinstance(part, dict):
        return {key.rstrip("_"): _with_json_keys(value) for key, value in part.items()}
    if isinstance(part, list):
        return [_with_json_keys(entry) for entry in part]
    return part.rstrip("_") if isinstance(part, str) else part
