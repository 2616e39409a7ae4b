from __future__ import annotations

from dataclasses import replace

import pytest
from report_data import COMPARISONS, bench_report, evaluation, summary

from fertool.report.result_files import ReportData
from fertool.report.units import points_text
from fertool.report.verdict import find_pair, headline_figures, verdict_text
from fertool.spec import Metrics

FILES = ("models/student.pt", "models/int8.onnx")


def text(found: ReportData) -> str:
    pair = find_pair(found)
    assert pair is not None
    return verdict_text(pair)


def everything(p: float = 0.4, difference: float = -0.001) -> ReportData:
    comparison = replace(COMPARISONS[0], difference=difference, mcnemar_p=p)
    return ReportData(
        benchmarks=[bench_report(*FILES)],
        evaluations=[evaluation(FILES[0]), evaluation(FILES[1])],
        comparisons=[(comparison,)],
    )


def test_one_sentence_says_how_much_smaller_and_faster_and_what_it_cost() -> None:
    assert text(everything()) == (
        "int8.onnx against student.pt: 2.0 x smaller, 2.0 x faster (ONNX Runtime against PyTorch), "
        "-0.1 points of accuracy, not distinguishable (val, n 3,589, p 0.4)."
    )


def test_a_difference_that_the_test_confirms_is_called_so() -> None:
    assert "-2.5 points of accuracy, more than chance (val, n 3,589, p < 0.001)" in text(
        everything(p=1e-6, difference=-0.025)
    )


def test_what_was_not_measured_is_said_to_be_so() -> None:
    only_speed = replace(everything(), comparisons=[], evaluations=[])
    assert text(only_speed).endswith("(ONNX Runtime against PyTorch), accuracy not compared.")
    only_accuracy = replace(everything(), benchmarks=[])
    assert "size not compared, speed not measured, -0.1 points" in text(only_accuracy)


def test_accuracies_of_headers_are_no_paired_test() -> None:
    lower = Metrics("val", 3589, 0.6317, (0.615, 0.647), 0.6)
    models = [summary("a.pt", digest="aa"), summary("b.pt", digest="bb", metrics=lower)]
    assert text(ReportData(models=models)).endswith(
        "speed not measured, -1.0 points of accuracy by their headers (val, n 3,589; no paired "
        "test)."
    )
    other = Metrics("test", 3589, 0.6317, (0.615, 0.647), 0.6)
    models[1] = summary("b.pt", digest="bb", metrics=other)
    assert text(ReportData(models=models)).endswith("accuracy not compared.")


@pytest.mark.parametrize(
    ("speedup", "interval", "expected"),
    [
        (1.02, (0.97, 1.08), "not measurably faster or slower"),
        (0.5, (0.45, 0.55), "2.0 x slower"),
        (12.4, (12.0, 13.0), "12 x faster"),
    ],
)
def test_speed_is_said_as_it_was_measured(
    speedup: float, interval: tuple[float, float], expected: str
) -> None:
    report = bench_report("a.onnx", "b.onnx")
    (comparison,) = report.comparisons
    comparison = replace(comparison, speedup=speedup, speedup_ci95=interval)
    found = ReportData(benchmarks=[replace(report, comparisons=(comparison,))])
    assert f"2.0 x smaller, {expected}, accuracy" in text(found)


def test_results_of_other_networks_are_not_taken_for_these() -> None:
    found = everything()
    retrained = replace(found.evaluations[1], digest="aa")
    result = replace(found.benchmarks[0].results[1], digest="bb")
    report = replace(found.benchmarks[0], results=(found.benchmarks[0].results[0], result))
    found = replace(found, benchmarks=[report], evaluations=[found.evaluations[0], retrained])
    assert text(found).endswith("accuracy not compared.")


def test_the_verdict_is_about_the_last_file_and_the_first() -> None:
    report = bench_report("a.onnx", "b.onnx", "c.onnx")
    found = ReportData(benchmarks=[report])
    assert text(found).startswith("c.onnx against a.onnx: 3.0 x smaller, 3.0 x faster")
    assert find_pair(ReportData(models=[summary()])) is None


def test_headline_figures_stand_beside_those_of_before() -> None:
    pair = find_pair(everything())
    assert pair is not None
    figures = {figure.name: (figure.after, figure.before) for figure in headline_figures(pair)}
    assert figures["file size"] == ("2.44 MB", "4.87 MB")
    assert figures["latency, 1 thread"] == ("1.00 ms", "2.00 ms")
    assert figures["accuracy, val"] == ("75.0 %", "75.0 %")
    assert "MACs" not in figures, "the same in both"


def test_small_differences_keep_a_digit() -> None:
    assert points_text(-0.0013) == "-0.1 points"
    assert points_text(0.0003) == "+0.03 points"
    assert points_text(0.0) == "+0.0 points"
