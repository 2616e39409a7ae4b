"""The oldest ONNX Runtime that is supported has to make the same network of a file as the installed
one.
"""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from settled import patterns, settled

from fertool.config.exporting import ExportConfig
from fertool.config.quantization import QuantizeConfig
from fertool.exporting import export_model
from fertool.quant import make_problem, quantize_model

OLDEST = os.environ.get("FERTOOL_OLDEST_RUNTIME")
"""A Python that has it: `make oldest-runtime` makes one, and `make test` names it."""
RUN = """
import json, sys
import numpy as np, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.log_severity_level = 1, 3
options.optimized_model_filepath = sys.argv[3]
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
(logits,) = session.run(None, {"images": np.load(sys.argv[2])})
print(json.dumps({"version": onnxruntime.__version__, "logits": logits.tolist()}))
"""


@pytest.mark.skipif(not OLDEST, reason="FERTOOL_OLDEST_RUNTIME names no Python")
@pytest.mark.parametrize(
    ("arch", "mixed"),
    [
        ("mobilenet_v2", False),
        ("resnet18", False),
        ("mobilenet_v3_small", True),
        ("shufflenet_v2_x0_5", True),
    ],
)
def test_old_and_new_make_the_same_integer_network(arch, mixed, tmp_path):
    spec, module, data = settled(arch, steps=1, width_mult=0.5)
    bits = None
    if mixed:
        problem = make_problem(spec, module, None)
        generator = torch.Generator().manual_seed(0)
        bits = problem.by_layer(
            torch.randint(2, 9, (len(problem.weight_counts),), generator=generator)
        )
    quant, integer = quantize_model(
        spec, module, data, QuantizeConfig(calibration_images=16), bits=bits
    )
    file, images = tmp_path / "model.onnx", tmp_path / "images.npy"
    file.write_bytes(export_model(replace(spec, quant=quant), integer, ExportConfig()))
    np.save(images, patterns(20, seed=2).images.numpy())
    old = _run(OLDEST, file, images, tmp_path / "old.onnx")
    new = _run(None, file, images, tmp_path / "new.onnx")
    assert old["version"].startswith("1.17.")
    assert new["version"] == onnxruntime.__version__
    counts = [_operators(tmp_path / f"{name}.onnx") for name in ("old", "new")]
    assert counts[0]["QLinearConv"] == counts[1]["QLinearConv"] > 5
    assert "BitShift" not in counts[0]
    scale = np.abs(new["logits"]).max()
    assert np.abs(np.subtract(old["logits"], new["logits"])).max() <= 0.05 * scale
    assert (np.argmax(old["logits"], 1) == np.argmax(new["logits"], 1)).mean() >= 0.9


def _run(python: str | None, file: Path, images: Path, optimised: Path) -> dict:
    import sys

    command = [python or sys.executable, "-c", RUN, str(file), str(images), str(optimised)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _operators(path: Path) -> dict[str, int]:
    operators = [node.op_type for node in onnx.load(path).graph.node]
    return {name: operators.count(name) for name in set(operators)}
