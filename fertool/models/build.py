"""Spec to module and back: the only place where a model file becomes a network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fertool import cost
from fertool.artifact import store
from fertool.errors import FertoolError
from fertool.graph.capture import capture
from fertool.graph.ir import Graph
from fertool.graph.network import ImageShape, Network
from fertool.header_json import canonical_json
from fertool.models.dynamic import DynamicNetwork, ImageGate
from fertool.models.registry import get_architecture, resolve_arch_args
from fertool.spec import InputSpec, Spec
from fertool.strict_json import listed

_DRAWN = (
    *(nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm),
)
_LISTED = 20
"""Tensors that an error lists."""


def create(
    arch: str, arch_args: Mapping[str, Any], input: InputSpec, classes: tuple[str, ...]
) -> tuple[Spec, Network]:
    """Return a new, randomly initialised network of the zoo and its spec.

    Raises UsageError for an unknown architecture and for arguments that are not its own.
    """
    resolved = resolve_arch_args(arch, arch_args, input.size)
    module = get_architecture(arch)(
        num_classes=len(classes), in_channels=input.channels, **resolved
    )
    graph = _graph_of(arch, canonical_json(resolved), len(classes), image_shape(input), module)
    network = Network(graph, image_shape(input))
    state = module.state_dict()
    network.load_state_dict({name: state[name] for name in network.state_dict()}, assign=True)
    return Spec(arch=arch, arch_args=resolved, graph=graph, input=input, classes=classes), network


_KNOWN: dict[tuple[str, str, int, ImageShape], Graph] = {}
"""Graphs of the zoo that this process has captured already."""


def _graph_of(
    arch: str, arch_args: str, classes: int, image: ImageShape, module: nn.Module
) -> Graph:
    key = (arch, arch_args, classes, image)
    if key not in _KNOWN:
        _KNOWN[key] = capture(module, image).graph
    return _KNOWN[key]


def image_shape(input: InputSpec) -> ImageShape:
    """Return the shape of one image: channels, height, width."""
    return input.channels, input.size, input.size


def build(spec: Spec) -> Network | DynamicNetwork:
    """Return the float network of a spec without values, on the meta device.

    Where the spec has gates that is all profiles and the gate. Raises FertoolError for a graph that does not fit
    together or makes another number of logits than there are classes.
    """
    if spec.gates is not None:
        with torch.device("meta"):
            gate = ImageGate(len(spec.gates.profiles), spec.gates.hidden)
        return DynamicNetwork(
            gate, [_built(profile, spec) for profile in spec.gates.profiles], spec.gates.shares
        )
    return _built(spec.graph, spec)


def _built(graph: Graph, spec: Spec) -> Network:
    network = Network(graph, image_shape(spec.input))
    made = network.shapes[graph.output]
    if made != (len(spec.classes),):
        raise FertoolError(
            f"the graph makes {list(made)} for one image, where there are {len(spec.classes)} classes",
            "make the file again",
        )
    return network


def randomised(network: Network) -> Network:
    """Return a network of the same graph with random weights, as PyTorch draws them for each layer."""
    fresh = Network(network.graph, network.image).to_empty(device="cpu")
    for part in fresh.modules():
        if isinstance(part, _DRAWN):
            part.reset_parameters()
    alone = (node.name for node in fresh.graph.nodes if node.operator.inputs == (0, 0))
    state = fresh.state_dict()
    for name in alone:
        state[name].fill_(1)
    return fresh.eval()


def for_classes(spec: Spec, module: nn.Module, classes: tuple[str, ...]) -> tuple[Spec, Network]:
    """Return a float network for other classes; where there are more or fewer, its last layer starts afresh.

    Raises FertoolError for a network that is quantised or dynamic, or does not end in a linear layer.
    """
    if spec.quant is not None:
        raise FertoolError(
            "a quantised model cannot be trained again as floats", "give the model it was made from"
        )
    network = static(module)
    started = replace(spec, classes=classes, metrics=None)
    if len(classes) == len(spec.classes):
        return started, network
    last = network.graph.by_name[network.graph.output]
    if last.op != "linear":
        raise FertoolError(
            f"the network ends in {last.op}, not in a linear layer for {len(spec.classes)} classes",
            "import it with as many classes as the data has",
        )
    graph = network.graph.replace_nodes({last.name: [last.with_args(out_features=len(classes))]})
    fresh = randomised(Network(graph, network.image))
    state = network.state_dict()
    kept = {name: tensor for name, tensor in state.items() if name.rpartition(".")[0] != last.name}
    fresh.load_state_dict(kept, strict=False)
    return replace(started, graph=graph), fresh


def static(module: nn.Module) -> Network:
    """Return a module that is a single network; raises FertoolError for a dynamic one."""
    if not isinstance(module, Network):
        raise FertoolError(
            "a dynamic network has several profiles", "give the model that it was made from"
        )
    return module


def load_model(path: Path) -> tuple[Spec, nn.Module]:
    """Open any fertool `.pt` file, float or quantised, as a module in eval mode; nothing in it is executed.

    Raises FertoolError when the file is not one, or listing every tensor that does not fit the spec.
    """
    artifact = store.load(path)
    quant = artifact.spec.quant
    _require_layers(artifact.spec, artifact.state_dict, path)
    try:
        module = build(artifact.spec)
        if quant is None:
            _require_fit(artifact.state_dict, module.state_dict(), path)
            module.load_state_dict(artifact.state_dict, assign=True)
            return artifact.spec, module.eval()
        from fertool.models.quantized import loaded_form, quantized_module, stored_form

        module = quantized_module(static(module), artifact.spec)
    except FertoolError as error:
        if error.message.startswith(str(path)):
            raise
        raise FertoolError(f"{path}: {error.message}", error.hint) from None
    wanted = module.state_dict()
    _require_fit(artifact.state_dict, stored_form(quant, wanted), path)
    module.load_state_dict(loaded_form(quant, artifact.state_dict, wanted), assign=True)
    return artifact.spec, module.eval()


def save_model(path: Path, spec: Spec, module: nn.Module) -> Spec:
    """Write a module with its spec, parameters and MACs counted afresh; returns the spec with its digest."""
    counted = cost.count(module, spec.input)
    spec = replace(spec, params=counted.params, macs=counted.macs)
    return store.save(path, spec, tensors_of(spec, module))


def tensors_of(spec: Spec, module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that a model file holds; of fewer than 8 bits packed."""
    if spec.quant is None:
        return module.state_dict()
    from fertool.models.quantized import stored_form

    return stored_form(spec.quant, module.state_dict())


