"""Figures as PNG bytes, drawn without a display; needs the extra `plots`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, islice, product
from typing import TYPE_CHECKING, Any

from fertool.report.canvas import COLOURS, blank_figure
from fertool.report.plain import plain
from fertool.report.units import short_names, value_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

Data = Mapping[str, Any]
_Point = tuple[float, tuple[float, float, float]]
"""A position and, above it, the lower end of an interval, the value, and the upper end."""

MARKERS = "osD^vP"
_LONGEST_CLASS = 16
_MOST_CURVES = 50
_LONGEST_VALUE = 40
"""Characters of a name that a figure shows."""
_LABEL_PLACES = (
    (1, 10, 0),
    (1, -10, 0),
    (2, 0, 5),
    (0, 0, -5),
    (2, 5, 5),
    (2, -5, 5),
    (0, 5, -5),
    (0, -5, -5),
    (2, 0, 18),
)
"""Where a point's label may stand, the preferred place first: at the lower end of the interval (0), the point (1) or
the upper end (2), and how far to the right and up of it, in printer's points."""


def training_curves(histories: Mapping[str, Sequence[Data]]) -> bytes:
    """Return loss and validation accuracy by epoch, one colour a model; the best epoch carries a mark.

    Each record has `epoch`, `train_loss`, `val_loss` and `val_accuracy` (a share). Of very many only the first are
    drawn.
    """
    shown = dict(islice(histories.items(), _MOST_CURVES))
    with blank_figure(10, 4) as (figure, png):
        losses, accuracies = figure.subplots(1, 2)
        for (name, history), colour in zip(shown.items(), cycle(COLOURS), strict=False):
            epochs = [record["epoch"] for record in history]
            losses.plot(
                epochs,
                [record["train_loss"] for record in history],
                "--",
                color=colour,
                label=f"{name}, train",
            )
            losses.plot(
                epochs,
                [record["val_loss"] for record in history],
                color=colour,
                label=f"{name}, validation",
            )
            shares = [100 * record["val_accuracy"] for record in history]
            best = max(range(len(shares)), key=shares.__getitem__)
            accuracies.plot(
                epochs, shares, color=colour, label=f"{name}, best {shares[best]:.1f} %"
            )
            accuracies.plot(epochs[best], shares[best], "o", color=colour)
        for axes, label in ((losses, "loss"), (accuracies, "validation accuracy (%)")):
            axes.set(xlabel="epoch", ylabel=label)
            axes.grid(color="#E5E5E5")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.legend(frameon=False, fontsize=9)
    return png.getvalue()


def curves(name: str, history: Sequence[Data]) -> dict[str, list[Data]]:
    """Return a history as curves by name: one, or one for each round of which it has records."""
    parts: dict[str, list[Data]] = {}
    name = plain(name)
    for record in history:
        parts.setdefault(
            f"{name}, round {record['round']}" if "round" in record else name, []
        ).append(record)
    return parts


def sweep(found: Data) -> bytes:
    """Return what a sweep (OUT.grid.json, OUT.seeds.json) found.

    Two options make a heat map, other grids lines over the option with the most values, with the standard deviation
    of several seeds or the 95 % interval of one; seeds alone their training curves.
    """
    axes = found["axes"]
    if not axes:
        rows = sorted(found["rows"], key=lambda row: row["seed"])
        return training_curves(
            {
                name: part
                for row in rows
                for name, part in curves(f"seed {row['seed']}", row["history"]).items()
            }
        )
    return _heat_map(found) if len(axes) == 2 else _option_lines(found)


def confusion_matrix(entry: Data) -> bytes:
    """Return the confusion matrix of `eval --json`, each row in percent of its true class."""
    names, counts = (
        [plain(name[:_LONGEST_CLASS]) for name in entry["per_class"]],
        entry["confusion"],
    )
    shares = [[100 * count / max(1, sum(row)) for count in row] for row in counts]
    side = 1.4 + 0.62 * len(names)
    with blank_figure(side + 1.6, side) as (figure, png):
        axes = figure.subplots()
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
        for row, line in enumerate(shares):
            for column, share in enumerate(line):
                colour = "white" if share > 55 else "black"
                axes.text(
                    column, row, f"{share:.0f}", ha="center", va="center", color=colour, fontsize=10
                )
        axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(
            range(len(names)), [f"{n} ({sum(row):,})" for n, row in zip(names, counts, strict=True)]
        )
        axes.set(xlabel="answer", ylabel="true class (images)")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        figure.colorbar(
            image, ax=axes, label="% of the true class", shrink=0.8
        ).outline.set_visible(False)
    return png.getvalue()


def size_against_accuracy(results: Sequence[Data]) -> bytes:
    """Return file size against accuracy for entries of `bench --json` that have an accuracy."""
    return _tradeoff(
        results, [entry["size_bytes"] / 1e6 for entry in results], None, "file size (MB, log scale)"
    )


