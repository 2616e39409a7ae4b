"""Face data: one data set type behind all readers.

The names here are imported when they are first used: pictures are decoded without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fertool.data.dataset import FaceDataset
    from fertool.data.opening import open_data
    from fertool.data.options import DataOptions
    from fertool.data.source import DataSource

__all__ = ["DataOptions", "DataSource", "FaceDataset", "open_data"]
_MODULES = {
    "DataOptions": "options",
    "DataSource": "source",
    "FaceDataset": "dataset",
    "open_data": "opening",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'fertool.data' has no attribute '{name}'")
    module = importlib.import_module(f"fertool.data.{_MODULES[name]}")
    return getattr(module, name)
