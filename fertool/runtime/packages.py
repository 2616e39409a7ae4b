"""Packages that are installed as an extra of fertool, imported when a file first needs them."""

from __future__ import annotations

import importlib
from typing import Any

from fertool.errors import FertoolError


def import_extra(module: str, extra: str) -> Any:
    """Return a module; raises FertoolError with the name of the extra where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise FertoolError(
            f"this kind of file needs {module.partition('.')[0]}, which cannot be imported "
            f"({error})",
            f"pip install 'fertool[{extra}]'",
        ) from None