def latency_against_accuracy(results: Sequence[Data]) -> bytes:
    """Return latency against accuracy for entries of `bench --json`; bars are the 10th to 90th percentile."""
    medians = [1e3 * entry["latency_s"]["median"] for entry in results]
    spreads = []
    for entry, median in zip(results, medians, strict=True):
        samples = sorted(entry["samples_s"])
        low, high = (1e3 * samples[int(share * (len(samples) - 1))] for share in (0.1, 0.9))
        # Of two passes the 90th percentile is the first, which is below their median.
        spreads.append((max(0.0, median - low), max(0.0, high - median)))
    first = results[0]
    label = f"latency (ms, log scale), batch {first['batch']}, threads: {first['threads']}"
    return _tradeoff(results, medians, spreads, label)


def _heat_map(found: Data) -> bytes:
    (down, downs), (across, acrosses) = found["axes"].items()
    points = {
        (point["options"][down], point["options"][across]): point for point in found["points"]
    }
    means = [100 * point["accuracy_mean"] for point in points.values()]
    with blank_figure(2.6 + 1.0 * len(acrosses), 1.6 + 0.7 * len(downs)) as (figure, png):
        axes = figure.subplots()
        grid = [
            [100 * points[d, a]["accuracy_mean"] if (d, a) in points else None for a in acrosses]
            for d in downs
        ]
        shown = [[float("nan") if value is None else value for value in row] for row in grid]
        image = axes.imshow(
            shown, cmap="Blues", vmin=min(means), vmax=max(means) + 1e-9, aspect="auto"
        )
        middle = (min(means) + max(means)) / 2
        for (row, d), (column, a) in product(enumerate(downs), enumerate(acrosses)):
            if (d, a) in points:
                sd, mean = points[d, a]["accuracy_sd"], 100 * points[d, a]["accuracy_mean"]
                text = f"{mean:.1f}" if sd is None else f"{mean:.1f}\n± {100 * sd:.1f}"
                best = points[d, a] is found["points"][0]
                colour = "white" if mean > middle else "black"
                weight = "bold" if best else "normal"
                axes.text(column, row, text, ha="center", va="center", color=colour, weight=weight)
        axes.set_xticks(range(len(acrosses)), [_tick(value) for value in acrosses])
        axes.set_yticks(range(len(downs)), [_tick(value) for value in downs])
        axes.set(xlabel=plain(across), ylabel=plain(down))
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        figure.colorbar(image, ax=axes, label=_accuracy_label(found)).outline.set_visible(False)
    return png.getvalue()


def _option_lines(found: Data) -> bytes:
    """Draw accuracy over one option, a line for each combination of the others."""
    axis = max(
        found["axes"], key=lambda name: (_is_numeric(found["axes"][name]), len(found["axes"][name]))
    )
    numeric = _is_numeric(found["axes"][axis])
    values = sorted(found["axes"][axis]) if numeric else found["axes"][axis]
    lines: dict[str, list[Data]] = {}
    for point in sorted(found["points"], key=lambda point: values.index(point["options"][axis])):
        others = [
            f"{plain(name)} {_tick(value)}"
            for name, value in point["options"].items()
            if name != axis
        ]
        lines.setdefault(", ".join(others), []).append(point)
    lines = dict(sorted(lines.items()))
    with blank_figure(7.5, 4.5) as (figure, png):
        axes = figure.subplots()
        looks = zip(cycle(COLOURS), cycle(MARKERS), strict=False)
        for shift, ((name, points), (colour, marker)) in enumerate(
            zip(lines.items(), looks, strict=False)
        ):
            xs = [
                values.index(point["options"][axis]) + 0.04 * (shift - (len(lines) - 1) / 2)
                for point in points
            ]
            means = [100 * point["accuracy_mean"] for point in points]
            below, above = zip(*(_spread(point) for point in points), strict=True)
            axes.errorbar(
                xs,
                means,
                yerr=[below, above],
                fmt=f"{marker}-",
                color=colour,
                capsize=3,
                elinewidth=1,
                label=name,
            )
        axes.set_xticks(range(len(values)), [_tick(value) for value in values])
        axes.set(xlabel=plain(axis), ylabel=_accuracy_label(found))
        axes.grid(axis="y", color="#E5E5E5")
        axes.margins(x=0.1)
        if len(lines) > 1:
            figure.legend(
                *axes.get_legend_handles_labels(),
                loc="outside right upper",
                frameon=False,
                fontsize=9,
            )
    return png.getvalue()


def _tick(value: bool | int | float | str) -> str:
    return plain(value_text(value)[:_LONGEST_VALUE])


def _is_numeric(values: Sequence[Any]) -> bool:
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)


def _spread(point: Data) -> tuple[float, float]:
    """How far a bar reaches below and above a mean, in points of percent."""
    if point["accuracy_sd"] is not None:
        return 100 * point["accuracy_sd"], 100 * point["accuracy_sd"]
    low, high = point["accuracy_ci95"]
    mean = point["accuracy_mean"]
    return 100 * max(0.0, mean - low), 100 * max(0.0, high - mean)


