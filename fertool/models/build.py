"""Spec to module and back: the only place where a model file becomes a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fertool import cost
from fertool.artifact import store
from fertool.artifact.atomic import write_atomic
from fertool.errors import FertoolError, join_problems, naming
from fertool.gate_spec import profile_prefix
from fertool.graph.capture import capture
from fertool.graph.ir import Graph
from fertool.graph.network import ImageShape, Network
from fertool.header_json import canonical_json
from fertool.models.architecture import get_architecture, resolve_arch_args
from fertool.models.cascade_network import CascadeNetwork
from fertool.models.dynamic_network import DynamicNetwork, ImageGate
from fertool.models.profile_network import ProfileNetwork
from fertool.models.quantized import QuantizedNet, build_quantized
from fertool.models.quantized_gate import GATE_LAYERS, QuantizedGate
from fertool.models.stored_tensors import pack_tensors, unpack_tensors
from fertool.spec import InputSpec, QuantSpec, Spec
from fertool.strict_json import listed

_INITIALIZED = (
    nn.Conv1d,
    nn.Conv2d,
    nn.ConvTranspose2d,
    nn.Linear,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.LayerNorm,
    nn.GroupNorm,
)
"""Layers that PyTorch gives initial values."""

# Capture takes longer than the rest of making a network, and one process makes the same one often.
_CAPTURED: dict[tuple[str, str, int, ImageShape], Graph] = {}
"""Captured graphs of the zoo, by name, arguments, number of classes and image shape."""


def create(
    arch: str, arch_args: Mapping[str, Any], input: InputSpec, classes: tuple[str, ...]
) -> tuple[Spec, Network]:
    """Return a new, randomly initialized network of the zoo and its spec.

    Raises UsageError for an unknown architecture and for arguments that it does not have.
    """
    resolved = resolve_arch_args(arch, arch_args, input.size)
    module = get_architecture(arch)(
        num_classes=len(classes), in_channels=input.channels, **resolved
    )
    image = image_shape(input)
    key = (arch, canonical_json(resolved), len(classes), image)
    if key not in _CAPTURED:
        _CAPTURED[key] = capture(module, image).graph
    graph = _CAPTURED[key]
    network = Network(graph, image)
    # In the network's order, and only what it has: capture drops tensors that no node reads.
    state = module.state_dict()
    network.load_state_dict({name: state[name] for name in network.state_dict()}, assign=True)
    return Spec(arch=arch, arch_args=resolved, graph=graph, input=input, classes=classes), network


def image_shape(input: InputSpec) -> ImageShape:
    """Return the shape of one image: channels, height, width."""
    return input.channels, input.size, input.size


def build(spec: Spec) -> Network | ProfileNetwork:
    """Return the float network of a spec without values, on the meta device.

    Where the spec has gates, all profiles and the gate. Raises FertoolError for a graph that does
    not fit together or has another number of logits than there are classes.
    """
    gates = spec.gates
    if gates is None:
        return _build_graph(spec.graph, spec)
    networks = [_build_graph(profile, spec) for profile in gates.profiles]
    if gates.thresholds is not None:
        _require_two_classes(spec)
        return CascadeNetwork(networks, gates.thresholds, gates.shares)
    with torch.device("meta"):
        gate = ImageGate(len(gates.profiles), gates.hidden)
    return DynamicNetwork(gate, networks, gates.shares)


def build_integer_form(module: nn.Module, spec: Spec) -> QuantizedNet | ProfileNetwork:
    """Return the integer form of a float network by its spec's `quant`, not yet filled in.

    Of a dynamic network that of each profile that has one, and of the gate.
    """
    if not isinstance(module, ProfileNetwork):
        return build_quantized(require_static(module), spec)
    assert spec.quant is not None
    _require_known_parts(spec, spec.quant)
    networks: list[nn.Module] = []
    for index, network in enumerate(module.networks):
        profile = spec.of_profile(index)
        if profile.quant is not None:
            network = build_quantized(require_static(network), profile)
        networks.append(network)
    gate = None
    if isinstance(module.gate, ImageGate) and GATE_LAYERS[0] in spec.quant.weights:
        gate = QuantizedGate(module.gate)
    return module.with_networks(networks, gate).eval()


def _require_known_parts(spec: Spec, quant: QuantSpec) -> None:
    """Raise FertoolError for names of a header that belong to no profile and not to the gate."""
    assert spec.gates is not None
    prefixes = tuple(profile_prefix(index) for index in range(len(spec.gates.profiles)))
    gate_layers = GATE_LAYERS if spec.gates.kind == "statistics" else ()
    unknown = []
    for name, rule in quant.weights.items():
        is_gate = name in gate_layers and len(rule.bits) == 1
        if not is_gate and not name.startswith(prefixes):
            unknown.append(f"layer {name}")
    for name in quant.activations:
        if not name.startswith(prefixes):
            unknown.append(f"activation {name}")
    if unknown:
        raise FertoolError(
            f"the header does not fit the graph: no {', no '.join(unknown)}",
            "quantize again with this version",
        )


def _require_two_classes(spec: Spec) -> None:
    if len(spec.classes) < 2:
        raise FertoolError("a cascade of networks with one class", "make the file again")


def _build_graph(graph: Graph, spec: Spec) -> Network:
    network = Network(graph, image_shape(spec.input))
    output_shape = network.shapes[graph.output]
    if output_shape != (len(spec.classes),):
        raise FertoolError(
            f"the graph makes {list(output_shape)} for one image, "
            f"where there are {len(spec.classes)} classes",
            "make the file again",
        )
    return network


def with_random_weights(network: Network) -> Network:
    """Return a network of the same graph with random weights, as PyTorch draws them by layer."""
    fresh = Network(network.graph, network.image).to_empty(device="cpu")
    for part in fresh.modules():
        if isinstance(part, _INITIALIZED):
            part.reset_parameters()
    # Tensors that are nodes by themselves belong to no layer that would draw them; a 1 keeps
    # scales finite and non-zero.
    state = fresh.state_dict()
    for node in fresh.graph.nodes:
        if node.operator.inputs == (0, 0):
            state[node.name].fill_(1)
    return fresh.eval()


def adapt_to_classes(
    spec: Spec, module: nn.Module, classes: tuple[str, ...]
) -> tuple[Spec, nn.Module]:
    """Return a float network for other classes.

    Where there are more or fewer of them, the last layer gets random weights. Raises FertoolError
    for a network that is quantized, or does not end in a linear layer, and for a dynamic one where
    the number of classes differs.
    """
    if spec.quant is not None:
        raise FertoolError(
            "a quantized model cannot be trained again as floats", "give the model it was made from"
        )
    adapted = replace(spec, classes=classes, metrics=None)
    if len(classes) == len(spec.classes):
        return adapted, module

    network = require_static(module)
    last = network.graph.by_name[network.graph.output]
    if last.op != "linear":
        raise FertoolError(
            f"the network ends in {last.op}, not in a linear layer for {len(spec.classes)} classes",
            "import it with as many classes as the data has",
        )
    graph = network.graph.replace_nodes({last.name: [last.with_args(out_features=len(classes))]})
    fresh = with_random_weights(Network(graph, network.image))
    kept = {}
    for name, tensor in network.state_dict().items():
        if name.rpartition(".")[0] != last.name:
            kept[name] = tensor
    fresh.load_state_dict(kept, strict=False)
    return replace(adapted, graph=graph), fresh


def require_static(module: nn.Module) -> Network:
    """Return a module that is a single network; raises FertoolError for a dynamic one."""
    if not isinstance(module, Network):
        raise FertoolError(
            "a dynamic network has several profiles", "give the model that it was made from"
        )
    return module


def load_model(path: Path) -> tuple[Spec, nn.Module]:
    """Open any fertool `.pt` file, float or quantized, as a module in eval mode.

    Nothing in the file is executed. Raises FertoolError when the file is not one, or listing every
    tensor that does not fit the spec.
    """
    artifact = store.load(path)
    with naming(str(path)):
        _require_layers(artifact.spec, artifact.state_dict)
        module, tensors = _fill(artifact.spec, artifact.state_dict)
    module.load_state_dict(tensors, assign=True)
    return artifact.spec, module.eval()


def _fill(spec: Spec, stored: Mapping[str, Tensor]) -> tuple[nn.Module, Mapping[str, Tensor]]:
    """Return the module of a spec and the tensors to load into it, checked against its own."""
    module = build(spec)
    if spec.quant is None:
        _require_fit(stored, module.state_dict())
        return module, stored
    quantized = build_integer_form(module, spec)
    wanted = quantized.state_dict()
    _require_fit(stored, pack_tensors(spec.quant, wanted))
    return quantized, unpack_tensors(spec.quant, stored, wanted)


def save_model(path: Path, spec: Spec, module: nn.Module) -> Spec:
    """Write a module with its spec; returns the spec with its digest, parameters and MACs."""
    spec, content = pack_model(spec, module)
    write_atomic(path, content)
    return spec


def pack_model(spec: Spec, module: nn.Module) -> tuple[Spec, bytes]:
    """Return the bytes of a module's file, and the spec with its digest, parameters and MACs."""
    # Not those of the spec, which may be of the network before it was pruned.
    counted = cost.count(module, spec.input)
    spec = replace(spec, params=counted.params, macs=counted.macs)
    return store.pack_spec(spec, tensors_of(spec, module))


