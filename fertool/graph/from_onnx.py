"""From an ONNX file of any program to a graph of known operators.

The nodes of the file are read in their order. What is known beforehand, the arithmetic on shapes above all, is computed
at once; every other node is written as operators of the table. As in `capture.py` that happens for two numbers of
images, and what differs between them depends on the batch. No runtime has a part in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch

from fertool.errors import FertoolError
from fertool.graph import onnx_functions as onnx_functions
from fertool.graph import onnx_layers as onnx_layers
from fertool.graph import onnx_moves as onnx_moves
from fertool.graph.capture import CapturedGraph
from fertool.graph.generalize import generalize
from fertool.graph.ir import INPUT, Graph, make_node
from fertool.graph.network import ImageShape, Network
from fertool.graph.onnx_batch import DependsOnBatchError, free_of_batch
from fertool.graph.onnx_constants import NAME_KEEPING, can_fold, fold
from fertool.graph.onnx_file import (
    HINT,
    Entrance,
    OnnxFile,
    attributes_of,
    constant_of,
    image_shape,
    quantized,
)
from fertool.graph.onnx_names import names_of
from fertool.graph.onnx_patterns import found_again
from fertool.graph.onnx_values import (
    ERF,
    READERS,
    Call,
    Constant,
    Draft,
    Sheet,
    UnreadableNodeError,
    Value,
)
from fertool.graph.operators import OPERATORS
from fertool.strict_json import WrongContentError, listed, shown

_BATCHES = (2, 3)
_MOST_FOLDED = 1 << 24
"""Entries that all constants together may have beyond eight times those of the file."""


@dataclass(frozen=True)
class OnnxNetwork:
    """What an ONNX file holds: the network with its tensors, and the shape of one image.

    `output` is the file's name for what the graph computes, `outputs` are all that the file has. `raw_pixels`: the file
    takes bytes; `channels_last`: it takes [N, H, W, C]. `notes` say in plain sentences what a user should know of how
    the file was read.
    """

    captured: CapturedGraph
    image: ImageShape
    output: str
    outputs: tuple[str, ...]
    raw_pixels: bool = False
    channels_last: bool = False
    notes: tuple[str, ...] = ()


def graph_of_onnx(
    model: onnx.ModelProto, image: ImageShape | None = None, output: str | None = None
) -> OnnxNetwork:
    """Return the graph of an ONNX file of a float32 network, for any number of images [N, C, H, W].

    `image` is for files that leave height and width open. `output` names what the graph shall compute, by default the
    first output; any value inside the graph can be named. Weights that stand in other files have to be loaded before.
    Raises FertoolError naming the first node that cannot be read, and why.
    """
    file = OnnxFile.of(model)
    outputs = tuple(value.name for value in model.graph.output)
    if not outputs:
        raise FertoolError("the ONNX file has no output", "export it again")
    wanted = outputs[0] if output is None else output
    file.keep_only(wanted, outputs)
    entrance = file.entrance()
    shape = image_shape(entrance, image)
    first = _Reading(file, entrance, shape, _BATCHES[0]).run(wanted)
    second = _Reading(file, entrance, shape, _BATCHES[1], first).run(wanted)
    shapes = [reading.result.shape for reading in (first, second)]
    if any(shape[:1] != (batch,) for shape, batch in zip(shapes, _BATCHES, strict=True)):
        raise FertoolError(
            f"the output {shown(wanted)} has the shape {shapes[0]} for {_BATCHES[0]} images",
            "a network has one result for each image; where it has, export it for any number of them",
        )
    notes = list(_notes(file, entrance, outputs, wanted))
    try:
        free_of_batch(first.sheet.drafts, second.sheet.drafts)
    except DependsOnBatchError as error:
        raise _unreadable(error.draft.origin, error) from None
    drafts = _alive(first.sheet.drafts, first.result)
    found_again(drafts)
    drafts = _alive(drafts, first.result)
    captured = _captured(drafts, first, [node.name for node in file.nodes])
    notes += _notes_on_result(drafts)
    graph = generalize(captured.graph, shape)
    kept = CapturedGraph(graph, captured.tensors)
    _require_fit(kept, shape)
    raw_pixels = entrance.kind == onnx.TensorProto.UINT8
    return OnnxNetwork(
        kept, shape, wanted, outputs, raw_pixels, entrance.channels_last, tuple(notes)
    )


class _Reading:
    """One pass over the nodes, for one number of images."""

    def __init__(
        self,
        file: OnnxFile,
        entrance: Entrance,
        image: ImageShape,
        batch: int,
        earlier: _Reading | None = None,
    ) -> None:
        before: list[Draft] = [] if earlier is None else earlier.sheet.drafts
        self.sheet: Sheet = Sheet(batch, entrance.batch, file.opset, before)
        self.result = Draft("identity")
        self.images = Draft("identity", results=(torch.empty(batch, *image, device="meta"),))
        self.images.twin = earlier.images if earlier else None
        self._file = file
        self._room = 8 * file.values + _MOST_FOLDED
        pixels = self.images
        if entrance.channels_last:
            pixels = self.sheet.append(Draft("permute", [self.images], {"dims": (0, 2, 3, 1)}))
        self._known: dict[str, Value] = {entrance.name: pixels}

    def run(self, wanted: str) -> _Reading:
        """Read the nodes, the last of which makes `wanted`."""
        for node in self._file.nodes:
            try:
                results = self._results(node)
            except (UnreadableNodeError, WrongContentError) as error:
                raise _unreadable(node, error) from None
            except (KeyError, StopIteration, IndexError) as error:
                raise _unreadable(
                    node, UnreadableNodeError(f"{error} is missing or not known")
                ) from None
            except (ValueError, TypeError, RuntimeError) as error:
                # Of numpy and of torch's shapes: what the file gives to this node does not belong together.
                reason = str(error).partition("\n")[0]
                raise _unreadable(
                    node, UnreadableNodeError(f"its inputs do not fit ({reason})")
                ) from None
            self._known.update(zip(node.output, results, strict=False))
        result = self._known[wanted]
        if not isinstance(result, Draft) or result is self.images:
            raise FertoolError(
                f"the output {shown(wanted)} is not computed from the images", "name another output"
            )
        self.result = result
        return self

    def _results(self, node: onnx.NodeProto) -> list[Value]:
        inputs = [self._value(name) if name else None for name in node.input]
        attributes = attributes_of(node)
        if node.op_type == "Constant":
            return [constant_of(attributes)]
        given = [value for value in inputs if value is not None]
        constants = [value for value in given if isinstance(value, Constant)]
        is_known = len(constants) == len(given)
        if is_known and node.op_type == "DequantizeLinear":
            raise quantized(node)
        if is_known and can_fold(node.op_type):
            return self._folded(node, attributes, inputs, constants)
        reader = READERS.get(node.op_type)
        if reader is None:
            raise UnreadableNodeError("this operator is read for constants alone")
        result = reader(Call(self.sheet, node, inputs, attributes))
        return [result] if isinstance(result, Constant | Draft) else list(result)

    def _folded(
        self,
        node: onnx.NodeProto,
        attributes: Mapping[str, Any],
        inputs: list[Value | None],
        constants: list[Constant],
    ) -> list[Value]:
        arrays = [value.array if isinstance(value, Constant) else None for value in inputs]
        made = fold(node.op_type, attributes, arrays)
        new = [
            array
            for array in made
            if not any(np.may_share_memory(array, constant.array) for constant in constants)
        ]
        self._room -= sum(array.size for array in new)
        if self._room < 0:
            raise UnreadableNodeError("the constants of the graph grow without end")
        name = constants[0].name if node.op_type in NAME_KEEPING and constants else ""
        of_shape = any(constant.of_shape for constant in constants)
        return [Constant(array, name, of_shape) for array in made]

    def _value(self, name: str) -> Value:
        value = self._known.get(name) or self._file.constant(name)
        if value is None:
            raise UnreadableNodeError(
                f"it reads {shown(name)}, which is neither a weight nor computed before"
            )
        return value


def _alive(drafts: list[Draft], result: Draft) -> list[Draft]:
    """Return the drafts on which the result depends, reading past those that do nothing."""
    wanted = {id(result)}
    for draft in reversed(drafts):
        if id(draft) in wanted:
            draft.inputs = [_past_identity(source) for source in draft.inputs]
            wanted.update(map(id, draft.inputs))
    return [draft for draft in drafts if id(draft) in wanted]


def _past_identity(draft: Draft) -> Draft:
    while draft.op == "identity" and draft.inputs:
        (draft,) = draft.inputs
    return draft


def _captured(drafts: list[Draft], reading: _Reading, nodes: list[str]) -> CapturedGraph:
    """Return the drafts as a graph, with names and tensors."""
    for draft in drafts:
        if draft.op == ERF:
            raise _unreadable(
                draft.origin, UnreadableNodeError("the error function outside of a gelu")
            )
    names = names_of(drafts, nodes)
    names[id(reading.images)] = INPUT
    made = [
        make_node(
            names[id(draft)], draft.op, [names[id(source)] for source in draft.inputs], **draft.args
        )
        for draft in drafts
    ]
    tensors: dict[str, torch.Tensor] = {}
    for draft in drafts:
        name = names[id(draft)]
        for key, array in draft.tensors.items():
            tensors[f"{name}.{key}" if key else name] = torch.from_numpy(
                np.array(array, np.float32, order="C")
            )
        if draft.op == "batch_norm":
            tensors[f"{name}.num_batches_tracked"] = torch.zeros((), dtype=torch.int64)
    return CapturedGraph(Graph(INPUT, tuple(made), names[id(reading.result)]), tensors)


def _require_fit(captured: CapturedGraph, image: ImageShape) -> None:
    """Raise FertoolError for tensors that are not of the shapes that the layers have."""
    wanted = Network(captured.graph, image).state_dict()
    if wanted.keys() != captured.tensors.keys():
        odd = sorted(wanted.keys() ^ captured.tensors.keys())
        raise FertoolError(
            f"the names of the weights clash: {listed(odd)}", "give the layers names of their own"
        )
    for name, tensor in wanted.items():
        if captured.tensors[name].shape != tensor.shape:
            shape = tuple(captured.tensors[name].shape)
            raise FertoolError(
                f"the weight {shown(name)} has the shape {shape}, not {tuple(tensor.shape)}",
                "export the file again",
            )


def _notes(
    file: OnnxFile, entrance: Entrance, outputs: tuple[str, ...], wanted: str
) -> Iterator[str]:
    if len(outputs) > 1:
        yield f"of the outputs {listed(list(outputs))} the graph computes '{wanted}'"
    if entrance.batch is not None:
        yield f"the file was made for {entrance.batch} images at once; the graph takes any number"
    if entrance.channels_last:
        yield "the file takes images with their channels last; the graph takes them first"
    if entrance.kind == onnx.TensorProto.UINT8:
        yield "the file takes pixels from 0 to 255: it prepares them itself"


def _notes_on_result(drafts: list[Draft]) -> Iterator[str]:
    held = Counter(
        draft.held.get("weight")
        for draft in drafts
        if OPERATORS[draft.op].channel_effect == "mixes"
    )
    twice = [name for name, count in held.items() if name and count > 1]
    if twice:
        yield f"each use of {listed(twice)} has got tensors of its own"
    if drafts and drafts[-1].op in ("softmax", "log_softmax", "sigmoid"):
        yield f"the network ends with a {drafts[-1].op}: its results are no logits"


def _unreadable(node: onnx.NodeProto, error: Exception) -> FertoolError:
    where = f"node {shown(node.name)} ({node.op_type}) of the ONNX file"
    return FertoolError(f"{where} cannot be imported: {error}", HINT)
