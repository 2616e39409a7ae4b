from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest
from colors import contrast
from report_data import bench_report, history, sensitivity, sweep

pytest.importorskip("matplotlib")

from fertool.report.plots import (
    drawing,
    layer_bars,
    sweep_accuracy,
    trace_strips,
    tradeoff,
    training_curves,
)
from fertool.report.plots.drawing import PNG, SVG, FigureFormat
from fertool.report.plots.point_labels import LabeledPoint, place_labels
from fertool.results import LayerSensitivity, Sensitivity


def many_layers() -> Sensitivity:
    values = [(-1) ** k * 10.0 ** (k % 5 - 5) for k in range(20)]
    layers = []
    for k in range(130):
        traces = tuple(values[k % 7 :])
        errors = (0.1,) * len(traces)
        layers.append(LayerSensitivity(f"features.{k}.conv", traces, errors, 9, traces, errors))
    return replace(sensitivity(), hessian="cross-entropy", layers=tuple(layers))


def without_activations() -> Sensitivity:
    layer = LayerSensitivity("conv", (1.0, 2.0), (0.1, 0.1), 9)
    return replace(sensitivity(), layers=(layer,))


DRAWN: dict[str, Callable[[FigureFormat], bytes]] = {
    "training_curves": lambda form: training_curves.plot_training_curves(
        {"teacher $x$": history(5), "student": history(1)}, form
    ),
    "size_against_accuracy": lambda form: tradeoff.plot_size_against_accuracy(
        bench_report("a.pt", "b_$.onnx").results, form
    ),
    "latency_against_accuracy": lambda form: tradeoff.plot_latency_against_accuracy(
        bench_report("a.pt", "b.onnx").results, form
    ),
    "heat map": lambda form: sweep_accuracy.plot_sweep(
        sweep({"alpha": [0.2, 0.4, 0.6], "temperature": [4.0, 6.0]}), form
    ),
    "heat map of means": lambda form: sweep_accuracy.plot_sweep(
        sweep({"method": ["kd", "feature"], "ema-decay": [0, 0.9]}, (0, 1)), form
    ),
    "lines": lambda form: sweep_accuracy.plot_sweep(sweep({"lr": [1e-3, 3e-3, 1e-2]}), form),
    "many lines": lambda form: sweep_accuracy.plot_sweep(
        sweep({"alpha": [0.2, 0.4], "flip": [True, False], "lr": [1e-3, 2e-3, 3e-3]}, (0, 1)), form
    ),
    "seeds": lambda form: sweep_accuracy.plot_sweep(sweep({}, (0, 1, 2)), form),
    "traces": lambda form: trace_strips.plot_sensitivity(sensitivity(), form),
    "traces of many layers, some below 0": lambda form: trace_strips.plot_sensitivity(
        many_layers(), form
    ),
    "traces without activations": lambda form: trace_strips.plot_sensitivity(
        without_activations(), form
    ),
    "bits": lambda form: layer_bars.plot_bits(
        [(f"layer{k}", (2 + k % 7, 3, 8)) for k in range(30)], form
    ),
    "width_bars": lambda form: layer_bars.plot_channels(
        [(f"layer{k}", 16, 16 - k % 9) for k in range(80)], form
    ),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_is_a_png_of_readable_size_and_the_same_bytes_each_time(name: str) -> None:
    from matplotlib import image

    png = DRAWN[name](PNG)
    assert png == DRAWN[name](PNG)
    import io

    height, width = image.imread(io.BytesIO(png)).shape[:2]
    assert 400 < width < 2000
    assert 300 < height < 2600


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_of_a_page_can_be_read_on_a_phone_by_day_and_by_night(name: str) -> None:
    svg = DRAWN[name](SVG).decode()
    assert svg == DRAWN[name](SVG).decode()
    root = ElementTree.fromstring(svg)
    _, _, width, _ = map(float, root.attrib["viewBox"].split())
    # On a phone of 390 pixels a figure has 358, so that a point is no less than a pixel.
    assert width <= 358
    sizes = [float(size) for size in re.findall(r"font(?:-size)?: [a-z ]*([\d.]+)px", svg)]
    assert len(sizes) > 3
    assert min(sizes) >= 7.5, "signs of exponents are the smallest"
    assert "prefers-color-scheme:dark" in svg
    # Nothing has the color of the paper's opposite.
    drawn = svg[svg.index("</style>") :]
    assert "#1f2328" not in drawn
    assert "fill: #ffffff" not in drawn or "heat map" in name
    # No address is fetched: those that are left are names of namespaces.
    assert not re.search(r"(?:href|src)=.(?!#|data:)", drawn)


def test_colors_of_a_dark_page_stand_out() -> None:
    for color, in_the_dark in drawing._DARK_COLORS.items():
        # Lines of the grid are to be faint.
        least = 1.2 if color in ("#e5e5e5", "#d0d7de") else 3
        assert contrast(in_the_dark, "#12161b") >= least, color


def test_a_grid_that_is_not_finished_is_drawn_as_far_as_it_is() -> None:
    begun = sweep({"alpha": [0.2, 0.4], "temperature": [4.0, 6.0]})
    begun = replace(begun, points=begun.points[:1], rows=begun.rows[:1])
    assert sweep_accuracy.plot_sweep(begun).startswith(b"\x89PNG")
    begun = sweep({"alpha": [0.2, 0.4], "temperature": [4.0, 6.0], "lr": [0.1]})
    begun = replace(begun, points=begun.points[:1])
    assert sweep_accuracy.plot_sweep(begun).startswith(b"\x89PNG")


def test_rounds_are_curves_of_their_own() -> None:
    first, second, third = history(3)
    records = [replace(first, round=1), replace(second, round=1), replace(third, round=2)]
    assert training_curves.split_rounds("s", records) == {
        "s, round 1": records[:2],
        "s, round 2": records[2:],
    }
    assert training_curves.split_rounds("s", [first]) == {"s": [first]}


def test_labels_do_not_cover_each_other() -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5))
    axes = figure.subplots()
    points = [
        LabeledPoint(f"model_{k}.onnx", 1 + 0.3 * k, (60.0 + k, 62.0 + k, 64.0 + k))
        for k in range(6)
    ]
    for point in points:
        low, middle, high = point.interval
        axes.errorbar(point.x, middle, yerr=[[middle - low], [high - middle]])
    axes.margins(0.2, 0.2)
    figure.draw_without_rendering()
    place_labels(axes, points)
    boxes = [label.get_window_extent() for label in axes.texts]
    assert len(boxes) == 6
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])


