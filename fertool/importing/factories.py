"""Networks that functions in the user's own Python code build."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from fertool.errors import FertoolError, UsageError, unknown_name

_LISTED = 8
"""Functions that an error lists."""


def build_with_factory(
    source: str, class_count: int | None, arguments: Mapping[str, Any]
) -> nn.Module:
    """Return what the factory of `path/file.py:factory` or `package.module:factory` builds.

    Its code runs, with `arguments` and, where it has such a parameter, with `class_count` as
    `num_classes`. Raises UsageError where there is no such function or it has no such parameter,
    and FertoolError where it fails or builds no module.
    """
    location, _, name = source.rpartition(":")
    factory = _find_factory(_import_code(location, source), name, source)
    parameters = inspect.signature(factory).parameters
    accepted: dict[str, Any] = {}
    # By name, so that a factory without `num_classes` can be used as it is.
    if class_count is not None and "num_classes" in parameters:
        accepted["num_classes"] = class_count
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    for key, value in arguments.items():
        if key not in parameters and not takes_any:
            raise unknown_name(f"``arch_arg`` of {source}", key, parameters)
        accepted[key] = parse_argument(value, parameters.get(key))
    try:
        module = factory(**accepted)
    except Exception as error:  # What the user's own code fails with can be anything.
        call = ", ".join(f"{key}={value!r}" for key, value in accepted.items())
        raise FertoolError(
            f"{source}: {name}({call}) failed: {type(error).__name__}: {error}",
            "call it in Python first",
        ) from error
    if not isinstance(module, nn.Module):
        raise FertoolError(
            f"{source}: {name}() made a {type(module).__name__}", "return a torch.nn.Module"
        )
    return module


def parse_argument(value: Any, parameter: inspect.Parameter | None = None) -> Any:
    """Return an argument of somebody's function; text becomes the Python value that it writes.

    Text stays text where the parameter takes text, or where it writes no number, switch, tuple,
    list or None.
    """
    if not isinstance(value, str):
        return value
    if parameter is not None and _takes_text(parameter):
        return value
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def _takes_text(parameter: inspect.Parameter) -> bool:
    # Annotations are text themselves under `from __future__ import annotations`.
    return isinstance(parameter.default, str) or parameter.annotation in (str, "str")


def _import_code(location: str, source: str) -> ModuleType:
    """Return the module of a file or of an installed package."""
    path = Path(location)
    is_file = path.suffix == ".py"
    if is_file and not path.is_file():
        raise UsageError(f"{source}: there is no file {location}", "give path/file.py:factory")
    try:
        if is_file:
            return _import_file(path)
        return importlib.import_module(location)
    except Exception as error:  # Importing runs the user's own code, as above.
        raise UsageError(
            f"{source}: {location} does not load: {type(error).__name__}: {error}",
            "give path/file.py:factory",
        ) from None


def _import_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # The file can import its neighbors, as when Python runs it.
    folder = str(path.parent.resolve())
    sys.path.insert(0, folder)
    try:
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(folder)
    return module


def _find_factory(module: ModuleType, name: str, source: str) -> Callable[..., Any]:
    factory = getattr(module, name, None)
    if isinstance(factory, nn.Module):
        # A module is callable, but is the network itself.
        return lambda: factory
    if callable(factory):
        return factory  # type: ignore[no-any-return]

    listed = ", ".join(_public_callables(module)[:_LISTED]) or "none"
    raise UsageError(f"{source}: it has no function '{name}'", f"it has {listed}")


def _public_callables(module: ModuleType) -> list[str]:
    names: list[str] = []
    for name, value in vars(module).items():
        if callable(value) and not name.startswith("_"):
            names.append(name)
    return names
