"""Example results as the commands write them."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

from graphs import toy_graph

from fertool.results import (
    AccuracyComparison,
    BenchResult,
    BenchWarning,
    Environment,
    Epoch,
    Evaluation,
    FileResult,
    Latency,
    ModelSummary,
    Sensitivity,
    SpeedComparison,
    SweepResults,
)
from fertool.spec import InputSpec, Metrics, ProvenanceStep, QuantSpec, Spec, WeightQuant
from fertool.strict_json import as_type

CLASSES = ("angry", "happy", "neutral")


def spec(**changes: Any) -> Spec:
    values: dict[str, Any] = {
        "arch": "toy",
        "arch_args": {"dropout": 0.4},
        "graph": toy_graph(16, 8),
        "input": InputSpec(1, 8),
        "classes": CLASSES,
        "params": 1187495,
        "macs": 10053824,
        "metrics": Metrics("val", 3589, 0.6417, (0.6258, 0.6572), 0.6),
        "provenance": (
            ProvenanceStep(
                "train-teacher",
                {"epochs": 2, "init": None},
                {"data": "ab" * 32},
                {"torch": "2.6"},
                0,
            ),
            ProvenanceStep("prune", {"target_flops": 0.5}, {"model": "cd" * 32}),
        ),
        "digest": "ef" * 32,
    }
    return Spec(**{**values, **changes})


QUANT = QuantSpec({"conv": WeightQuant((4, 8)), "fc": WeightQuant((8,))}, {"conv": 8}, "qat")


def summary(file: str = "models/student.pt", **changes: Any) -> ModelSummary:
    return ModelSummary.of(Path(file), 4870000, spec(**changes))


def bench_report(*files: str, accuracy: bool = True) -> BenchResult:
    results = tuple(
        FileResult(
            file=file,
            runtime="onnxruntime" if file.endswith(".onnx") else "torch",
            quantized="int8" in file,
            digest="",
            threads=1,
            batch=1,
            latency_s=Latency(0.002 / (k + 1), 0.002, 0.0021 / (k + 1), 0.003, 0.001),
            throughput_per_s=500.0 * (k + 1),
            peak_rss_bytes=61_000_000,
            size_bytes=4_870_000 // (k + 1),
            params=1_187_495,
            macs=10_053_824,
            samples_s=(0.0019 / (k + 1), 0.002 / (k + 1), 0.0021 / (k + 1)),
            accuracy=0.64 if accuracy else None,
            accuracy_ci95=(0.62, 0.66) if accuracy else None,
            split="val" if accuracy else None,
            n=3589 if accuracy else None,
        )
        for k, file in enumerate(files)
    )
    comparisons = tuple(
        SpeedComparison(files[0], file, k + 2.0, (k + 1.9, k + 2.1))
        for k, file in enumerate(files[1:])
    )
    warnings = (BenchWarning("noisy", files[0], 1.71),)
    return BenchResult(results, comparisons, warnings, 100, 1000, Environment("Example CPU"))


def evaluation(file: str = "models/student.pt") -> Evaluation:
    per_class = {name: {"precision": 0.5, "recall": 0.75, "f1": 0.6, "n": 4} for name in CLASSES}
    document = {
        "file": file,
        "split": "val",
        "n": 12,
        "accuracy": 0.75,
        "accuracy_ci95": [0.47, 0.91],
        "macro_f1": 0.6,
        "balanced_accuracy": 0.75,
        "ece": 0.1,
        "per_class": per_class,
        "confusion": [[3, 1, 0], [1, 3, 0], [0, 1, 3]],
        "deduplicated": {"n": 10, "accuracy": 0.7, "accuracy_ci95": [0.4, 0.89]},
    }
    return as_type(document, Evaluation)


def history(epochs: int = 3) -> list[Epoch]:
    return [
        Epoch(
            epoch=k + 1,
            lr=0.1,
            train_loss=2.0 - k / 4,
            val_loss=2.1 - k / 5,
            val_accuracy=0.3 + k / 10,
        )
        for k in range(epochs)
    ]


def sensitivity() -> Sensitivity:
    layers = [
        {
            "name": "conv",
            "weight_trace": [1.0, 2.0, 6.0],
            "weight_trace_sem": [0.1] * 3,
            "weight_params": 9,
            "activation_trace": [0.25, 0.0, 0.5],
            "activation_trace_sem": [0.1] * 3,
        }
    ]
    document = {
        "model_digest": "ef" * 32,
        "seed": 0,
        "samples": 32,
        "probes": 10,
        "method": "probe",
        "hessian": "kl",
        "layers": layers,
    }
    return as_type(document, Sensitivity)


COMPARISONS = (
    AccuracyComparison(
        baseline="models/student.pt",
        candidate="models/int8.onnx",
        n=3589,
        difference=-0.0042,
        difference_ci95=(-0.009, 0.001),
        mcnemar_p=0.0001,
    ),
)


def sweep(axes: dict[str, list[Any]], seeds: tuple[int, ...] = (0,)) -> SweepResults:
    """What OUT.grid.json or OUT.seeds.json holds, the first combination the best."""
    combinations = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    rows = [
        {
            "options": options,
            "seed": seed,
            "split": "val",
            "n": 3589,
            "accuracy": 0.64 - 0.01 * k - 0.002 * seed,
            "accuracy_ci95": [0.62 - 0.01 * k - 0.002 * seed, 0.66 - 0.01 * k - 0.002 * seed],
            "loss": 1.1 + k / 10,
            "best_epoch": 2,
            "epochs": 3,
            "seconds": 12.0,
            "history": [epoch.as_dict() for epoch in history()],
        }
        for k, options in enumerate(combinations)
        for seed in seeds
    ]
    points = [
        {
            "options": options,
            "seeds": list(seeds),
            "n": 3589,
            "accuracy_mean": 0.64 - 0.01 * k,
            "accuracy_sd": 0.004 if len(seeds) > 1 else None,
            "loss_mean": 1.1 + k / 10,
            "accuracy_ci95": None if len(seeds) > 1 else [0.62 - 0.01 * k, 0.66 - 0.01 * k],
        }
        for k, options in enumerate(combinations)
    ]
    best = {"options": combinations[0], "seed": seeds[0]}
    names = {"file": "s.pt", "axes": axes, "seeds": list(seeds), "finished": True, "best": best}
    return as_type({**names, "points": points, "rows": rows}, SweepResults)
