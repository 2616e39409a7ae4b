"""`fertool data info` and `fertool data synth`: look at a data set, or draw one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fertool.cli.groups import command
from fertool.cli.options import DataOption, Json
from fertool.cli.reporting import CONSOLE
from fertool.config.reading import DataConfig
from fertool.config.run import SynthConfig

app = typer.Typer(name="data", help="Look at a data set, or draw one.", no_args_is_help=True)


@app.command("info", no_args_is_help=True)
@command
def info(data: DataOption, read: DataConfig = DataConfig(), json: Json = False) -> None:
    """Count the images per split and class, and list all problems: unreadable files, duplicates, odd sizes.

    Duplicates are exact or near (the same photo resized, recompressed or brightened), within a split and across splits,
    under the same label and under different ones. Nothing is written.

    Example: fertool data info --data fer2013.csv --ferplus fer2013new.csv
    """
    from dataclasses import asdict

    from fertool.cli.output import print_json
    from fertool.report import tables
    from fertool.report.console import result
    from fertool.workflows.data import inspect_data, open_data

    found = asdict(inspect_data(open_data(data, read, reporter=CONSOLE)))
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
