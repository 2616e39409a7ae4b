"""What each format gives in each runtime: difference from PyTorch, top classes, bytes and speed.

    python benchmarks/formats.py --data fer2013.csv --oldest PYTHON --litert PYTHON
        --executorch PYTHON -o docs/results/formats.json

Every architecture of the zoo at its default size, and three networks of other libraries (needs
torchvision and timm), as float, INT8, mixed (3 to 8 bits a weight, by layer) and dynamic networks,
on 256 images of PublicTest. nano_resnet is the trained file of models/. The others tell happy faces
from all others, which two minutes of processor time suffice to learn: of networks that are as often
wrong as right about seven classes, any rounding changes the class. A workspace keeps them for the
next call. Each option that names an interpreter adds the rows of its runtime; rows that the output
has already are kept, so that a second call goes on where the first one ended. Two rows are measured
at a time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from settling import calibrate_norms_
from torch import nn
from torch.nn import functional

from fertool.artifact.atomic import temporary_folder, write_atomic
from fertool.config.importing import ImportConfig
from fertool.config.pruning import SelectionConfig
from fertool.config.quantization import QuantizeConfig
from fertool.data import DataOptions, FaceDataset, open_data
from fertool.data.pixels import to_input
from fertool.errors import FertoolError
from fertool.gate_spec import GateSpec
from fertool.importing import import_network
from fertool.models import architecture_names, load_model, save_model
from fertool.models.dynamic_network import DynamicNetwork, ImageGate
from fertool.precision import autocast, resolve_precision
from fertool.pruning import Constraints, Targets, plan_step
from fertool.quant import make_problem, quantize_model
from fertool.spec import Spec

IMPORTED = ("torchvision:squeezenet1_1", "timm:mobilenetv4_conv_small_035", "timm:regnety_002")
TRAINED = {"nano_resnet": Path("models/nano_resnet.pt")}
IMAGES, CALIBRATION_IMAGES, NORM_IMAGES = 256, 64, 512
CLASSES = ("happy", "other")
BATCH, RATE, SMALL_SHARE = 64, 2e-3, 0.5
MIXED_BITS = (3, 8)
DYNAMIC_MACS = 0.5
_CHILD = Path(__file__).with_name("format_rows.py")
_JOB_S = 400.0
"""The most that one job may take; the conversion to ExecuTorch takes the longest."""


def main() -> None:
    """Measure every row that is not in the output yet."""
    options = parse_args()
    torch.set_num_threads(1)
    table = Table(options.output)
    with temporary_folder() as folder:
        folder = options.workspace or folder
        folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(2) as workers:
            futures = []
            for name in options.networks or (*architecture_names(), *IMPORTED):
                jobs = [job for job in list_jobs(name, folder, options) if not table.has(job)]
                if not jobs:
                    continue
                kinds = build_kinds(name, folder, options)
                table.add_failures(name, kinds)
                jobs = [job for job in jobs if job["kind"] in kinds and not kinds[job["kind"]]]
                futures.append(workers.submit(measure, jobs, table, folder))
            for future in futures:
                future.result()


def parse_args() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", help="names, instead of all")
    parser.add_argument("--data", required=True, help="FER2013")
    for runtime in ("oldest", "litert", "executorch"):
        parser.add_argument(f"--{runtime}", help="the interpreter that has it")
    seconds = "of the processor, to train a network (default: 120)"
    parser.add_argument("--training-seconds", type=float, default=120.0, help=seconds)
    parser.add_argument("--workspace", type=Path, help="where models and files are kept")
    parser.add_argument("-o", "--output", type=Path, required=True)
    return parser.parse_args()


class Table:
    """The rows of the output, which is written after each of them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._rows: dict[str, dict[str, Any]] = {}
        if path.exists():
            for row in json.loads(path.read_text())["rows"]:
                self._rows[row_key(row)] = row

    def has(self, job: dict[str, Any]) -> bool:
        """Return whether there is a row, or the reason why there is none."""
        whole = {**job, "format": "", "runtime": ""}
        return job["key"] in self._rows or row_key(whole) in self._rows

    def add(self, job: dict[str, Any], result: dict[str, Any]) -> None:
        """Add the row of a job."""
        row = {name: job[name] for name in ("network", "kind", "format", "form", "runtime")}
        self._put(row | result)

    def add_failures(self, network: str, kinds: dict[str, str]) -> None:
        """Add a row for each kind of a network that cannot be made."""
        for kind, failure in kinds.items():
            if failure:
                row = {"network": network, "kind": kind, "format": "", "form": "", "runtime": ""}
                self._put(row | {"failed": failure})

    def _put(self, row: dict[str, Any]) -> None:
        with self._lock:
            self._rows[row_key(row)] = row
            rows = sorted(self._rows.values(), key=lambda each: each["network"])
            lines = ",\n".join(json.dumps(each) for each in rows)
            text = f'{{"images": {IMAGES}, "rows": [\n{lines}\n]}}\n'
            write_atomic(self._path, text.encode())
            print(json.dumps(row), flush=True)


