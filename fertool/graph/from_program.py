"""From an exported program (`torch.export.save`, .pt2) to a graph of known operators.

The program's own JSON is read here, call by call, and only functions of ATen that the operator table knows are run.
PyTorch's loader is not used: it unpickles objects and evaluates expressions that stand in the file.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import torch
from msgspec import Meta
from torch import Tensor

from fertool.errors import FertoolError
from fertool.graph.calls import UnknownCallError, function_name
from fertool.graph.capture import CapturedGraph, capture_twice, locate_errors, random_images
from fertool.graph.network import ImageShape
from fertool.graph.read_functions import READERS
from fertool.graph.recorder import Recorder, Recording
from fertool.strict_json import WrongContentError, as_type, shown

_ON_SIZES: Mapping[str, Callable[..., Any]] = {
    "_operator.add": operator.add,
    "_operator.sub": operator.sub,
    "_operator.mul": operator.mul,
    "_operator.floordiv": operator.floordiv,
    "_operator.mod": operator.mod,
}
"""Functions of Python in programs: arithmetic on sizes."""
_ON_TENSORS = "torch.ops.aten."
_QUESTIONS = ("sym_size", "sym_numel", "size", "_assert_tensor_metadata", "_assert_scalar")
_POSITIONAL = 1
_MOST_CALLS = 20_000
_Side = Annotated[int, Meta(ge=1, le=1024)]
"""Rows or columns of an image; more would let a small file fill the memory."""


def capture_program(
    program: Mapping[str, Any], tensors: Mapping[str, Tensor], image: ImageShape | None = None
) -> tuple[CapturedGraph, ImageShape]:
    """Return the graph and the tensors of an exported program, and the shape of its images.

    `program` is its JSON (`models/model.json` of the archive), `tensors` its parameters and buffers by their names,
    the learned ones as nn.Parameter. Raises WrongContentError for what is no such JSON, and FertoolError for calls that
    the table does not know.
    """
    try:
        graph = program["graph_module"]["graph"]
        names = _names_of_inputs(program["graph_module"]["signature"])
        calls, (output, *_) = graph["nodes"], graph["outputs"]
        images = names.pop("")
        image = image or _image_of(graph["tensor_values"][images]["sizes"])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise WrongContentError(
            f"not an exported program ({type(error).__name__}: {error})"
        ) from None
    if len(calls) > _MOST_CALLS:
        raise WrongContentError(f"{len(calls):,} calls")

    def run(batch: int) -> Recording:
        recorder = Recorder(tensors)
        values: dict[str, Any] = {name: _tensor(tensors, own) for name, own in names.items()}
        values[images] = random_images(batch, image)
        recorder.start(values[images])
        with locate_errors(recorder):
            for call in calls:
                _run(call, values, recorder)
            with _written_as_programs_are():
                result = _value(output, values)
            return recorder.finished(result)

    with torch.no_grad():
        return capture_twice(run, image), image


def _names_of_inputs(signature: Mapping[str, Any]) -> dict[str, str]:
    """Return which tensor each input of a program is; the images are under the empty name."""
    names: dict[str, str] = {}
    for entry in signature["input_specs"]:
        ((kind, about),) = entry.items()
        if kind == "user_input":
            if "" in names:
                raise WrongContentError(
                    "the program takes more than one input; a network takes images alone"
                )
            names[""] = about["arg"]["as_tensor"]["name"]
        elif kind in ("parameter", "buffer", "tensor_constant"):
            names[about["arg"]["name"]] = about[f"{kind}_name"]
        else:
            raise WrongContentError(f"the program has an input of the kind {shown(kind)}")
    return as_type(names, dict[str, str])


def _image_of(sizes: list[Mapping[str, Any]]) -> ImageShape:
    if len(sizes) != 4:
        raise WrongContentError(
            f"the program takes tensors of {len(sizes)} axes, not images [N, C, H, W]"
        )
    return as_type([size["as_int"] for size in sizes[1:]], tuple[Literal[1, 3], _Side, _Side])


def _tensor(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise WrongContentError(f"the program has no tensor {shown(name)}")
    return tensors[name]


def _run(call: Mapping[str, Any], values: dict[str, Any], recorder: Recorder) -> None:
    with _written_as_programs_are():
        target = as_type(call["target"], str)
        outputs = _names_of_results(call["outputs"])
        given = [
            (entry["kind"], as_type(entry["name"], str), _value(entry["arg"], values))
            for entry in call["inputs"]
        ]
        recorder.enter(*_place(call.get("metadata")))
    function = _function(target)
    positional = [value for kind, _, value in given if kind == _POSITIONAL]
    named = {name: value for kind, name, value in given if kind != _POSITIONAL}
    try:
        with recorder:
            result = function(*positional, **named)
    except UnknownCallError:
        raise
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise FertoolError(
            f"the program does not run for any number of images: {shown(target)}: {reason}",
            'export it with dynamic_shapes=({0: torch.export.Dim("batch")},)',
        ) from None
    parts = list(result) if isinstance(result, tuple | list) else [result]
    values.update(
        (name, part) for name, part in zip(outputs, parts, strict=False) if name is not None
    )


@contextmanager
def _written_as_programs_are() -> Iterator[None]:
    """Turn what a call has of another form than programs write into a WrongContentError."""
    try:
        yield
    except WrongContentError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise WrongContentError(
            f"a call of the program is not as programs are ({type(error).__name__})"
        ) from None


def _place(metadata: Any) -> tuple[str, str]:
    """Return the path and the class of the innermost module of a stack, which programs write `key,path,class;…`."""
    stack = str((metadata or {}).get("nn_module_stack") or "")
    parts = stack.rpartition(";")[2].split(",")
    return (parts[-2], parts[-1]) if len(parts) >= 3 else ("", "")


def _function(target: Any) -> Callable[..., Any]:
    if target in _ON_SIZES:
        return _ON_SIZES[target]
    name, _, overload = str(target).removeprefix(_ON_TENSORS).partition(".")
    packet = getattr(torch.ops.aten, name, None) if str(target).startswith(_ON_TENSORS) else None
    function: Callable[..., Any] | None = getattr(packet, overload, None)
    if function is None or (function_name(function) not in READERS and name not in _QUESTIONS):
        raise UnknownCallError(f"the function {shown(target)} is not in the operator table")
    return function


def _value(argument: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    """Return an argument as programs write it: a map of its kind to its value."""
    ((kind, value),) = argument.items()
    if kind in ("as_tensor", "as_name", "as_sym_int", "as_sym_float", "as_sym_bool"):
        return _named(kind, value, values)
    if kind in ("as_tensors", "as_sym_ints", "as_optional_tensors", "as_nested_tensors"):
        inner = {"as_tensors": "as_tensor", "as_sym_ints": "as_sym_int"}.get(kind)
        return [_value(entry if inner is None else {inner: entry}, values) for entry in value]
    if kind == "as_none":
        return None
    if kind in (
        "as_int",
        "as_float",
        "as_bool",
        "as_string",
        "as_ints",
        "as_floats",
        "as_bools",
        "as_strings",
    ):
        return value
    if kind in ("as_scalar_type", "as_memory_format", "as_layout", "as_device"):
        return None
    raise UnknownCallError(f"an argument of the kind {shown(kind)}")


def _named(kind: str, value: Any, values: Mapping[str, Any]) -> Any:
    if kind != "as_tensor" and isinstance(value, dict) and "as_name" not in value:
        return next(iter(value.values()))
    name = value if isinstance(value, str) else value["name" if kind == "as_tensor" else "as_name"]
    if name not in values:
        raise WrongContentError(f"a call reads {shown(name)}, which stands not before it")
    return values[name]


def _names_of_results(outputs: list[Mapping[str, Any]]) -> list[str | None]:
    names: list[str | None] = []
    for entry in outputs:
        ((kind, value),) = entry.items()
        entries = value if kind == "as_tensors" else [value]
        names += [
            one if isinstance(one, str) else one.get("name", one.get("as_name"))
            for one in entries
            if one
        ]
    return as_type(names, list[str | None])
