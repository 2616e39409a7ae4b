"""From a module to the bytes of an ONNX file that takes raw pixels and carries the spec."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import onnx
import torch
from onnx import ModelProto
from torch import nn

from fertool.artifact.contract import (
    BATCH,
    CONTRACT_KEY,
    IMAGES,
    LOGITS,
    PROBABILITIES,
    Contract,
)
from fertool.artifact.header import ONNX_KEY
from fertool.artifact.onnx_digest import append_digest
from fertool.config.exporting import MIN_SAVING, ExportConfig
from fertool.errors import FertoolError, first_line
from fertool.exporting.cascade_routing import route_cascade
from fertool.exporting.onnx_modules import PixelNetwork, ProfileChoice, make_onnx_network
from fertool.exporting.passes import (
    FAST,
    PLAIN,
    SMALL,
    STANDARD_OPERATORS,
    list_passes,
    require_known_passes,
    run_passes,
)
from fertool.exporting.preprocessing import add_preprocessing
from fertool.exporting.probabilities import add_softmax
from fertool.exporting.profile_routing import route_profiles
from fertool.graph.folding import fold_for_inference
from fertool.models.build import require_static
from fertool.models.cascade_network import CascadeNetwork
from fertool.models.dynamic_network import DynamicNetwork
from fertool.models.profile_network import ProfileNetwork
from fertool.spec import InputSpec, PreprocessingSpec, Spec


def export_model(
    spec: Spec,
    module: nn.Module,
    config: ExportConfig = ExportConfig(),
    on_note: Callable[[str], None] = lambda note: None,
    *,
    arranged: bool = False,
) -> bytes:
    """Return an ONNX file of a network that reads raw pixels.

    The input is "images" uint8 [N, C, S, S] with N free, the output "logits" float32 [N, K]; with
    preprocessing or a softmax they are those of `fertool.artifact.contract.Contract`.
    Normalization is inside: the graph begins with a DequantizeLinear, the same map as
    `fertool.data.pixels.to_input`. A quantized module becomes QuantizeLinear / DequantizeLinear
    pairs around float operators, with weights and biases as integers, which runtimes turn into
    integer operators. A dynamic network has a second output, "profile" int64 [N]: which of its
    networks computed the logits. The last bytes are a digest of all others. `arranged` puts INT8
    weights of one byte each into the shapes in which ONNX Runtime is up to 6 % faster, and OpenVINO
    takes up to 1.8 times as long. `on_note` is told when onnxsim failed and the file is exported
    without it. The same spec and module give the same bytes. Raises FertoolError when the network
    has an operator that ONNX lacks.
    """
    if isinstance(module, ProfileNetwork):
        model = _export_dynamic(spec, module, config, on_note, arranged)
    else:
        model = _export_static(spec, module, config, on_note, arranged)

    spec = exported_spec(spec, config)
    if spec.preprocessing is not None:
        model = add_preprocessing(model, spec.input, spec.preprocessing)
    if spec.output is not None:
        model = add_softmax(model, spec.temperature)
    model.metadata_props.add(key=ONNX_KEY, value=spec.to_json(deflated=True))
    if spec.preprocessing or spec.output:
        # For programs that do not know the header; others read it there.
        model.metadata_props.add(key=CONTRACT_KEY, value=Contract.of(spec).to_json())
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise FertoolError(
            f"the ONNX graph is not valid: {error}", "try another ``opset``, or ``simplify=False``"
        ) from None
    return append_digest(model.SerializeToString(deterministic=True))


def exported_spec(spec: Spec, config: ExportConfig) -> Spec:
    """Return the header of a file, which records what its graph does beside the network.

    Raises FertoolError for a network whose images no picture has the channels of.
    """
    if config.with_preprocessing:
        if spec.input.channels not in (1, 3):
            raise FertoolError(
                f"a network of {spec.input.channels} channels: crops have 1 or 3",
                "leave ``with_preprocessing`` out",
            )
        channels: Literal[1, 3] = 1 if config.crop_channels == 1 else 3
        spec = replace(
            spec, preprocessing=PreprocessingSpec(config.crop_layout or "nhwc", channels)
        )
    if config.with_softmax:
        spec = replace(spec, output=PROBABILITIES)
    return spec


def _export_dynamic(
    spec: Spec,
    module: ProfileNetwork,
    config: ExportConfig,
    on_note: Callable[[str], None],
    arranged: bool,
) -> ModelProto:
    networks = []
    for index, network in enumerate(module.networks):
        networks.append(_export_static(spec.of_profile(index), network, config, on_note, arranged))
    classes = len(spec.classes)
    if isinstance(module, CascadeNetwork):
        return route_cascade(networks, module.thresholds, classes)
    assert isinstance(module, DynamicNetwork)
    choice = ProfileChoice(module.gate.folded())
    gate = _export_graph(choice, spec.input, config, on_note, arranged)
    return route_profiles(gate, networks, module.shares, classes)


def _export_static(
    spec: Spec,
    module: nn.Module,
    config: ExportConfig,
    on_note: Callable[[str], None],
    arranged: bool,
) -> ModelProto:
    network: nn.Module
    if spec.quant is None:
        network = fold_for_inference(require_static(module))
    else:
        network = make_onnx_network(module)
    return _export_graph(network, spec.input, config, on_note, arranged)


def _export_graph(
    network: nn.Module,
    input: InputSpec,
    config: ExportConfig,
    on_note: Callable[[str], None],
    arranged: bool,
) -> ModelProto:
    """Trace one network and run the passes over its graph, each of which keeps the logits."""
    model = _trace(PixelNetwork(network, input), input, config.opset)
    passes = list_passes(config.simplify_timeout_s, on_note)
    require_known_passes(config.skipped_passes)
    skipped = set(config.skipped_passes)
    if not config.simplify:
        skipped.add("simplify")

    model = run_passes(model, passes, STANDARD_OPERATORS, skipped)
    whole = run_passes(model, passes, FAST if arranged else PLAIN, skipped)
    if config.packed is False:
        return whole
    small = run_passes(model, passes, SMALL, skipped)
    # Packed weights take a runtime several times as long to load.
    saves_much = small.ByteSize() <= (1 - MIN_SAVING) * whole.ByteSize()
    return small if config.packed or saves_much else whole


def _trace(network: nn.Module, input: InputSpec, opset: int) -> ModelProto:
    """Return the graph that torch's exporter makes of a network.

    Raises FertoolError for a network with an operator that the operator set lacks.
    """
    # More than one image, so that nothing in the trace can depend on a batch of one.
    images = torch.zeros(2, input.channels, input.size, input.size, dtype=torch.uint8)
    buffer = io.BytesIO()
    network = network.cpu().eval()
    hook = network.register_forward_pre_hook(_disable_exporter_log)
    try:
        # The exporter warns that it is the older of two; the newer cannot write integer weights.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network,
                (images,),
                # The annotation forgets the buffers that it takes.
                buffer,  # type: ignore[arg-type]
                input_names=[IMAGES],
                output_names=[LOGITS],
                opset_version=opset,
                dynamic_axes={IMAGES: {0: BATCH}, LOGITS: {0: BATCH}},
                dynamo=False,
                autograd_inlining=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        raise FertoolError(
            f"the network cannot be written as ONNX opset {opset}: {first_line(error)}",
            "try another ``opset``",
        ) from None
    finally:
        hook.remove()
    return onnx.load_from_string(buffer.getvalue())


def _disable_exporter_log(network: nn.Module, images: object) -> None:
    """Disable the log of torch's exporter; a hook that it calls once it is at work.

    The exporter enables the log when it starts, for whatever `verbose` is, and leaves it enabled:
    after a failure it would print the whole graph on stdout, from C++, where Python cannot catch
    it.
    """
    disable = getattr(torch._C, "_jit_set_onnx_log_enabled", None)
    if disable is not None:
        disable(False)
