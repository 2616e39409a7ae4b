"""Every kind of exported file gives on ARM the logits that it gives here."""

import functools
import json
import os
import subprocess
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from dynamic_networks import dynamic_network
from settled import patterns, settled

from fertool import board
from fertool.config.exporting import ExportConfig
from fertool.config.quantization import QuantizeConfig
from fertool.exporting import export_model
from fertool.quant import make_problem, quantize_model
from fertool.spec import InputSpec

PYTHON = os.environ.get("FERTOOL_ARM_RUNTIME")
"""A Python for ARM: `make arm-runtime` makes one, and `make test` names it."""
PROGRAMS = next(iter(board.__path__))
# All files in one process, whose start takes QEMU seconds.
RUN = """
import json, platform, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from run import compare
from start import open_file
figures = {"machine": platform.machine()}
cases = np.load(sys.argv[2])
for path in sys.argv[3:]:
    name = path.rpartition("/")[2]
    figures[name] = compare(open_file(path, 1), cases["images"], cases[name], None)
print(json.dumps(figures))
"""
IMAGES = patterns(16, seed=2).images.numpy()


@functools.cache
def network():
    return settled("nano_resnet", steps=6, width_mult=0.25)


def quantized(widths):
    spec, module, data = network()
    bits = make_problem(spec, module, None)
    drawn = torch.randint(
        widths, 9, (len(bits.weight_counts),), generator=torch.Generator().manual_seed(0)
    )
    config = QuantizeConfig(calibration_images=32)
    quant, integer = quantize_model(spec, module, data, config, bits=bits.by_layer(drawn))
    return replace(spec, quant=quant), integer


@pytest.mark.skipif(not PYTHON, reason="FERTOOL_ARM_RUNTIME names no Python: make arm-runtime")
@pytest.mark.parametrize("cpu", ["cortex-a72", "neoverse-n1"])
def test_every_kind_of_file_gives_the_same_logits_on_arm(cpu, files, tmp_path):
    paths, cases = files
    words = [PYTHON, "-c", RUN, PROGRAMS, str(cases), *map(str, paths)]
    environment = {**os.environ, "QEMU_CPU": cpu}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["machine"] == "aarch64"
    for path in paths:
        figures = found[path.name]
        # Sums of residual branches are rounded in another way there.
        is_integer = path.name in ("int8.onnx", "mixed.onnx")
        assert figures["max_probability_diff"] <= (0.05 if is_integer else 1e-5), path.name
        assert figures["top1_agreement"] >= (15 / 16 if is_integer else 1), path.name


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return a file of each kind, and the images with the logits of each here."""
    folder = tmp_path_factory.mktemp("arm")
    spec, module, _ = network()
    kinds = {
        "float.onnx": (spec, module, None),
        "int8.onnx": (*quantized(8), None),
        "mixed.onnx": (*quantized(2), True),
        "dynamic.onnx": (*dynamic_network(InputSpec(size=32)), None),
    }
    paths, arrays = [], {"images": IMAGES}
    for name, (spec, module, packed) in kinds.items():
        path = folder / name
        path.write_bytes(export_model(spec, module, ExportConfig(simplify=False, packed=packed)))
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        arrays[name] = np.concatenate(
            [session.run(["logits"], {"images": image[None]})[0] for image in IMAGES]
        )
        paths.append(path)
    np.savez(folder / "cases.npz", **arrays)
    return paths, folder / "cases.npz"
