"""From an exported program (`torch.export.save`, .pt2) to a graph of known operators.

The program's own JSON is read here, call by call, and only functions of ATen that the operator
table knows are run. PyTorch's loader is not used: it unpickles objects and evaluates expressions
that stand in the file.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from msgspec import Meta
from torch import Tensor

from fertool.errors import FertoolError
from fertool.graph.capture import CapturedGraph, capture_twice, locate_errors, random_images
from fertool.graph.network import ImageShape, as_results
from fertool.graph.recorder import Recorder, Recording
from fertool.graph.torch_calls import UnsupportedCallError, function_name
from fertool.graph.torch_functions import CONVERTERS
from fertool.strict_json import WrongContentError, as_type, shown

_SIZE_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "_operator.add": operator.add,
    "_operator.sub": operator.sub,
    "_operator.mul": operator.mul,
    "_operator.floordiv": operator.floordiv,
    "_operator.mod": operator.mod,
}
"""Functions of Python in programs: arithmetic on sizes."""
_ATEN_PREFIX = "torch.ops.aten."
_SIZE_QUERIES = ("sym_size", "sym_numel", "size", "_assert_tensor_metadata", "_assert_scalar")
"""Functions of ATen that compute no tensors."""
_PLAIN_KINDS = frozenset(
    {
        "as_int",
        "as_float",
        "as_bool",
        "as_string",
        "as_ints",
        "as_floats",
        "as_bools",
        "as_strings",
    }
)
_REFERENCE_KINDS = frozenset({"as_tensor", "as_name", "as_sym_int", "as_sym_float", "as_sym_bool"})
_ELEMENT_KINDS: Mapping[str, str | None] = {
    "as_tensors": "as_tensor",
    "as_sym_ints": "as_sym_int",
    "as_optional_tensors": None,
    "as_nested_tensors": None,
}
"""The kind of the elements of a list; None where each element has a kind of its own."""
_IGNORED_KINDS = frozenset(
    {"as_none", "as_scalar_type", "as_memory_format", "as_layout", "as_device"}
)
"""Read as None: graphs are float32, and belong to no device."""
_POSITIONAL = 1
"""The number of positional arguments in torch.export's schema (`ArgumentKind`); 2 is by name."""
_MAX_CALLS = 20_000
_Side = Annotated[int, Meta(ge=1, le=1024)]
"""Rows or columns of an image; more would let a small file fill the memory."""


@dataclass(frozen=True)
class _Program:
    """What is needed of a program's JSON; `tensor_inputs` are its tensors by its names for them."""

    calls: Sequence[Mapping[str, Any]]
    image_input: str
    tensor_inputs: Mapping[str, str]
    output: Mapping[str, Any]
    image: ImageShape


def capture_program(
    program: Mapping[str, Any], tensors: Mapping[str, Tensor], image: ImageShape | None = None
) -> tuple[CapturedGraph, ImageShape]:
    """Return the graph and the tensors of an exported program, and the shape of its images.

    `program` is its JSON (`models/model.json` of the archive), `tensors` its parameters and buffers
    by their names, parameters as nn.Parameter.

    Raises WrongContentError for what is no such JSON, and FertoolError for calls that the table
    does not know.
    """
    parsed = _parse(program, image)

    def run(batch: int) -> Recording:
        recorder = Recorder(tensors)
        values: dict[str, Any] = {}
        for name, tensor_name in parsed.tensor_inputs.items():
            values[name] = _tensor(tensors, tensor_name)
        values[parsed.image_input] = random_images(batch, parsed.image)
        recorder.start(values[parsed.image_input])
        with locate_errors(recorder):
            for call in parsed.calls:
                _run_call(call, values, recorder)
            with _checking_form():
                result = _argument(parsed.output, values)
            return recorder.finish(result)

    with torch.no_grad():
        return capture_twice(run, parsed.image), parsed.image


def _parse(program: Mapping[str, Any], image: ImageShape | None) -> _Program:
    try:
        graph = program["graph_module"]["graph"]
        image_input, names = _inputs_by_name(program["graph_module"]["signature"])
        calls = graph["nodes"]
        output, *_ = graph["outputs"]
        if image is None:
            image = _image_shape(graph["tensor_values"][image_input]["sizes"])
        count = len(calls)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise WrongContentError(
            f"not an exported program ({type(error).__name__}: {error})"
        ) from None
    if count > _MAX_CALLS:
        raise WrongContentError(f"{count:,} calls")
    return _Program(calls, image_input, names, output, image)


