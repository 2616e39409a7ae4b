"""Seconds that ONNX Runtime spends in each layer of a network."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from fertool.artifact.atomic import temporary_folder
from fertool.onnx_runtime import open_session, session_options

_WEIGHTED = ("Conv", "Gemm", "MatMul")
_SEPARATOR = "/"
_WHERE = "the network to be timed"


def profile_layers(content: bytes, *, runs: int = 200, warmup: int = 20) -> dict[str, float]:
    """Return the mean seconds, by layer, of one image on one thread.

    `content` is an ONNX file as `fertool export` writes it, whose weights bear the names of their layers. What has no
    weights counts for the layer that it follows: activations, sums, pools, and the changes of memory layout that the
    runtime puts in. What the profiler itself takes is found by running without it, and taken off every node alike.
    """
    model = _marked(onnx.load_from_string(content)).SerializeToString()
    with temporary_folder() as folder:
        options = session_options(threads=1)
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "profile")
        session = open_session(model, options, _WHERE)
        _run(session, warmup + runs)
        events = json.loads(Path(session.end_profiling()).read_text())
    nodes = sorted(
        (
            event
            for event in events
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
        ),
        key=lambda event: event["ts"],
    )
    # Every run has the same nodes in the same order.
    nodes = nodes[len(nodes) // (warmup + runs) * warmup :]
    plain = open_session(model, session_options(threads=1), _WHERE)
    _run(plain, warmup)
    extra = max(0.0, sum(event["dur"] for event in nodes) * 1e-6 - _run(plain, runs)) / len(nodes)
    seconds: dict[str, float] = defaultdict(float)
    layer = ""
    for event in nodes:
        name, mark, _ = event["name"].partition(_SEPARATOR)
        layer = name if mark else layer
        seconds[layer] += (event["dur"] * 1e-6 - extra) / runs
    return {name: max(0.0, value) for name, value in seconds.items()}


def _run(session: Any, times: int) -> float:
    """Run a network on a blank image; returns the seconds of all runs."""
    (pixels,) = session.get_inputs()
    feed = {pixels.name: np.zeros([1, *pixels.shape[1:]], np.uint8)}
    start = time.perf_counter()
    for _ in range(times):
        session.run(None, feed)
    return time.perf_counter() - start


def _marked(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with every node and its results named after a layer: the runtime names what it makes of them."""
    kept = {value.name for value in (*model.graph.input, *model.graph.output)}
    owners: dict[str, str] = {}
    names: dict[str, str] = {}
    layer = ""
    for number, node in enumerate(model.graph.node):
        weight = next((value for value in node.input if value.endswith(".weight")), None)
        if weight and node.op_type in _WEIGHTED:
            layer = weight.removesuffix(".weight")
        else:
            layer = next((owners[value] for value in node.input if value in owners), layer)
        node.name = f"{layer}{_SEPARATOR}{number}"
        for position, value in enumerate(node.input):
            node.input[position] = names.get(value, value)
        for position, value in enumerate(node.output):
            owners[value] = layer
            if value and value not in kept:
                names[value] = node.output[position] = f"{layer}{_SEPARATOR}{number}.{position}"
    return model
