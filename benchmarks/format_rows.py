"""Rows of benchmarks/formats.py that one interpreter measures: write files, run them, compare.

    python benchmarks/format_rows.py JOBS.json

Prints one JSON object a job, as soon as it is done. Only NumPy is imported at the top, and the
oldest ONNX Runtime is run without fertool: its environment has neither PyTorch nor fertool.
"""

from __future__ import annotations

import importlib.metadata
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

RUNS, WARMUP = 60, 5
SECONDS = 2.0
"""The most that the timed passes of one file take, beside those of its reference."""
PACKAGES = {
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "tflite": "ai-edge-litert",
    "executorch": "executorch",
}


def main() -> None:
    """Do the jobs of a file; what goes wrong is a row too."""
    # Lines of libraries go where they do not mix with the rows.
    rows, sys.stdout = sys.stdout, sys.stderr
    for job in json.loads(Path(sys.argv[1]).read_text()):
        print(json.dumps({"doing": job["key"]}), file=rows, flush=True)
        try:
            result = measure(job)
        # A benchmark reports whatever goes wrong, and goes on.
        except Exception as error:
            reason = getattr(error, "message", None) or f"{type(error).__name__}: {error}"
            result = {"failed": reason.strip().splitlines()[0][:300]}
        print(json.dumps({"key": job["key"], **result}), file=rows, flush=True)


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Write the file of a job where it is not there, run it, and compare it with PyTorch's."""
    path = Path(job["file"])
    result: dict[str, Any] = {}
    if not path.exists():
        begun = time.perf_counter()
        write(job, path)
        result["written_s"] = round(time.perf_counter() - begun, 1)
    images, expected = np.load(job["images"]), np.load(job["expected"])
    prepare = open_file(path, job["runtime"])
    logits = run_all(prepare, images, one_by_one=path.suffix in (".tflite", ".pte"))
    companion = path.with_suffix(".bin") if path.suffix == ".xml" else None
    size_bytes = path.stat().st_size + (companion.stat().st_size if companion else 0)
    difference = np.abs(softmax(logits) - softmax(expected)).max()
    result |= {
        "version": importlib.metadata.version(PACKAGES[job["runtime"]]),
        "size_bytes": size_bytes,
        "max_probability_diff": float(f"{difference:.2g}"),
        "top1_agreement": float((logits.argmax(1) == expected.argmax(1)).mean()),
    }
    reference = open_file(Path(job["reference"]), "onnxruntime") if job["reference"] else None
    return result | times(prepare, reference, images[:1])


def write(job: dict[str, Any], path: Path) -> None:
    """Write a model in the format of a path, as `fertool export` does."""
    import torch

    from fertool.config.exporting import ExportConfig
    from fertool.formats.format import load_format
    from fertool.models import load_model

    torch.set_num_threads(1)
    spec, module = load_model(Path(job["model"]))
    config = ExportConfig(packed=job["packed"], simplify=job["simplify"])
    # Under its own name only when it is whole.
    temporary = path.with_name(f"part-{path.name}")
    load_format(job["format"]).write(temporary, spec, module.eval(), config)
    for written in path.parent.glob(f"{temporary.stem}.*"):
        written.replace(written.with_name(written.name.removeprefix("part-")))


def open_file(path: Path, runtime: str) -> Callable[[Any], Any]:
    """Return a function from images uint8 [N, C, S, S] to a pass over them, on one thread."""
    if runtime == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        providers = ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        return lambda images: lambda: session.run(["logits"], {"images": images})[0]

    from fertool.runtime import open_predictor

    predictor = open_predictor(path, threads=1, runtime=runtime)
    # What belongs to the images alone is done once, as in `fertool bench`.
    return predictor.prepare


def run_all(prepare: Callable[[Any], Any], images: Any, one_by_one: bool) -> Any:
    """Return the logits of all images."""
    parts = len(images) if one_by_one else max(1, len(images) // 32)
    return np.concatenate([np.array(prepare(batch)()) for batch in np.array_split(images, parts)])


def softmax(logits: Any) -> Any:
    """Return probabilities [N, K]."""
    powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def times(prepare: Any, reference: Any, image: Any) -> dict[str, Any]:
    """Return the median of a pass, and of the alternating passes its ratio to the reference's."""
    passes = [each(image) for each in (prepare, reference) if each is not None]
    samples: list[list[float]] = [[] for _ in passes]
    for _ in range(WARMUP):
        for each in passes:
            each()
    end = time.perf_counter() + SECONDS * len(passes)
    while len(samples[0]) < RUNS and time.perf_counter() < end:
        for each, seconds in zip(passes, samples, strict=True):
            begun = time.perf_counter()
            each()
            seconds.append(time.perf_counter() - begun)
    medians = [statistics.median(seconds) for seconds in samples]
    result: dict[str, Any] = {"latency_s": float(f"{medians[0]:.3g}")}
    if reference is not None:
        result["relative_time"] = float(f"{medians[0] / medians[1]:.3g}")
    return result


if __name__ == "__main__":
    main()