def _inputs_by_name(signature: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """Return a program's name for the images, and the tensor of each of its other inputs."""
    images: list[str] = []
    names: dict[str, str] = {}
    for entry in signature["input_specs"]:
        ((kind, content),) = entry.items()
        if kind == "user_input":
            images.append(content["arg"]["as_tensor"]["name"])
        elif kind in ("parameter", "buffer", "tensor_constant"):
            names[content["arg"]["name"]] = content[f"{kind}_name"]
        else:
            raise WrongContentError(f"the program has an input of the kind {shown(kind)}")

    if len(images) != 1:
        raise WrongContentError(
            f"the program takes {len(images)} inputs; a network takes images only"
        )
    return as_type(images[0], str), as_type(names, dict[str, str])


def _image_shape(sizes: list[Mapping[str, Any]]) -> ImageShape:
    if len(sizes) != 4:
        raise WrongContentError(
            f"the program takes tensors of {len(sizes)} axes, not images [N, C, H, W]"
        )
    return as_type([size["as_int"] for size in sizes[1:]], tuple[Literal[1, 3], _Side, _Side])


def _tensor(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise WrongContentError(f"the program has no tensor {shown(name)}")
    return tensors[name]


def _run_call(call: Mapping[str, Any], values: dict[str, Any], recorder: Recorder) -> None:
    """Run one call under the recorder and add its results to the values."""
    positional: list[Any] = []
    named: dict[str, Any] = {}
    with _checking_form():
        target = as_type(call["target"], str)
        outputs = _output_names(call["outputs"])
        for entry in call["inputs"]:
            kind, name = entry["kind"], as_type(entry["name"], str)
            value = _argument(entry["arg"], values)
            if kind == _POSITIONAL:
                positional.append(value)
            else:
                named[name] = value
        recorder.set_module(*_innermost_module(call.get("metadata")))

    function = _function(target)
    try:
        with recorder:
            result = function(*positional, **named)
    except UnsupportedCallError:
        raise
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise FertoolError(
            f"the program does not run for any number of images: {shown(target)}: {reason}",
            'export it with dynamic_shapes=({0: torch.export.Dim("batch")},)',
        ) from None

    for output, part in zip(outputs, as_results(result), strict=False):
        if output is not None:
            values[output] = part


@contextmanager
def _checking_form() -> Iterator[None]:
    """Turn what is malformed inside the block into a WrongContentError."""
    try:
        yield
    except WrongContentError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise WrongContentError(
            f"a call of the program is malformed ({type(error).__name__})"
        ) from None


def _innermost_module(metadata: Any) -> tuple[str, str]:
    """Return path and class of the innermost module; programs write `key,path,class;…`."""
    stack = str((metadata or {}).get("nn_module_stack") or "")
    parts = stack.rpartition(";")[2].split(",")
    if len(parts) < 3:
        return "", ""
    return parts[-2], parts[-1]


def _function(target: str) -> Callable[..., Any]:
    """Return the function of a call; raises UnsupportedCallError for all that are not known."""
    if target in _SIZE_FUNCTIONS:
        return _SIZE_FUNCTIONS[target]

    function: Callable[..., Any] | None = None
    name, _, overload = target.removeprefix(_ATEN_PREFIX).partition(".")
    if target.startswith(_ATEN_PREFIX):
        # By attribute and never by `eval`: a name that is no operator is None.
        packet = getattr(torch.ops.aten, name, None)
        function = getattr(packet, overload, None)
    # A file must not choose what runs: only functions that are named in this package do.
    is_known = function is not None and (
        function_name(function) in CONVERTERS or name in _SIZE_QUERIES
    )
    if function is None or not is_known:
        raise UnsupportedCallError(f"the function {shown(target)} is not in the operator table")
    return function


def _argument(argument: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    """Return an argument, which programs write as a map of its kind to its value."""
    ((kind, value),) = argument.items()
    if kind in _PLAIN_KINDS:
        return value
    if kind in _IGNORED_KINDS:
        return None
    if kind in _REFERENCE_KINDS:
        return _referenced(kind, value, values)
    if kind in _ELEMENT_KINDS:
        return _elements(_ELEMENT_KINDS[kind], value, values)
    raise UnsupportedCallError(f"an argument of the kind {shown(kind)}")


def _elements(kind: str | None, entries: Sequence[Any], values: Mapping[str, Any]) -> list[Any]:
    """Return the elements of a list, of one kind or, for None, each of its own."""
    elements: list[Any] = []
    for entry in entries:
        argument = entry
        if kind is not None:
            argument = {kind: entry}
        elements.append(_argument(argument, values))
    return elements


def _referenced(kind: str, value: Any, values: Mapping[str, Any]) -> Any:
    """Return the value that an argument names."""
    # Symbolic numbers are either names or, as `as_int` and the like, numbers after all.
    if kind != "as_tensor" and isinstance(value, dict) and "as_name" not in value:
        return next(iter(value.values()))

    if isinstance(value, str):
        name = value
    elif kind == "as_tensor":
        name = value["name"]
    else:
        name = value["as_name"]
    if name not in values:
        raise WrongContentError(f"a call reads {shown(name)}, which no call before it computes")
    return values[name]


def _output_names(outputs: list[Mapping[str, Any]]) -> list[str | None]:
    """Return the names of a call's results, None for results without a name."""
    names: list[str | None] = []
    for entry in outputs:
        ((kind, value),) = entry.items()
        entries = value if kind == "as_tensors" else [value]
        for output in entries:
            # Results that nothing reads have no name.
            if not output:
                continue
            if isinstance(output, str):
                names.append(output)
            else:
                names.append(output.get("name", output.get("as_name")))
    return as_type(names, list[str | None])
