"""fertool: from a trained facial-expression model, or any small CNN, to a small device.

The functions here do what the commands do: `load`, `open_data`, `inspect_data`, `import_model`,
`train`, `distill`, `record_logits`, `sweep`, `prune`, `sensitivity`, `quantize`, `cascade`,
`export`, `export_bundle`, `evaluate`, `benchmark`, `predict`, `crop_faces` and `app`.
They are imported when they are first used, so that `import fertool` takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fertool.workflows.app import app
    from fertool.workflows.benchmark import benchmark
    from fertool.workflows.bundle import export_bundle
    from fertool.workflows.cascade import cascade
    from fertool.workflows.crop_faces import crop_faces
    from fertool.workflows.data import Data, inspect_data, open_data
    from fertool.workflows.distill import distill
    from fertool.workflows.evaluate import evaluate
    from fertool.workflows.export import export
    from fertool.workflows.importing import import_model
    from fertool.workflows.model import Model, load
    from fertool.workflows.predict import predict
    from fertool.workflows.prune import plan_pruning, prune
    from fertool.workflows.quantize import quantize
    from fertool.workflows.sensitivity import sensitivity
    from fertool.workflows.sweep import sweep
    from fertool.workflows.teacher_logits import record_logits
    from fertool.workflows.train import train

__version__ = "0.2.0"
__all__ = [
    "Data",
    "Model",
    "app",
    "benchmark",
    "cascade",
    "crop_faces",
    "distill",
    "evaluate",
    "export",
    "export_bundle",
    "import_model",
    "inspect_data",
    "load",
    "open_data",
    "plan_pruning",
    "predict",
    "prune",
    "quantize",
    "record_logits",
    "sensitivity",
    "sweep",
    "train",
]

_MODULES = {
    "Data": "data",
    "Model": "model",
    "app": "app",
    "benchmark": "benchmark",
    "cascade": "cascade",
    "crop_faces": "crop_faces",
    "distill": "distill",
    "evaluate": "evaluate",
    "export": "export",
    "export_bundle": "bundle",
    "import_model": "importing",
    "inspect_data": "data",
    "load": "model",
    "open_data": "data",
    "plan_pruning": "prune",
    "predict": "predict",
    "prune": "prune",
    "quantize": "quantize",
    "record_logits": "teacher_logits",
    "sensitivity": "sensitivity",
    "sweep": "sweep",
    "train": "train",
}
"""The module of `fertool.workflows` that has each name."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'fertool' has no attribute '{name}'")
    module = importlib.import_module(f"fertool.workflows.{_MODULES[name]}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
