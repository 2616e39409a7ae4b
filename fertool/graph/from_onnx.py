"""From an ONNX file of any program to a graph of known operators.

The nodes of the file are converted in their order. What is known beforehand, shape arithmetic above
all, is folded at once; every other node becomes drafts of operators of the table. As in
`capture.py` that happens for two numbers of images, and what differs between them depends on the
batch. No runtime is involved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch

from fertool.errors import FertoolError

# Importing these modules registers their converters.
from fertool.graph import onnx_elementwise as onnx_elementwise
from fertool.graph import onnx_layers as onnx_layers
from fertool.graph import onnx_resize as onnx_resize
from fertool.graph import onnx_shape_ops as onnx_shape_ops
from fertool.graph.capture import BATCH_SIZES, CapturedGraph
from fertool.graph.generalize import generalize
from fertool.graph.ir import INPUT, Graph, Node, make_node
from fertool.graph.network import ImageShape, Network
from fertool.graph.onnx_batch import DependsOnBatchError, generalize_batch_
from fertool.graph.onnx_builder import (
    CONVERTERS,
    ERF,
    Array,
    Constant,
    Draft,
    GraphBuilder,
    OnnxCall,
    UnsupportedNodeError,
    Value,
)
from fertool.graph.onnx_constant_folding import LAYOUT_OPS, can_fold, fold
from fertool.graph.onnx_file import (
    ImageInput,
    OnnxFile,
    attributes_of,
    constant_of,
    quantized_error,
    resolve_image_shape,
)
from fertool.graph.onnx_fusions import fuse_patterns_
from fertool.graph.onnx_names import assign_names
from fertool.graph.operators import OPERATORS, UNSUPPORTED_HINT
from fertool.strict_json import WrongContentError, listed, shown

_MAX_FOLDED = 1 << 24
"""Elements that all folded constants together may have beyond eight times those of the file."""


@dataclass(frozen=True)
class OnnxNetwork:
    """What an ONNX file holds: the network with its tensors, and the shape of one image.

    `output` is the file's name for what the graph computes, `outputs` are all that the file has.
    `raw_pixels`: the file takes bytes; `channels_last`: it takes [N, H, W, C]. `notes` tell the
    user how the file was interpreted.
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

    `image` is for files that leave height and width open. `output` names the value that the graph
    computes, by default the first output; any value inside the graph can be named. Weights that are
    stored in other files have to be loaded before.

    Raises FertoolError naming the first node that cannot be imported, and why.
    """
    file = OnnxFile.from_model(model)
    outputs = tuple(value.name for value in model.graph.output)
    if not outputs:
        raise FertoolError("the ONNX file has no output", "export it again")
    if output is None:
        output = outputs[0]
    file.keep_needed_nodes(output, outputs)
    image_input = file.image_input()
    image = resolve_image_shape(image_input, image)

    first = _Conversion(file, image_input, image, BATCH_SIZES[0])
    first.run(output)
    second = _Conversion(file, image_input, image, BATCH_SIZES[1], earlier=first)
    second.run(output)
    _require_result_per_image((first, second), output)

    captured = _merge(first, second, [node.name for node in file.nodes])
    notes = (
        *_notes_on_file(image_input, outputs, output),
        *_notes_on_graph(first.builder.drafts),
    )
    captured = CapturedGraph(generalize(captured.graph, image), captured.tensors)
    _require_matching_tensors(captured, image)
    return OnnxNetwork(
        captured=captured,
        image=image,
        output=output,
        outputs=outputs,
        raw_pixels=image_input.element_type == onnx.TensorProto.UINT8,
        channels_last=image_input.channels_last,
        notes=notes,
    )


class _Conversion:
    """One pass over the nodes, for one number of images."""

    def __init__(
        self,
        file: OnnxFile,
        image_input: ImageInput,
        image: ImageShape,
        batch: int,
        earlier: _Conversion | None = None,
    ) -> None:
        self.batch = batch
        self.result = Draft("identity")
        self.images = Draft("identity", results=(torch.empty(batch, *image, device="meta"),))
        earlier_drafts: Sequence[Draft] = ()
        if earlier is not None:
            self.images.other_batch = earlier.images
            earlier_drafts = earlier.builder.drafts
        self.builder: GraphBuilder = GraphBuilder(
            batch, image_input.batch, file.opset, earlier_drafts
        )

        pixels = self.images
        if image_input.channels_last:
            to_channels_last = Draft("permute", [self.images], {"dims": (0, 2, 3, 1)})
            pixels = self.builder.append(to_channels_last)
        self._values: dict[str, Value] = {image_input.name: pixels}
        self._file = file
        self._folding_budget = 8 * file.weight_elements + _MAX_FOLDED

    def run(self, output: str) -> None:
        """Convert the nodes, the last of which computes `output`."""
        for node in self._file.nodes:
            results = self._convert_or_explain(node)
            self._values.update(zip(node.output, results, strict=False))

        result = self._values[output]
        if not isinstance(result, Draft) or result is self.images:
            raise FertoolError(
                f"the output {shown(output)} is not computed from the images", "name another output"
            )
        self.result = result

    def _convert_or_explain(self, node: onnx.NodeProto) -> list[Value]:
        """Return the results of a node; raises FertoolError that names the node and the reason."""
        try:
            return self._convert(node)
        except (UnsupportedNodeError, WrongContentError) as error:
            raise _node_error(node, str(error)) from None
        except (KeyError, StopIteration, IndexError) as error:
            raise _node_error(node, f"{error} is missing or not known") from None
        except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
            # Of NumPy and of torch's shapes: the file gives this node what does not fit together.
            reason = str(error).partition("\n")[0]
            raise _node_error(node, f"its inputs do not fit ({reason})") from None

    def _convert(self, node: onnx.NodeProto) -> list[Value]:
        inputs = self._inputs(node)
        attributes = attributes_of(node)
        if node.op_type == "Constant":
            return [constant_of(attributes)]

        depends_on_images = any(isinstance(value, Draft) for value in inputs)
        if not depends_on_images:
            if node.op_type == "DequantizeLinear":
                raise quantized_error(node)
            if can_fold(node.op_type):
                return self._fold(node, attributes, inputs)

        converter = CONVERTERS.get(node.op_type)
        if converter is None:
            raise UnsupportedNodeError("this operator is imported for constants only")
        result = converter(OnnxCall(self.builder, node, inputs, attributes))
        if isinstance(result, Constant | Draft):
            return [result]
        return list(result)

    def _fold(
        self, node: onnx.NodeProto, attributes: Mapping[str, Any], inputs: Sequence[Value | None]
    ) -> list[Value]:
        """Return the results of a node that reads constants only."""
        constants: list[Constant] = []
        arrays: list[Array | None] = []
        for value in inputs:
            if isinstance(value, Constant):
                constants.append(value)
                arrays.append(value.array)
            else:
                arrays.append(None)
        results = fold(node.op_type, attributes, arrays)
        self._spend_folding_budget(results, constants)

        name = ""
        if constants and node.op_type in LAYOUT_OPS:
            name = constants[0].name
        of_shape = any(constant.of_shape for constant in constants)
        return [Constant(result, name, of_shape) for result in results]

    def _spend_folding_budget(
        self, results: Sequence[Array], constants: Sequence[Constant]
    ) -> None:
        """Count new constants; raises UnsupportedNodeError where they are too many in all."""
        for result in results:
            # Views of a weight cost no memory; each new array does.
            if not any(np.may_share_memory(result, constant.array) for constant in constants):
                self._folding_budget -= result.size
        if self._folding_budget < 0:
            raise UnsupportedNodeError("the constants of the graph grow without end")

    def _inputs(self, node: onnx.NodeProto) -> list[Value | None]:
        """Return the inputs of a node, None for optional ones that are not given."""
        inputs: list[Value | None] = []
        for name in node.input:
            value = None
            if name:
                value = self._value(name)
            inputs.append(value)
        return inputs

    def _value(self, name: str) -> Value:
        # Computed values first: a weight of the same name would be another one.
        value = self._values.get(name) or self._file.constant(name)
        if value is None:
            raise UnsupportedNodeError(
                f"it reads {shown(name)}, which is neither a weight nor computed before"
            )
        return value


def _require_result_per_image(conversions: Sequence[_Conversion], output: str) -> None:
    for conversion in conversions:
        if conversion.result.shape[:1] != (conversion.batch,):
            shape, batch = conversions[0].result.shape, conversions[0].batch
            raise FertoolError(
                f"the output {shown(output)} has the shape {shape} for {batch} images",
                "a network has one result for each image; where it has, export it for any number "
                "of them",
            )


def _merge(first: _Conversion, second: _Conversion, node_names: list[str]) -> CapturedGraph:
    """Return the graph of two conversions for any number of images; `first` keeps its drafts."""
    try:
        generalize_batch_(first.builder.drafts, second.builder.drafts)
    except DependsOnBatchError as error:
        raise _node_error(error.draft.origin, str(error)) from None

    drafts = _without_unread(first.builder.drafts, first.result)
    fuse_patterns_(drafts)
    # Once more: fusion leaves the first drafts of each pattern without readers.
    first.builder.drafts = _without_unread(drafts, first.result)
    return _build_graph(first, node_names)


def _without_unread(drafts: list[Draft], result: Draft) -> list[Draft]:
    """Return the drafts on which the result depends, with identities bypassed."""
    needed = {id(result)}
    for draft in reversed(drafts):
        if id(draft) in needed:
            draft.inputs = list(map(_skip_identities, draft.inputs))
            needed.update(map(id, draft.inputs))
    return [draft for draft in drafts if id(draft) in needed]


def _skip_identities(draft: Draft) -> Draft:
    while draft.op == "identity" and draft.inputs:
        (draft,) = draft.inputs
    return draft


def _build_graph(conversion: _Conversion, node_names: list[str]) -> CapturedGraph:
    """Return the drafts of a conversion as a graph, with names and tensors."""
    drafts = conversion.builder.drafts
    for draft in drafts:
        if draft.op == ERF:
            raise _node_error(draft.origin, "the error function outside of a gelu")

    names = assign_names(drafts, node_names)
    names[id(conversion.images)] = INPUT
    nodes: list[Node] = []
    tensors: dict[str, torch.Tensor] = {}
    for draft in drafts:
        name = names[id(draft)]
        inputs = [names[id(source)] for source in draft.inputs]
        nodes.append(make_node(name, draft.op, inputs, **draft.args))

        for key, array in draft.tensors.items():
            contiguous = np.array(array, np.float32, order="C")
            # Parameters outside of layers are their node's only tensor, and have its name.
            tensor_name = name
            if key:
                tensor_name = f"{name}.{key}"
            tensors[tensor_name] = torch.from_numpy(contiguous)
        if draft.op == "batch_norm":
            # ONNX has no such counter, and PyTorch's module has.
            tensors[f"{name}.num_batches_tracked"] = torch.zeros((), dtype=torch.int64)

    graph = Graph(INPUT, tuple(nodes), names[id(conversion.result)])
    return CapturedGraph(graph, tensors)


def _require_matching_tensors(captured: CapturedGraph, image: ImageShape) -> None:
    """Raise FertoolError for tensors whose shapes are not those of the layers."""
    expected = Network(captured.graph, image).state_dict()
    if expected.keys() != captured.tensors.keys():
        odd = sorted(expected.keys() ^ captured.tensors.keys())
        raise FertoolError(
            f"the names of the weights clash: {listed(odd)}", "give the layers names of their own"
        )
    for name, tensor in expected.items():
        shape, wanted = tuple(captured.tensors[name].shape), tuple(tensor.shape)
        if shape != wanted:
            raise FertoolError(
                f"the weight {shown(name)} has the shape {shape}, not {wanted}",
                "export the file again",
            )


def _notes_on_file(image_input: ImageInput, outputs: tuple[str, ...], output: str) -> Iterator[str]:
    if len(outputs) > 1:
        yield f"of the outputs {listed(list(outputs))} the graph computes '{output}'"
    if image_input.batch is not None:
        yield (
            f"the file was exported for {image_input.batch} images at once; "
            "the graph takes any number"
        )
    if image_input.channels_last:
        yield "the file takes images with their channels last; the graph takes them first"
    if image_input.element_type == onnx.TensorProto.UINT8:
        yield "the file takes pixels from 0 to 255 and normalizes them itself"


def _notes_on_graph(drafts: list[Draft]) -> Iterator[str]:
    shared = _shared_weights(drafts)
    if shared:
        yield f"each use of {listed(shared)} has its own tensors now"

    last_op = drafts[-1].op
    if last_op in ("softmax", "log_softmax", "sigmoid"):
        yield f"the network ends with a {last_op}: its results are not logits"


def _shared_weights(drafts: list[Draft]) -> list[str]:
    """Return the names of the weights that several layers of the file use."""
    layers_of_weight: Counter[str] = Counter()
    for draft in drafts:
        weight = draft.initializers.get("weight")
        if weight and OPERATORS[draft.op].channel_effect == "mixes":
            layers_of_weight[weight] += 1
    return [name for name, count in layers_of_weight.items() if count > 1]


def _node_error(node: onnx.NodeProto, reason: str) -> FertoolError:
    where = f"node {shown(node.name)} ({node.op_type}) of the ONNX file"
    return FertoolError(f"{where} cannot be imported: {reason}", UNSUPPORTED_HINT)