def _accuracy_label(found: Data) -> str:
    first, seeds = found["rows"][0], len(found["seeds"])
    spread = (
        f"mean ± sd of {seeds} seeds"
        if seeds > 1
        else "95 % intervals"
        if len(found["axes"]) != 2
        else ""
    )
    return "\n".join(
        filter(None, [f"accuracy (%), {plain(first['split'])}, n = {first['n']:,}", spread])
    )


def _tradeoff(
    results: Sequence[Data],
    positions: Sequence[float],
    spreads: Sequence[tuple[float, float]] | None,
    label: str,
) -> bytes:
    names = short_names([entry["file"] for entry in results])
    with blank_figure(7.5, 4.8) as (figure, png):
        axes = figure.subplots()
        points: list[_Point] = []
        bars: list[tuple[float, float]] = []
        for index, (entry, x) in enumerate(zip(results, positions, strict=True)):
            y, (low, high) = 100 * entry["accuracy"], (100 * end for end in entry["accuracy_ci95"])
            left, right = spreads[index] if spreads else (0.0, 0.0)
            points.append((x, (low, y, high)))
            bars.append((x - left, x + right))
            axes.errorbar(
                x,
                y,
                xerr=[[left], [right]] if spreads else None,
                yerr=[[max(0.0, y - low)], [max(0.0, high - y)]],
                fmt=MARKERS[index % len(MARKERS)],
                color=COLOURS[index % len(COLOURS)],
                markersize=8,
                capsize=3,
                elinewidth=1,
            )
        first = results[0]
        split = plain(first["split"])
        axes.set_xscale("log")
        axes.grid(color="#E5E5E5")
        axes.set_axisbelow(True)
        axes.margins(x=0.2, y=0.15)
        axes.set(xlabel=label, ylabel=f"accuracy (%), {split}, n = {first['n']:,}, 95 % intervals")
        axes.xaxis.set_major_formatter(_plain_number)
        axes.xaxis.set_minor_formatter(_sparse_minor(positions))
        axes.tick_params(
            axis="x", which="minor", pad=5
        )  # in line with the labels at longer major ticks
        figure.draw_without_rendering()  # settles the layout, which the places of the labels depend on
        _place_labels(axes, points, [names[entry["file"]] for entry in results], bars)
    return png.getvalue()


def _plain_number(value: float, _: float) -> str:
    return f"{value:g}"


def _sparse_minor(positions: Sequence[float]) -> Any:
    """Labels between the powers of ten: all within one decade, 2 and 5 within two, else none."""
    span = max(positions) / min(positions)
    wanted = {2, 3, 4, 5, 6, 8} if span < 6 else {2, 5} if span < 100 else set()

    def text(value: float, _: float) -> str:
        digit = round(float(f"{value:e}".partition("e")[0]))
        return f"{value:g}" if digit in wanted else ""

    return text


def _place_labels(
    axes: Axes,
    points: Sequence[_Point],
    names: Sequence[str],
    bars: Sequence[tuple[float, float]] = (),
) -> None:
    """Write each name beside its point, at the first place where it covers no point, interval or other name.

    `bars` are the ends of a horizontal bar through each point, where there is one.
    """
    from matplotlib.transforms import Bbox

    taken: list[Any] = []
    for point in points:
        (x, low), (_, middle), (_, high) = axes.transData.transform(
            [(point[0], end) for end in point[1]]
        )
        taken += [
            Bbox.from_bounds(x - 8, middle - 8, 16, 16),
            Bbox.from_bounds(x - 5, low, 10, high - low),
        ]
    for point, ends in zip(points, bars, strict=False):
        (left, middle), (right, _) = axes.transData.transform([(end, point[1][1]) for end in ends])
        taken.append(Bbox.from_bounds(left, middle - 5, right - left, 10))
    frame = axes.get_window_extent()
    for point, name in zip(points, names, strict=True):
        tried = []
        for place in _LABEL_PLACES:
            label = _label(axes, point, name, place)
            box = label.get_window_extent()
            label.remove()
            inside = (
                frame.x0 <= box.x0
                and box.x1 <= frame.x1
                and frame.y0 <= box.y0
                and box.y1 <= frame.y1
            )
            tried.append((sum(box.overlaps(other) for other in taken) + (not inside), place, box))
            if not tried[-1][0]:
                break
        _, place, box = min(tried, key=lambda trial: trial[0])
        _label(axes, point, name, place)
        taken.append(box)


def _label(axes: Axes, point: _Point, name: str, place: tuple[int, int, int]) -> Annotation:
    end, right, up = place
    return axes.annotate(
        name,
        (point[0], point[1][end]),
        xytext=(right, up),
        textcoords="offset points",
        ha="left" if right > 0 else "right" if right < 0 else "center",
        va="bottom" if up > 0 else "top" if up < 0 else "center",
        fontsize=9,
        parse_math=False,
    )
