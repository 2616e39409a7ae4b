"""How exact conversion and resizing inside an exported graph are, and what they cost.

    python benchmarks/preprocessing.py FILE.onnx … --data fer2013.csv -o preprocessing.json
        [--python NAME=PYTHON …]

Preprocessing and a softmax are put before and behind exported files. Validation images, enlarged by
Pillow and tinted, are the crops. Largest difference in gray levels from Pillow's pixels; largest
difference in probability between the graph on the crops and the file on Pillow's pixels, in the
same runtime, and from ONNX Runtime here; microseconds a crop, 10th percentile, one thread. Each
--python is an interpreter with another version of ONNX Runtime, which needs numpy besides.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from importlib import metadata, util
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from onnx import ModelProto, TensorProto, helper
from PIL import Image

from fertool.artifact.atomic import write_atomic
from fertool.artifact.header import read_spec
from fertool.data.image_batches import fit_pictures
from fertool.exporting.preprocessing import add_preprocessing
from fertool.exporting.probabilities import add_softmax
from fertool.spec import InputSpec, PreprocessingSpec
from fertool.workflows.data import open_data

SIZES = ((48, 48), (64, 64), (80, 96), (97, 64), (150, 150), (224, 224), (240, 320))
"""Heights and widths of the crops."""
IMAGES, TIMED = 256, 200
RUNNER = """
import sys, time
import numpy as np
runtime, file, crops, result = sys.argv[1:]
arrays = np.load(crops)
if runtime == "onnxruntime":
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    run = lambda pixels: session.run(None, {name: pixels})[0]
else:
    import openvino
    options = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    if runtime == "openvino":
        options["INFERENCE_PRECISION_HINT"] = "f32"
    network = openvino.Core().compile_model(file, "CPU", options)
    run = lambda pixels: network(pixels)[0].copy()
found = {}
for key in arrays.files:
    pixels = arrays[key]
    parts = [run(pixels[i : i + 64]) for i in range(0, len(pixels), 64)]
    found[key] = np.concatenate(parts)
    times = []
    for i in range(int(TIMED)):
        one = pixels[i % len(pixels)][None]
        start = time.perf_counter()
        run(one)
        times.append(time.perf_counter() - start)
    found[key + "/s"] = np.percentile(times, 10)
np.savez(result, **found)
""".replace("TIMED", str(TIMED))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", type=Path, nargs="+", help="exported .onnx files without either")
    parser.add_argument("--data", required=True)
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    runtimes = {f"onnxruntime {metadata.version('onnxruntime')}": (sys.executable, "onnxruntime")}
    for text in options.python:
        name, _, python = text.partition("=")
        runtimes[name] = (python, "onnxruntime")
    if util.find_spec("openvino"):
        version = metadata.version("openvino")
        runtimes[f"openvino {version}"] = (sys.executable, "openvino")
        runtimes[f"openvino {version}, default precision"] = (sys.executable, "openvino default")

    crops = make_crops(options.data)
    rows = []
    for file in options.files:
        rows += measure(file, crops, runtimes)
    write_atomic(options.output, json.dumps({"rows": rows}, indent=1).encode())


def make_crops(data: str) -> dict[str, np.ndarray]:
    """Return tinted crops uint8 [256, H, W, 3] by their size."""
    faces = open_data(data).fitted().split("val").images[:IMAGES, 0].numpy()
    crops = {}
    for height, width in SIZES:
        enlarged = []
        for face in faces:
            image = Image.fromarray(face).resize((width, height), Image.Resampling.BICUBIC)
            gray = np.asarray(image)
            enlarged.append(np.stack([gray, gray // 8 * 7, gray // 4 * 3], axis=-1))
        crops[f"{height}x{width}"] = np.stack(enlarged)
    return crops


def measure(
    file: Path, crops: dict[str, np.ndarray], runtimes: dict[str, tuple[str, str]]
) -> list[dict[str, Any]]:
    """Return a row for each runtime and size of crops."""
    spec = read_spec(file)
    plain = add_softmax(onnx.load(file), spec.temperature)
    graphs = {
        "file": add_preprocessing(plain, spec.input, PreprocessingSpec()),
        "plain": plain,
        "pixels": add_preprocessing(pixels_alone(spec.input), spec.input, PreprocessingSpec()),
    }
    fitted = {}
    for key, pictures in crops.items():
        planes = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))
        fitted[key] = fit_pictures(planes, spec.input.size, spec.input.channels).numpy()
    rows = []
    reference: Any = None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, arrays in (("crops", crops), ("fitted", fitted)):
            # NumPy's own types know no keywords with the names of arrays.
            np.savez(folder / f"{kind}.npz", **cast(Any, arrays))
        for graph_name, graph in graphs.items():
            onnx.save(graph, folder / f"{graph_name}.onnx")
        for runtime, (python, library) in runtimes.items():
            found = {}
            for graph_name in graphs:
                given = "fitted" if graph_name == "plain" else "crops"
                result = folder / f"{graph_name}.npz"
                inputs = [folder / f"{graph_name}.onnx", folder / f"{given}.npz", result]
                command = [python, "-c", RUNNER, library, *map(str, inputs)]
                subprocess.run(command, check=True)
                found[graph_name] = dict(np.load(result))
            reference = reference or found["file"]
            for key in crops:
                rows.append(row_of(file, runtime, key, found, fitted, reference))
                print(json.dumps(rows[-1]), flush=True)
    return rows


def row_of(
    file: Path,
    runtime: str,
    key: str,
    found: dict[str, Any],
    fitted: dict[str, np.ndarray],
    reference: dict[str, Any],
) -> dict[str, Any]:
    levels = np.abs(found["pixels"][key] - fitted[key])
    probabilities = found["file"][key]
    plain = found["plain"][key]
    return {
        "file": file.name,
        "runtime": runtime,
        "crops": key,
        "max_gray_levels": float(levels.max()),
        "different_pixels": float((levels > 0).mean()),
        "max_probability": float(np.abs(probabilities - plain).max()),
        "same_class": float((probabilities.argmax(1) == plain.argmax(1)).mean()),
        "max_probability_from_first": float(np.abs(probabilities - reference[key]).max()),
        "crop_s": float(found["file"][f"{key}/s"]),
        "plain_s": float(found["plain"][f"{key}/s"]),
        "preprocessing_s": float(found["pixels"][f"{key}/s"]),
    }


def pixels_alone(input: InputSpec) -> ModelProto:
    """Return a graph that gives its images as floats."""
    shape: list[str | int | None] = ["batch", input.channels, input.size, input.size]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, shape)
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)
    cast = helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT)
    graph = helper.make_graph([cast], "pixels", [images], [pixels])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


if __name__ == "__main__":
    main()
