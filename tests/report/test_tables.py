from __future__ import annotations

from dataclasses import replace

import pytest
from report_data import COMPARISONS, QUANT, bench_report, evaluation, summary, sweep
from rich.console import Console, RenderableType

from fertool.report import tables
from fertool.results import (
    BenchWarning,
    Change,
    ClassFigures,
    DataInfo,
    DataProblem,
    Headline,
    LayerSensitivity,
    Sensitivity,
)
from fertool.spec import InputSpec


def text(renderable: RenderableType, width: int = 80) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def row(shown: str, start: str) -> str:
    line = next(line for line in shown.splitlines() if line.strip().startswith(start))
    return " ".join(line.split())


def test_bench_says_everything_in_80_columns() -> None:
    report = bench_report(
        "build/micro/teacher.pt", "build/micro/student.onnx", "build/micro/int8.onnx"
    )
    out = text(tables.bench_table(report))
    assert row(out, "student.onnx") == "student.onnx 2.44 MB 1.19 M 1.00 ms 1.00 k 64.0 % 2.00 x"
    assert row(out, "PyTorch") == "PyTorch 61.0 MB 10.1 M 2.10 ms 62.0-66.0 baseline"
    assert "ONNX Runtime INT8" in " ".join(out.split())
    assert "1.90-2.10" in out
    assert "1 thread, batch 1, 1,000 runs" in out
    assert "val, n = 3,589" in " ".join(out.split())
    assert "…" not in out


def test_bench_of_one_file_without_data() -> None:
    out = text(tables.bench_table(bench_report("a.pt", accuracy=False)))
    assert "accuracy" not in out
    assert "speed-up" not in out


def test_bench_of_a_file_against_itself() -> None:
    out = text(tables.bench_table(bench_report("a.pt", "a.pt")))
    assert out.count("baseline") == 1
    assert "2.00 x" in out


def test_bench_warnings_are_sentences_with_advice() -> None:
    report = bench_report("x/a.pt", "x/b.onnx", "x/c.onnx")
    others = [BenchWarning("other-runtime", file, 2.0) for file in ("x/b.onnx", "x/c.onnx")]
    report = replace(report, warnings=(*report.warnings, *others))
    assert tables.bench_warnings(report) == [
        "a.pt: the 90th percentile is 1.7 times the median; close other programs and measure again",
        "b.onnx, c.onnx: not the baseline's runtime, so that the speed-up is not the model's alone",
    ]


def test_a_grid_says_every_training_in_80_columns() -> None:
    out = text(
        tables.sweep_table(sweep({"temperature": [4.0, 6.0], "alpha": [0.2], "method": ["kd"]}))
    )
    assert row(out, "4 ") == "4 0.2 kd 64.0 % 62.0 to 66.0 1.100 2 of 3 12.0 s"
    assert "val, n = 3,589; chosen there: temperature 4, alpha 0.2, method kd, seed 0" in " ".join(
        out.split()
    )
    assert "mean" not in out


def test_several_seeds_have_their_mean_and_standard_deviation() -> None:
    out = text(tables.sweep_table(sweep({}, (0, 1))))
    assert row(out, "0 ") == "0 64.0 % 62.0 to 66.0 1.100 2 of 3 12.0 s"
    assert row(out, "64.00") == "64.00 ± 0.40 % 2 1.100"


@pytest.mark.parametrize(
    ("tta", "name"),
    [("flip", "accuracy, image and mirror image"), ("ten-crop", "accuracy, ten crops")],
)
def test_figures_of_one_crop_and_of_several_views_are_told_apart(tta: str, name: str) -> None:
    single = Headline(12, 0.5, (0.25, 0.74))
    out = text(tables.eval_table(replace(evaluation(), tta=tta, single_crop=single)))
    assert (
        row(out, "accuracy, single crop")
        == "accuracy, single crop 50.0 % [25.0 to 74.0], val, n = 12"
    )
    assert row(out, name) == f"{name} 75.0 % [47.0 to 91.0], val, n = 12"
    out = text(tables.eval_table(evaluation()))
    assert row(out, "accuracy") == "accuracy, single crop 75.0 % [47.0 to 91.0], val, n = 12"


def test_eval_carries_split_n_interval_and_the_deduplicated_figure() -> None:
    out = text(tables.eval_table(evaluation("models/[x].pt")))
    assert "models/[x].pt" in out
    assert "75.0 % [47.0 to 91.0], val, n = 12" in out
    assert "70.0 % [40.0 to 89.0], val, n = 10" in out
    assert row(out, "angry") == "angry 4 50.0 % 75.0 % 0.600"
    assert "angry 75 25 0" in " ".join(out.split())


def test_eval_of_many_classes_leaves_the_matrix_out() -> None:
    per_class = {f"class{k}": ClassFigures(0, 0, 0, 1) for k in range(20)}
    entry = replace(evaluation(), per_class=per_class, confusion=((0,) * 20,) * 20)
    assert "in percent of its images" not in text(tables.eval_table(entry))


