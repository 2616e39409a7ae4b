from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
from report_data import bench_report, evaluation, history

pytest.importorskip("matplotlib")

from fertool.report import figures

DRAWN: dict[str, Callable[[], bytes]] = {
    "training_curves": lambda: figures.training_curves({"teacher $x$": history(5), "student": history(1)}),
    "confusion_matrix": lambda: figures.confusion_matrix(evaluation()),
    "size_against_accuracy": lambda: figures.size_against_accuracy(bench_report("a.pt", "b_$.onnx")["results"]),
    "latency_against_accuracy": lambda: figures.latency_against_accuracy(bench_report("a.pt", "b.onnx")["results"]),
    "width_bars": lambda: figures.width_bars([(f"layer{k}", 16, 16 - k % 9) for k in range(80)]),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_is_a_png_of_readable_size_and_the_same_bytes_each_time(name: str) -> None:
    from matplotlib import image

    png = DRAWN[name]()
    assert png == DRAWN[name]()
    import io

    height, width = image.imread(io.BytesIO(png)).shape[:2]
    assert 400 < width < 2000
    assert 300 < height < 2600


def test_labels_do_not_cover_each_other() -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5))
    axes = figure.subplots()
    points = [(1 + 0.3 * k, (60.0 + k, 62.0 + k, 64.0 + k)) for k in range(6)]
    for x, (low, middle, high) in points:
        axes.errorbar(x, middle, yerr=[[middle - low], [high - middle]])
    axes.margins(0.2, 0.2)
    figure.draw_without_rendering()
    figures._place_labels(axes, points, [f"model_{k}.onnx" for k in range(6)])
    boxes = [label.get_window_extent() for label in axes.texts]
    assert len(boxes) == 6
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])


def test_without_matplotlib_the_message_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from fertool.report import figures; from fertool.errors import FertoolError\n"
        "try: figures.width_bars([('a', 2, 1)])\n"
        "except FertoolError as error: print(error.message, '|', error.hint)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "figures need Matplotlib | pip install 'fertool[plots]'\n"