def stored_size(spec: Spec) -> int:
    """Return the bytes of a quantised model's file, which its spec alone decides."""
    from fertool.models.quantized import quantized_module

    module = quantized_module(static(build(replace(spec, quant=None))), spec)
    forms = {
        name: (tensor.shape, tensor.dtype) for name, tensor in tensors_of(spec, module).items()
    }
    zeros = {name: torch.zeros(shape, dtype=dtype) for name, (shape, dtype) in forms.items()}
    return len(store.pack(json.loads(spec.to_json()), zeros)[1])


def _require_layers(spec: Spec, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise FertoolError unless each convolution and linear layer of the graphs has a tensor.

    So a file of few tensors whose graph has thousands of layers is refused before they are built.
    """
    held = {name.rpartition(".")[0] for name in tensors}
    graphs = {"": spec.graph}
    if spec.gates:
        graphs = {
            f"networks.{index}.": profile for index, profile in enumerate(spec.gates.profiles)
        }
    for prefix, graph in graphs.items():
        missing = [prefix + name for name in graph.channels if prefix + name not in held]
        if missing:
            raise FertoolError(
                f"{path}: the tensors do not fit the spec: there are none of {listed(missing)}",
                "make the file again",
            )


def _require_fit(
    state_dict: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path
) -> None:
    problems = [f"{name} is missing" for name in wanted if name not in state_dict]
    problems += [f"{name} is unknown" for name in state_dict if name not in wanted]
    problems += [
        f"{name} is {_form(tensor)}, the spec says {_form(wanted[name])}"
        for name, tensor in state_dict.items()
        if name in wanted and _form(tensor) != _form(wanted[name])
    ]
    if problems:
        said = "; ".join(problems[:_LISTED])
        more = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise FertoolError(
            f"{path}: the tensors do not fit the spec: {said}{more}", "make the file again"
        )


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
