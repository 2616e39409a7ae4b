from __future__ import annotations

from pathlib import Path

import pytest

from fertool.config.evaluation import AccuracyLimit
from fertool.errors import LimitError, UsageError
from fertool.results import AccuracyComparison, EvaluationReport
from fertool.workflows.accuracy_regression import find_losses, require_accuracy, with_baseline

OLD = Path("old.onnx")


def comparison(low: float, high: float) -> AccuracyComparison:
    return AccuracyComparison("old.onnx", "new.onnx", 3589, (low + high) / 2, (low, high), 0.1)


@pytest.mark.parametrize(
    ("interval", "fails", "fails_strict"),
    [
        ((-0.02, -0.006), True, True),
        # It has lost something for certain, but maybe no more than is allowed.
        ((-0.02, -0.004), False, True),
        ((-0.01, 0.01), False, True),
        ((-0.004, 0.004), False, False),
        ((0.01, 0.02), False, False),
    ],
)
def test_a_file_fails_beyond_doubt_or_without_proof(
    interval: tuple[float, float], fails: bool, fails_strict: bool
) -> None:
    for strict, expected in ((False, fails), (True, fails_strict)):
        limit = AccuracyLimit(OLD, points=0.5, strict=strict)
        found = find_losses([comparison(*interval)], limit)
        assert found.exceeded == (("new.onnx",) if expected else ())
        report = EvaluationReport((), (comparison(*interval),), found)
        if not expected:
            require_accuracy(report)
            continue
        with pytest.raises(LimitError, match=r"new.onnx: .* points against old.onnx") as caught:
            require_accuracy(report)
        assert caught.value.exit_code == 3


def test_an_evaluation_without_a_limit_passes() -> None:
    require_accuracy(EvaluationReport((), (comparison(-0.5, -0.4),)))


def test_the_old_file_comes_first_and_once() -> None:
    assert with_baseline(OLD, ["new.onnx"]) == [OLD, "new.onnx"]
    assert with_baseline(OLD, ["old.onnx", "new.onnx"]) == [OLD, "new.onnx"]
    with pytest.raises(UsageError, match="no other file to compare with"):
        with_baseline(OLD, ["./old.onnx"])


@pytest.mark.parametrize("options", [{"points": 0.5}, {"strict": True}])
def test_limits_need_a_file_to_compare_with(options: dict[str, float | bool]) -> None:
    with pytest.raises(UsageError, match="without ``not_worse_than``"):
        AccuracyLimit(**options)
