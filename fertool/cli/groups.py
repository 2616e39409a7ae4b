"""Let a frozen dataclass of annotated options stand as one parameter of a command.

Typer reads flags from a function's signature. Commands share dozens of options (data, training, output), so here a
parameter whose type is a dataclass stands for one flag per field, and the command receives the dataclass filled in.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from fertool.cli.processes import require_one


def command(function: Callable[..., None], *, shared: bool = False) -> Callable[..., None]:
    """Return `function` with every dataclass parameter replaced by one keyword parameter per field.

    Several processes are refused unless it is `shared`.
    """
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, type[Any]] = {
        name: hint
        for name, hint in hints.items()
        if isinstance(hint, type) and dataclasses.is_dataclass(hint)
    }
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name in groups:
            parameters += _fields(groups[name])
        else:
            parameters.append(
                parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
            )

    @functools.wraps(function)
    def flat(**values: Any) -> None:
        for name, group in groups.items():
            own = {field.name: values.pop(field.name) for field in dataclasses.fields(group)}
            values[name] = group(**own)
        if not shared:
            require_one(function.__name__)
        function(**values)

    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del flat.__wrapped__  # or inspect would look through to the grouped signature
    return flat


def training_command(function: Callable[..., None]) -> Callable[..., None]:
    """Return the same for a command whose work several processes can share."""
    return command(function, shared=True)


def _fields(group: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    missing = dataclasses.MISSING
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is missing else field.default,
            annotation=hints[field.name],
        )
        for field in dataclasses.fields(group)
    ]