def tensors_of(spec: Spec, module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that a model file holds; those of fewer than 8 bits are packed."""
    if spec.quant is None:
        return module.state_dict()
    return pack_tensors(spec.quant, module.state_dict())


def stored_size_bytes(spec: Spec) -> int:
    """Return the bytes of a quantized model's file, which its spec alone decides."""
    module = build_integer_form(build(replace(spec, quant=None)), spec)
    zeros = {}
    for name, tensor in tensors_of(spec, module).items():
        # New tensors: those of the module are on the meta device, and have no storage.
        zeros[name] = torch.zeros(tensor.shape, dtype=tensor.dtype)
    _, content = store.pack_spec(spec, zeros)
    return len(content)


def _require_layers(spec: Spec, tensors: Mapping[str, Tensor]) -> None:
    """Raise FertoolError unless each convolution and linear layer of the graphs has a tensor."""
    # Checked before the layers are built: a small file may hold a graph of thousands of them.
    stored = {name.rpartition(".")[0] for name in tensors}
    missing = [layer for layer in _layer_names(spec) if layer not in stored]
    if missing:
        raise FertoolError(
            f"the tensors do not fit the spec: there are none of {listed(missing)}",
            "make the file again",
        )


def _layer_names(spec: Spec) -> Iterator[str]:
    """Yield the names of the layers with weights, as the tensors of a file have them."""
    if spec.gates is None:
        yield from spec.graph.channels
        return
    for index, profile in enumerate(spec.gates.profiles):
        for name in profile.channels:
            yield f"{profile_prefix(index)}{name}"


def _require_fit(stored: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raise FertoolError listing the tensors that are missing, unknown or of another form."""
    problems = []
    for name in wanted:
        if name not in stored:
            problems.append(f"{name} is missing")
    for name, tensor in stored.items():
        if name not in wanted:
            problems.append(f"{name} is unknown")
            continue
        form = _form(tensor)
        wanted_form = _form(wanted[name])
        if form != wanted_form:
            problems.append(f"{name} is {form}, the spec says {wanted_form}")
    if problems:
        raise FertoolError(
            f"the tensors do not fit the spec: {join_problems(problems)}", "make the file again"
        )


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