def row_key(row: dict[str, Any]) -> str:
    """Return what names a row."""
    return " ".join(row[name] for name in ("network", "kind", "format", "form", "runtime"))


def list_jobs(network: str, folder: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the rows of a network: where its files are, and what measures them."""
    newest = sys.executable
    interpreters = {
        "onnxruntime": newest,
        "oldest": options.oldest,
        "openvino": newest,
        "tflite": options.litert,
        "executorch": options.executorch,
    }
    stem = network.replace(":", "-")
    for kind in ("float", "int8", "mixed", "dynamic"):
        for format, form, runtime in rows_of_kind(kind):
            python = interpreters[runtime]
            if python is None:
                continue
            suffix = {"openvino": ".xml", "executorch": ".pte"}.get(format, f".{format}")
            reference = folder / f"{stem}.{kind}.{'packed' if kind == 'mixed' else 'plain'}.onnx"
            file = folder / f"{stem}.{kind}{f'.{form}' if form else ''}{suffix}"
            job: dict[str, Any] = {"network": network, "kind": kind, "format": format}
            job["form"] = form
            job |= {"runtime": runtime, "python": python, "file": str(file)}
            job |= {"packed": {"plain": False, "packed": True}.get(form), "simplify": True}
            job |= {"model": str(folder / f"{stem}.{kind}.pt")}
            job |= {"expected": str(folder / f"{stem}.{kind}.npy")}
            job |= {"images": str(folder / f"{stem}.images.npy")}
            # The oldest one cannot be run beside the newest in one process.
            alone = runtime == "oldest" or (file == reference and runtime == "onnxruntime")
            job["reference"] = "" if alone else str(reference)
            yield job | {"key": row_key(job)}


def rows_of_kind(kind: str) -> Iterator[tuple[str, str, str]]:
    """Yield format, form and runtime of the rows of one kind of network."""
    forms = {"int8": ("plain",), "mixed": ("packed", "plain")}.get(kind, ("plain",))
    for form in forms:
        for runtime in ("onnxruntime", "oldest", "openvino"):
            yield "onnx", form, runtime
    yield "ort", "", "onnxruntime"
    if kind in ("float", "int8"):
        yield "openvino", "", "openvino"
        yield "tflite", "", "tflite"
        yield "executorch", "", "executorch"


def measure(jobs: list[dict[str, Any]], table: Table, folder: Path) -> None:
    """Let the interpreters do the jobs of one network, each its own."""
    pythons = dict.fromkeys(job["python"] for job in jobs)
    for python in pythons:
        mine = [job for job in jobs if job["python"] == python]
        while mine:
            mine = run_child(python, mine, table, folder)


def run_child(
    python: str, jobs: list[dict[str, Any]], table: Table, folder: Path
) -> list[dict[str, Any]]:
    """Let an interpreter do jobs; returns those that are left when it dies at one of them."""
    by_key = {job["key"]: job for job in jobs}
    list_file = folder / f"jobs-{threading.get_ident()}.json"
    list_file.write_text(json.dumps([{**job, "runtime": base_runtime(job)} for job in jobs]))
    command = [python, str(_CHILD), str(list_file)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    limit = threading.Timer(_JOB_S * len(jobs), child.kill)
    limit.start()
    doing = jobs[0]["key"]
    assert child.stdout is not None
    for line in child.stdout:
        message = json.loads(line)
        if "doing" in message:
            doing = message["doing"]
        else:
            table.add(by_key.pop(message.pop("key")), message)
    limit.cancel()
    code = child.wait()
    if not by_key:
        return []
    # It died: of a crash, or of the time limit.
    table.add(by_key.pop(doing, next(iter(by_key.values()))), {"failed": f"exit code {code}"})
    return [job for job in jobs if job["key"] in by_key]


def base_runtime(job: dict[str, Any]) -> str:
    """Return the runtime that a child opens: the oldest version is one of ONNX Runtime."""
    runtime: str = job["runtime"]
    return "onnxruntime" if runtime == "oldest" else runtime


def build_kinds(name: str, folder: Path, options: argparse.Namespace) -> dict[str, str]:
    """Make the kinds of a network that are not there; returns the reasons where one cannot be."""
    stem = name.replace(":", "-")
    trained = TRAINED.get(name, folder / f"{stem}.float.pt")
    spec, network = load_model(trained) if trained.exists() else make_network(name)
    own = DataOptions(size=spec.input.size, channels=spec.input.channels)
    faces = open_data(options.data, own)
    train, val = faces.split("train"), faces.split("val")
    images = val.images[:IMAGES]
    np.save(folder / f"{stem}.images.npy", images.numpy())
    reasons = {}
    for kind in ("float", "int8", "mixed", "dynamic"):
        file = folder / f"{stem}.{kind}.pt"
        try:
            if not file.exists():
                if kind == "float" and not trained.exists():
                    train_briefly(spec, network, happy_or_not(train), options.training_seconds)
                elif kind != "float":
                    spec, network = load_model(folder / f"{stem}.float.pt")
                save_model(file, *make_kind(kind, spec, network.eval(), train))
            write_expected(file, images)
            reasons[kind] = ""
        except FertoolError as error:
            reasons[kind] = error.message
    return reasons


def make_network(name: str) -> tuple[Spec, Any]:
    """Return an untrained network of the zoo, or of another library."""
    torch.manual_seed(0)
    if name in architecture_names():
        config = ImportConfig(classes=CLASSES, input_size=48, input_channels=1)
    else:
        config = ImportConfig(classes=CLASSES, input_size=64, input_channels=3)
    found = import_network(name, config)
    return found.spec, found.network


def happy_or_not(data: FaceDataset) -> FaceDataset:
    """Return the same images, labeled by whether the face is happy."""
    labels = (data.labels != data.classes.index("happy")).long()
    return replace(data, labels=labels, classes=CLASSES)


def limited(data: FaceDataset, count: int) -> FaceDataset:
    """Return the first images of a split."""
    return replace(data, images=data.images[:count], labels=data.labels[:count])


def train_briefly(spec: Spec, network: nn.Module, train: FaceDataset, seconds: float) -> None:
    """Train for a few minutes, first at half the size, where an image costs a quarter."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE)
    order = torch.Generator().manual_seed(0)
    targets = train.targets()
    number_format = resolve_precision("auto", targets.device, network)
    network.train()
    # Faster by half for depthwise convolutions; PyTorch's types lack the overload.
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    begun = time.process_time()
    while (spent := time.process_time() - begun) < seconds:
        chosen = torch.randint(len(train), (BATCH,), generator=order)
        images = to_input(train.images[chosen], spec.input)
        if spent < SMALL_SHARE * seconds:
            images = functional.avg_pool2d(images, 2)
        images = images.contiguous(memory_format=torch.channels_last)
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - spent / seconds)
        with autocast(number_format, images.device):
            logits = network(images)
        loss = functional.cross_entropy(logits.float(), targets[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    some = limited(train, NORM_IMAGES)
    # Of few steps they are still far off.
    calibrate_norms_(network, spec, some)


def make_kind(kind: str, spec: Spec, network: Any, train: FaceDataset) -> tuple[Spec, nn.Module]:
    """Return the network as floats, as integers, or with a gate and a pruned form beside it."""
    if kind == "float":
        return spec, network
    if kind == "dynamic":
        return make_dynamic(spec, network, train)
    bits = None
    if kind == "mixed":
        problem = make_problem(spec, network, None)
        low, high = MIXED_BITS
        drawn = torch.randint(
            low, high + 1, problem.weight_counts.shape, generator=torch.Generator().manual_seed(0)
        )
        bits = problem.by_layer(drawn)
    config = QuantizeConfig(calibration_images=CALIBRATION_IMAGES, rounding="nearest")
    quant, integer = quantize_model(spec, network, train, config, bits=bits)
    return replace(spec, quant=quant), integer


def make_dynamic(spec: Spec, network: Any, train: FaceDataset) -> tuple[Spec, nn.Module]:
    """Return a network of two widths; the gate sends about half of the images to each."""
    constraints = Constraints(Targets(macs=DYNAMIC_MACS))
    smaller = plan_step(spec, network, constraints, SelectionConfig(round_to=8)).apply(network)
    torch.manual_seed(0)
    gate = ImageGate(2)
    images = to_input(train.images[:CALIBRATION_IMAGES], spec.input)
    with torch.no_grad():
        gate(images)
        gate.eval().fc2.bias.sub_(gate(images).mean(0))
    module = DynamicNetwork(gate, [network, smaller], (0.5, 0.5)).eval()
    gates = GateSpec((network.graph, smaller.graph), gate.fc1.out_features, module.shares)
    return replace(spec, gates=gates), module


@torch.no_grad()
def write_expected(model: Path, images: torch.Tensor) -> None:
    """Write the logits that PyTorch computes of the images, beside a model."""
    spec, module = load_model(model)
    module.eval()
    logits = [module(to_input(batch, spec.input)) for batch in torch.split(images, 64)]
    np.save(model.with_suffix(".npy"), torch.cat(logits).numpy())


if __name__ == "__main__":
    main()
