"""Seconds that ONNX Runtime spends in each layer of a network."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from fertool.artifact.atomic import temporary_folder
from fertool.onnx_runtime import (
    kernel_events,
    open_session,
    profiling_options,
    read_profile,
    session_options,
)
from fertool.runtime.operator_times import MICROSECOND

_WEIGHTED_OPERATORS = ("Conv", "Gemm", "MatMul")
_WEIGHT_SUFFIX = ".weight"
_SEPARATOR = "/"
_SUBJECT = "the network to be timed"


def time_layers(content: bytes, *, runs: int = 200, warmup: int = 20) -> dict[str, float]:
    """Return the mean seconds, by layer, of one image on one thread of ONNX Runtime.

    `content` is an ONNX file as `fertool export` writes it, whose weights have the names of their
    layers. Nodes without weights count for the layer that they follow: activations, sums, pools,
    and the changes of memory layout that the runtime inserts. The overhead of the profiler is found
    by running without it, and subtracted from every node in equal parts.
    """
    model = onnx.load_from_string(content)
    _name_nodes_by_layer_(model)
    named = model.SerializeToString()
    events = _profile_nodes(named, warmup + runs)
    # Every run has the same nodes in the same order.
    nodes_per_run = len(events) // (warmup + runs)
    events = events[nodes_per_run * warmup :]

    # A second session, since a profiler cannot be switched off in the first one.
    plain = open_session(named, session_options(threads=1), _SUBJECT)
    _run(plain, warmup)
    profiled_s = sum(event["dur"] for event in events) * MICROSECOND
    overhead_s = max(0.0, profiled_s - _run(plain, runs)) / len(events)

    seconds: dict[str, float] = {}
    layer = ""
    for event in events:
        name, separator, _ = event["name"].partition(_SEPARATOR)
        # A node that the runtime inserted has a name of its own, and counts for the layer before.
        if separator:
            layer = name
        duration_s = (event["dur"] * MICROSECOND - overhead_s) / runs
        seconds[layer] = seconds.get(layer, 0.0) + duration_s
    return {name: max(0.0, value) for name, value in seconds.items()}


def _profile_nodes(model: bytes, runs: int) -> list[dict[str, Any]]:
    """Return the profiler's events of the kernels of all runs, in the order of time."""
    with temporary_folder() as folder:
        session = open_session(model, profiling_options(1, folder), _SUBJECT)
        _run(session, runs)
        events = read_profile(session)
    return sorted(kernel_events(events), key=lambda event: event["ts"])


def _run(session: Any, times: int) -> float:
    """Run a network on a black image; returns the seconds of all runs."""
    (pixels,) = session.get_inputs()
    feed = {pixels.name: np.zeros([1, *pixels.shape[1:]], np.uint8)}
    start = time.perf_counter()
    for _ in range(times):
        session.run(None, feed)
    return time.perf_counter() - start


def _name_nodes_by_layer_(model: onnx.ModelProto) -> None:
    """Name every node and its results after a layer; the runtime derives its names from them."""
    interface = {value.name for value in (*model.graph.input, *model.graph.output)}
    layer_of: dict[str, str] = {}
    new_names: dict[str, str] = {}
    layer = ""
    for number, node in enumerate(model.graph.node):
        layer = _layer_of_node(node, layer_of, default=layer)
        node.name = f"{layer}{_SEPARATOR}{number}"
        for position, value in enumerate(node.input):
            node.input[position] = new_names.get(value, value)

        for position, value in enumerate(node.output):
            layer_of[value] = layer
            # An empty name is an output that is not there; the graph's own ones must stay.
            if value and value not in interface:
                new_names[value] = f"{node.name}.{position}"
                node.output[position] = new_names[value]


def _layer_of_node(node: onnx.NodeProto, layer_of: Mapping[str, str], *, default: str) -> str:
    """Return the layer of a node: that of its weight, else that of its first known input."""
    if node.op_type in _WEIGHTED_OPERATORS:
        for value in node.input:
            if value.endswith(_WEIGHT_SUFFIX):
                layer: str = value.removesuffix(_WEIGHT_SUFFIX)
                return layer
    for value in node.input:
        if value in layer_of:
            return layer_of[value]
    return default
