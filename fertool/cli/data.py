"""`fertool data info` and `fertool data synth`, and how every command opens its data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fertool.cli.groups import command
from fertool.cli.inputs import require_inputs
from fertool.cli.options import DataOption, Json, ReadOptions, Seed

if TYPE_CHECKING:
    from fertool.data.source import DataSource
    from fertool.runtime import Predictor

app = typer.Typer(name="data", help="Look at a data set, or draw one.", no_args_is_help=True)


def open_source(
    data: str,
    read: ReadOptions,
    *,
    size: int | None = None,
    channels: int = 1,
    classes: tuple[str, ...] | None = None,
) -> DataSource:
    """Open `--data` in the shape that a model takes, size None for its own; notes go to stderr."""
    from fertool import distributed
    from fertool.data import DataOptions, open_data
    from fertool.report.console import note

    options = DataOptions(
        format=None if read.format == "auto" else read.format,
        ferplus=read.ferplus,
        ferplus_rule=read.ferplus_rule,
        size=size,
        channels=channels,
        classes=classes,
    )
    with distributed.main_process_first():
        source = open_data(data, options, on_note=note)
        if distributed.world_size() > 1:
            # Only training is shared, and it reads these; what takes long is decoded here and now.
            for split in ("train", "val"):
                source.split(split)
    return source


class ModelData:
    """The data of one command, opened once for each shape and class order among its models."""

    def __init__(self, data: str, read: ReadOptions) -> None:
        self._data, self._read = data, read
        self._opened: dict[Any, DataSource] = {}

    def of(self, predictor: Predictor) -> DataSource:
        """Return the data in the shape and class order of a model."""
        shape, classes = predictor.input, predictor.classes
        key = (shape.size, shape.channels, classes)
        if key not in self._opened:
            self._opened[key] = open_source(
                self._data, self._read, size=shape.size, channels=shape.channels, classes=classes
            )
        return self._opened[key]


@app.command("info", no_args_is_help=True)
@command
def info(data: DataOption, read: ReadOptions = ReadOptions(), json: Json = False) -> None:
    """Count the images per split and class, and find copies, leaks, contradictions and images without a face.

    Example: fertool data info --data fer2013.csv --ferplus fer2013new.csv
    """
    from dataclasses import asdict

    require_inputs(data=data, read=read)
    from fertool.cli.output import print_json
    from fertool.data.info import inspect_source
    from fertool.report import tables
    from fertool.report.console import result

    found = asdict(inspect_source(open_source(data, read)))
    if json:
        print_json(found)
    else:
        result(tables.data_table(found))


@app.command("synth", no_args_is_help=True)
@command
def synth(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The CSV to write, in the form of fer2013.csv.")
    ],
    count: Annotated[int, typer.Option(help="Number of faces over all splits.", min=70)] = 4000,
    seed: Seed = 0,
) -> None:
    """Draw faces with seven expressions, so that everything runs without a download.

    Example: fertool data synth -o faces.csv --count 4000
    """
    from fertool.artifact.atomic import require_writable
    from fertool.data.synth import write_faces
    from fertool.report.console import path_result

    require_writable(output)
    write_faces(output, count, seed)
    path_result(output)
