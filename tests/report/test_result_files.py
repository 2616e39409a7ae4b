"""Files that `report` reads: every wrong value in one is an error that names the file,
or can be drawn.
"""

import json
from pathlib import Path

import pytest
import report_data
from mutations import mutations

from fertool.errors import FertoolError
from fertool.report.page import render_page
from fertool.report.result_files import read_result_files
from fertool.results import EvaluationReport, History

DOCUMENTS = {
    "bench": report_data.bench_report("a.pt", "b.int8.onnx").as_dict(),
    "eval": {**report_data.evaluation("a.pt").as_dict(), "tta": "flip"},
    "evals": EvaluationReport(
        (report_data.evaluation("a.pt"), report_data.evaluation("b.pt")), report_data.COMPARISONS
    ).as_dict(),
    "history": History(file="x.pt", history=tuple(report_data.history())).as_dict(),
    "sensitivity": report_data.sensitivity().as_dict(),
    "seeds": report_data.sweep({}, (0, 1)).as_dict(),
    "grid": report_data.sweep({"lr": [0.1, 0.2], "ema-decay": [0, 1]}, (0, 1)).as_dict(),
}
EVERY = 4
"""Of so many mutations one is tried here."""


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_wrong_value_is_one_error_that_names_the_file_or_can_be_drawn(
    name: str, tmp_path: Path
) -> None:
    path, document = tmp_path / "f.json", json.loads(json.dumps(DOCUMENTS[name]))
    render_page(read_result_files([_written(path, document)]), as_markdown=True)
    refused = 0
    for number, (what, changed) in enumerate(mutations(document)):
        if number % EVERY:
            continue
        message = _message(_written(path, changed))
        if message:
            refused += 1
            assert message.startswith(f"{path}: "), what
            assert message.isprintable(), what
            assert len(message) < 600, what
    assert refused > 20


@pytest.mark.parametrize("runs", [1, 2, 3])
def test_few_passes_can_be_drawn(runs: int, tmp_path: Path) -> None:
    report = json.loads(json.dumps(report_data.bench_report("a.pt", "b.onnx").as_dict()))
    for entry in report["results"]:
        entry["samples_s"] = [0.001 * (k + 1) for k in range(runs)]
        entry["latency_s"]["median"] = 0.0005 * (runs + 1)
    found = read_result_files([_written(tmp_path / "f.json", report)])
    assert "<img" in render_page(found)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"[" * 50_000, b'{"history": [], "history": []}', b""]
)
def test_what_is_no_json_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    path.write_bytes(content)
    with pytest.raises(FertoolError, match=r"f\.json: "):
        read_result_files([path])


def _message(path: Path) -> str:
    """Return the error of drawing a file, or nothing."""
    try:
        render_page(read_result_files([path]), as_markdown=True)
    except FertoolError as error:
        return error.message
    return ""


def _written(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path
