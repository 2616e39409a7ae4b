"""Look at a data set, draw one, cut one out of photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

import typer

from fertool.cli.commands import CommandGroup, Entry
from fertool.cli.options import DataOption, Json
from fertool.cli.reporting import CONSOLE
from fertool.config.detection import DetectionConfig
from fertool.config.predicting import CropConfig
from fertool.config.reading import DataConfig
from fertool.config.run import SynthConfig


class _DataCommands(CommandGroup):
    table: ClassVar = {
        "info": Entry("data.info"),
        "synth": Entry("data.synth"),
        "crop": Entry("data.crop"),
    }


app = typer.Typer(
    name="data",
    cls=_DataCommands,
    add_completion=False,
    help=__doc__,
    no_args_is_help=True,
)


@app.callback()
def data() -> None:
    """Do nothing by itself."""


def info(
    data: DataOption,
    read: DataConfig = DataConfig(),
    landmarks: Annotated[
        bool, typer.Option("--landmarks", help="Measure where the landmarks of the faces lie.")
    ] = False,
    detection: DetectionConfig = DetectionConfig(),
    json: Json = False,
) -> None:
    """Count the images by split and class, and list all problems of a data set.

    These are unreadable files, duplicates, contradicting labels and odd sizes. Duplicates are exact
    or near: the same photo resized, recompressed or brightened. Nothing is written.

    Example: fertool data info --data fer2013.csv --ferplus fer2013new.csv
    """
    from fertool.cli.output import print_json
    from fertool.report import tables
    from fertool.report.console import result
    from fertool.workflows.data import inspect_data, open_data

    # What cannot be read is a problem to list, no reason to stop.
    faces = open_data(data, read, reporter=CONSOLE, skip_unreadable=True)
    found = inspect_data(faces, landmarks=detection if landmarks else None)
    if json:
        print_json(found)
    else:
        result(tables.data_table(found))


def synth(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The CSV to write, in the form of fer2013.csv.")
    ],
    config: SynthConfig = SynthConfig(),
) -> None:
    """Draw faces with seven expressions, so that everything runs without a download.

    Example: fertool data synth -o faces.csv --count 4000
    """
    from fertool.artifact.atomic import require_writable
    from fertool.data.synth import write_faces
    from fertool.report.console import path_result

    require_writable(output)
    write_faces(output, config.count, config.seed)
    path_result(output)


def crop(
    source: Annotated[str, typer.Argument(help="A folder of photographs.", metavar="SOURCE")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder to write the crops into.")
    ],
    config: CropConfig = CropConfig(),
    json: Json = False,
) -> None:
    """Cut the faces out of photographs, upright and aligned, as predict will see them.

    Folders of classes and splits stay as they are. Pictures without a face are named.

    Example: fertool data crop photos/ -o crops/
    """
    from fertool.cli.output import print_crops
    from fertool.workflows.crop_faces import crop_faces, require_all_cut

    report = crop_faces(source, output, config, reporter=CONSOLE)
    print_crops(report, json)
    require_all_cut(report)