def test_comparison() -> None:
    out = text(tables.comparison_table(COMPARISONS))
    assert row(out, "int8.onnx") == "int8.onnx -0.42 -0.90 to 0.10 < 0.001 3,589"


def test_show() -> None:
    out = text(
        tables.show_table(
            summary(quant=QUANT, input=InputSpec(3, 48, (0.0, 0.2, 1.0), (1.0, 1.0, 1.0)))
        ),
        100,
    )
    for expected in (
        "models/student.pt",
        "toy (dropout=0.4)",
        "48 x 48 RGB, (pixel / 255 - mean) / std with mean 0, 0.2, 1, std 1, 1, 1",
        "angry, happy, neutral",
        "integers, weights 4/8 bit, activations 8 bit (qat)",
        "64.2 % [62.6 to 65.7], val, n = 3,589, macro F1 0.600",
        "ef" * 32,
        "epochs=2 seed=0; read data abababababab",
        "target_flops=0.5; read model cdcdcdcdcdcd",
    ):
        assert expected in out
    assert "init" not in out


def test_show_of_a_new_model() -> None:
    out = text(tables.show_table(summary(metrics=None, provenance=(), digest="")))
    assert "not measured" in out
    assert "float32" in out


def test_plan_and_change() -> None:
    out = text(
        tables.plan_table(
            {"features.0": 16, "features.[1]": 88}, {"features.0": 16, "features.[1]": 44}
        )
    )
    assert row(out, "features.[1]") == "features.[1] 88 44 50 %"
    several = text(
        tables.plan_table({"conv": 16, "gone": 0}, {"conv": 12, "gone": 0}, {"conv": 8, "gone": 0})
    )
    assert row(several, "channels") == "channels of before width 1 width 2"
    assert row(several, "conv") == "conv 16 12 8"
    before = tables.Costs(size_bytes=4_000_000, params=1000, macs=2_000_000)
    after = tables.Costs(size_bytes=1_000_000, macs=1_000_000)
    change = Change(accuracy_before=0.64, accuracy=0.632)
    out = text(tables.change_table(before, after, change))
    assert row(out, "size") == "size 4.00 MB 1.00 MB 0.250"
    assert row(out, "accuracy") == "accuracy 64.0 % 63.2 % -0.8 points"
    assert "params" not in out


def test_sensitivity() -> None:
    layer = LayerSensitivity("conv", (1.0, 2.0, 6.0), (0.1,) * 3, 9, (0.25, 0.0, 0.5), (0.1,) * 3)
    measured = Sensitivity("ef", "probe", 32, 10, 0, (layer,))
    out = text(tables.sensitivity_table(measured))
    assert row(out, "conv") == "conv 3 27 3 1 6 0.25"
    assert "KL divergence, per output channel; 32 images, 10 probes" in out


def test_sensitivity_of_the_cross_entropy_and_without_activations() -> None:
    layer = LayerSensitivity("conv", (1.0, -2.0), (0.1,) * 2, 9)
    out = text(
        tables.sensitivity_table(
            Sensitivity("ef", "hutchinson", 32, 10, 0, (layer,), "cross-entropy")
        )
    )
    assert row(out, "conv") == "conv 2 18 -0.5 -2 1 -"
    assert "of the cross-entropy" in out


@pytest.mark.parametrize("votes", [True, False])
def test_data(votes: bool) -> None:
    found = DataInfo(
        source="fer2013.csv",
        digest="ab" * 32,
        classes=("angry", "happy"),
        image_size=48,
        channels=1,
        counts={"train": {"angry": 3995, "happy": 7215}, "val": {"angry": 467, "happy": 895}},
        images=12572,
        distinct_images=12000,
        copy_groups=300,
        copies_across={"val in train": 280},
        conflicting_groups=47,
        constant_images=12,
        not_faces=160 if votes else None,
        ferplus_rule_counts={"majority": {"train": 11000, "val": 1300}} if votes else None,
        converted={},
        not_images={},
        left_out={},
        unreadable={},
        problems=(
            DataProblem("duplicates", 4, tuple((f"{k}.png", f"{k} too.png") for k in range(4))),
            DataProblem("odd_size", 1, (("wide.png", "300x60"),)),
        ),
    )
    out = text(tables.data_table(found))
    assert row(out, "duplicates") == "duplicates in one split 4 0.png = 0 too.png"
    assert row(out, "much") == "much smaller or not square 1 wide.png: 300x60"
    assert "3.png" not in out
    assert row(out, "angry") == "angry 3,995 467 4,462"
    assert row(out, "all ") == "all 11,210 1,362 12,572"
    assert "copies, val in train" in out
    assert ("train 11,000, val 1,300" in out) == votes