def test_labels_stand_off_the_bars_of_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.transforms import Bbox

    placed: list[tuple[Any, Any]] = []

    def keep(axes: Any, points: list[LabeledPoint]) -> None:
        place_labels(axes, points)
        for point in points:
            (_, middle, _), (left, right) = point.interval, point.bar
            (x0, y0), (x1, y1) = axes.transData.transform([(left, middle), (right, middle)])
            placed.append(
                (
                    Bbox([[x0, y0 - 2], [x1, y1 + 2]]),
                    [label.get_window_extent() for label in axes.texts],
                )
            )

    monkeypatch.setattr(tradeoff, "place_labels", keep)
    results = []
    for entry in bench_report("teacher.onnx", "student.onnx", "int8.onnx").results:
        median = entry.latency_s.median
        results.append(replace(entry, samples_s=(0.7 * median, median, 2 * median)))
    tradeoff.plot_latency_against_accuracy(results)
    assert len(placed) == 3
    for bar, labels in placed:
        assert not any(bar.overlaps(label) for label in labels)


def test_bars_stand_in_the_order_given_and_show_float_layers() -> None:
    layers = [("stem", (layer_bars.FLOAT_BITS,)), ("b.10", (2, 3)), ("b.2", (4, 4))]
    assert layer_bars.plot_bits(layers) != layer_bars.plot_bits(layers[1:])
    assert layer_bars.plot_bits(layers) != layer_bars.plot_bits(layers[::-1])
    many = [(f"layer.{k}", 100, 40 if k % 2 else 100) for k in range(120)]
    assert layer_bars.plot_channels(many) == layer_bars.plot_channels(many[1::2])


def test_without_matplotlib_the_message_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from fertool.report.plots import layer_bars; from fertool.errors import FertoolError\n"
        "try: layer_bars.plot_channels([('a', 2, 1)])\n"
        "except FertoolError as error: print(error.message, '|', error.hint)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "figures need Matplotlib | pip install 'fertool[plots]'\n"
