"""Print docs/api.md: every name of `import fertool`, from signatures, docstrings and configs."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, get_args, get_type_hints

from tables import table

import fertool
from fertool.config.option import about, help_of, type_of
from fertool.reporter import Reporter

HEAD = """# Python API

Made by `make docs` from the program; do not edit.

`import fertool` offers a function for each command, with the same options, defaults and results.
The names are imported when they are first used, so that `import fertool` itself takes no time.
[The chain in Python](tutorial/chain.ipynb) shows them at work.

- **Options are keyword arguments**: `fertool.prune(model, data, flops=0.5, epochs=6)`. The tables
  [below](#options) list them. A config says the same as an object: `PruneConfig` and others are
  frozen dataclasses of `fertool.config`.
- **Models are never changed**: functions return new ones. With `output` the model is written to a
  file, too.
- **Nothing is printed** unless a [`reporter`](#reporter) is given.
- **Errors** are `FertoolError` of `fertool.errors`, with `message` and `hint`; `UsageError` is one
  for wrong arguments.
"""
FUNCTIONS = (
    "load",
    "open_data",
    "inspect_data",
    "import_model",
    "train",
    "distill",
    "record_logits",
    "sweep",
    "plan_pruning",
    "prune",
    "sensitivity",
    "quantize",
    "cascade",
    "export",
    "export_bundle",
    "predict",
    "crop_faces",
    "app",
    "evaluate",
    "benchmark",
)
CLASSES = ("Model", "Data")
RESULTS = "fertool.results"


def main() -> None:
    """Write the page to stdout."""
    missing = set(fertool.__all__) - {*FUNCTIONS, *CLASSES}
    if missing:
        raise SystemExit(f"docs/make_api.py: no place for {', '.join(sorted(missing))}")
    functions = [getattr(fertool, name) for name in FUNCTIONS]
    print(HEAD)
    print("## Functions\n")
    for function in functions:
        print(describe_function(function))
    print("## Models, data and results\n")
    classes = [getattr(fertool, name) for name in CLASSES]
    for result in dict.fromkeys([*classes, *results(functions), Reporter]):
        print(describe_class(result))
    print("## Options\n")
    print("A default of None means *not given*; numbers have the bounds that the help tells of.\n")
    for config in all_configs(functions):
        print(describe_config(config))


def describe_function(function: Any) -> str:
    """Return the section of a function."""
    texts, errors = paragraphs(function)
    parameters = inspect.signature(function).parameters.values()
    rows = []
    for parameter in parameters:
        name = f"**{parameter.name}" if parameter.kind is parameter.VAR_KEYWORD else parameter.name
        rows.append((f"`{name}`", code(parameter.annotation), default_text(parameter)))
    lines = [f"### {function.__name__}", code_block(function), *texts]
    lines.append(escaped_table(("argument", "type", "default"), rows))
    lines.append(f"**Returns** {linked(str(inspect.signature(function).return_annotation))}.")
    if errors:
        lines.append(f"**Errors.** {errors}")
    configs = configs_of(function)
    if configs:
        links = ", ".join(linked(config.__name__) for config in configs)
        lines.append(f"**Options** are those of {links}.")
    return "\n\n".join(lines) + "\n"


def describe_class(kind: Any) -> str:
    """Return the section of a class: its fields, properties and methods."""
    texts, errors = paragraphs(kind)
    lines = [f"### {kind.__name__}", *texts]
    if errors:
        lines.append(errors)
    bases = [base.__name__ for base in kind.__mro__[1:] if base is fertool.Model]
    if bases:
        lines.append(f"It has all that a {linked(bases[0])} has.")
    rows = []
    for field in dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ():
        is_own = field.name in inspect.get_annotations(kind)
        if is_own and not field.name.startswith("_"):
            meaning = meaning_of(kind, field.name)
            rows.append((f"`{field.name}`", code(plain_type(field.type)), meaning))
    for name, member in vars(kind).items():
        if not name.startswith("_") and is_documented_member(member):
            rows.append(describe_member(name, member))
    if rows:
        lines.append(escaped_table(("member", "type", "meaning"), rows))
    return "\n\n".join(lines) + "\n"


def is_documented_member(member: Any) -> bool:
    """Return whether a member of a class is a property or a method, and no default of a field."""
    function = getattr(member, "__func__", member)
    is_method = inspect.isfunction(function)
    return is_method or isinstance(member, property | cached_property)


def describe_member(name: str, member: Any) -> tuple[str, str, str]:
    """Return the row of a property or a method."""
    meaning = " ".join((inspect.getdoc(member) or "").split())
    getter = getattr(member, "fget", None) or getattr(member, "func", None)
    function = getattr(member, "__func__", member)
    if getter is None and inspect.isfunction(function):
        signature = inspect.signature(function)
        names = [each for each in signature.parameters if each not in ("self", "cls")]
        return f"`{name}({', '.join(names)})`", code(signature.return_annotation), meaning
    annotation = inspect.signature(getter).return_annotation if getter else ""
    return f"`{name}`", code(annotation), meaning


def describe_config(config: Any) -> str:
    """Return the section of a config: its own options, and the configs that it holds."""
    texts, _ = paragraphs(config)
    lines = [f"### {config.__name__}", *texts]
    hints = get_type_hints(config)
    rows = []
    for field in dataclasses.fields(config):
        known = about(field)
        if known is None:
            continue
        names = ", ".join(f"`{name}`" for name in (field.name, *known.aliases))
        kind = type_text(type_of(field, hints[field.name]))
        meaning = " ".join(help_of(known).split())
        rows.append((names, kind, config_default(field), meaning))
    if rows:
        lines.append(escaped_table(("option", "type", "default", "meaning"), rows))
    held = held_configs(config)
    if held:
        links = ", ".join(linked(each.__name__) for each in held)
        lines.append(f"Its options are also those of {links}.")
    return "\n\n".join(lines) + "\n"


def paragraphs(documented: Any) -> tuple[list[str], str]:
    """Return the paragraphs of a docstring, and its sentences about errors."""
    texts, errors = [], []
    for paragraph in (inspect.getdoc(documented) or "").split("\n\n"):
        text = " ".join(paragraph.split())
        before, found, raised = text.partition("Raises ")
        if before.strip():
            texts.append(before.strip())
        if found:
            errors.append(found + raised)
    return texts, " ".join(errors)


def results(functions: Iterable[Any]) -> Iterator[Any]:
    """Yield the classes that functions return, and those in their fields."""
    for function in functions:
        annotation = str(inspect.signature(function).return_annotation)
        found = named_classes(annotation, importlib.import_module(function.__module__))
        while found:
            kind = found.pop(0)
            yield kind
            for field in dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ():
                found += named_classes(str(field.type))


def named_classes(annotation: str, *modules: Any) -> list[Any]:
    """Return the classes of models and results that an annotation names."""
    classes = []
    for name in re.findall(r"\w+", annotation):
        for module in (*modules, *map(importlib.import_module, (RESULTS, "fertool.pruning"))):
            kind = getattr(module, name, None)
            if inspect.isclass(kind) and kind.__module__.startswith(("fertool.", RESULTS)):
                classes.append(kind)
                break
    return classes


def configs_of(function: Any) -> list[Any]:
    """Return the configs that a function takes."""
    defaults = [each.default for each in inspect.signature(function).parameters.values()]
    return [type(default) for default in defaults if dataclasses.is_dataclass(default)]


def held_configs(config: Any) -> list[Any]:
    """Return the configs that a config holds."""
    hints = get_type_hints(config)
    kinds = [hints[field.name] for field in dataclasses.fields(config)]
    return [kind for kind in kinds if dataclasses.is_dataclass(kind)]


def all_configs(functions: Iterable[Any]) -> list[Any]:
    """Return the configs of all functions and those that they hold, each once."""
    found: dict[Any, None] = {}
    waiting: list[Any] = []
    for function in functions:
        waiting += configs_of(function)
    while waiting:
        config = waiting.pop(0)
        found.setdefault(config)
        waiting = held_configs(config) + waiting
    return list(found)


def code_block(function: Any) -> str:
    """Return the signature as code, an argument a line."""
    signature = inspect.signature(function)
    lines = [f"{function.__name__}("]
    is_keyword_only = False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not is_keyword_only:
            lines.append("    *,")
            is_keyword_only = True
        name = parameter.name
        if parameter.kind is parameter.VAR_POSITIONAL:
            name = f"*{name}"
        elif parameter.kind is parameter.VAR_KEYWORD:
            name = f"**{name}"
        default = "" if parameter.default is parameter.empty else f" = {shown(parameter.default)}"
        lines.append(f"    {name}: {parameter.annotation}{default},")
    lines.append(f") -> {signature.return_annotation}")
    return "```python\n" + "\n".join(lines) + "\n```"


def default_text(parameter: inspect.Parameter) -> str:
    """Return the default of an argument as a cell."""
    if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
        return ""
    return "*required*" if parameter.default is parameter.empty else f"`{shown(parameter.default)}`"


def shown(value: Any) -> str:
    """Return a default as it stands in the code."""
    if dataclasses.is_dataclass(value):
        return f"{type(value).__name__}()"
    is_reporter = hasattr(value, "progress")
    return "SILENT" if is_reporter else repr(value)


def config_default(field: dataclasses.Field[Any]) -> str:
    """Return the default of an option as a cell."""
    if field.default_factory is not dataclasses.MISSING:
        return f"`{field.default_factory()!r}`"
    return "" if field.default is dataclasses.MISSING else f"`{field.default!r}`"


def type_text(kind: Any) -> str:
    """Return a type as a cell."""
    text = kind.__name__ if inspect.isclass(kind) else str(kind)
    text = re.sub(r"(typing|pathlib|collections\.abc)\.(_local\.)?", "", text)
    return code(text.replace("Literal[", "one of ").replace("']", "'"))


def code(annotation: Any) -> str:
    """Return an annotation as code in a cell."""
    text = "" if annotation is inspect.Parameter.empty else str(annotation)
    return f"`{text}`" if text else ""


def plain_type(annotation: Any) -> str:
    """Return an annotation without the bounds of its values."""
    text = " ".join(str(annotation).split())
    return re.sub(r"^Annotated\[(.*?), (Meta|described)\(.*\)\]$", r"\1", text)


def meaning_of(kind: Any, name: str) -> str:
    """Return what a field of a result means, from its annotation; nothing for other fields."""
    if not kind.__module__.startswith(RESULTS):
        return ""
    annotation = get_type_hints(kind, include_extras=True)[name]
    meanings = [getattr(each, "description", None) for each in get_args(annotation)]
    return next((meaning for meaning in meanings if meaning), "")


def escaped_table(heads: tuple[str, ...], rows: Iterable[Iterable[str]]) -> str:
    """Return a table whose cells may contain what parts cells."""
    cells = []
    for row in rows:
        cells.append([cell.replace("|", "\\|") for cell in row])
    return table(heads, cells)


def linked(annotation: str) -> str:
    """Return an annotation whose classes are links to their sections."""
    return re.sub(r"\b([A-Z]\w+)", lambda name: f"[`{name[1]}`](#{name[1].lower()})", annotation)


if __name__ == "__main__":
    main()
