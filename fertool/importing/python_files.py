"""A network that a function in the user's own Python makes."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from fertool.errors import FertoolError, UsageError


def factory_module(source: str, given: Mapping[str, Any]) -> nn.Module:
    """Return what the factory of `path/file.py:factory` or `package.module:factory` makes; its code runs.

    Of `given` the factory gets the arguments that it has. Raises UsageError where there is no such function, and
    FertoolError where it fails or makes no module.
    """
    place, _, name = source.rpartition(":")
    factory = _factory(_loaded(place, source), name, source)
    taken = _accepted(factory, given)
    try:
        module = factory(**taken)
    except Exception as error:  # What the user's own code fails with can be anything.
        raise FertoolError(
            f"{source}: {name}({_shown(taken)}) failed: {type(error).__name__}: {error}",
            "call it in Python first",
        ) from error
    if not isinstance(module, nn.Module):
        raise FertoolError(
            f"{source}: {name}() made a {type(module).__name__}", "return a torch.nn.Module"
        )
    return module


def _loaded(place: str, source: str) -> ModuleType:
    path = Path(place)
    try:
        if path.suffix != ".py":
            return importlib.import_module(place)
        if not path.is_file():
            raise UsageError(f"{source}: there is no file {place}", "give path/file.py:factory")
        found = importlib.util.spec_from_file_location(path.stem, path)
        assert found is not None
        assert found.loader is not None
        module = importlib.util.module_from_spec(found)
        # What stands beside a file can be imported by it, as when Python runs it.
        sys.path.insert(0, str(path.parent.resolve()))
        try:
            sys.modules[path.stem] = module
            found.loader.exec_module(module)
        finally:
            sys.path.remove(str(path.parent.resolve()))
    except UsageError:
        raise
    except Exception as error:  # As above.
        raise UsageError(
            f"{source}: {place} does not load: {type(error).__name__}: {error}",
            "give path/file.py:factory",
        ) from None
    return module


def _factory(module: ModuleType, name: str, source: str) -> Callable[..., Any]:
    factory = getattr(module, name, None)
    if isinstance(factory, nn.Module):
        return lambda: factory
    if not callable(factory):
        known = [
            key
            for key, value in vars(module).items()
            if callable(value) and not key.startswith("_")
        ]
        raise UsageError(
            f"{source}: it has no function '{name}'", f"it has {', '.join(known[:8]) or 'none'}"
        )
    return factory  # type: ignore[no-any-return]


def _accepted(factory: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(factory).parameters
    return {name: value for name, value in given.items() if name in parameters}


def _shown(taken: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in taken.items())
