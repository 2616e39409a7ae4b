"""The options that commands share: same name, same meaning, everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fertool.cli.recipe import apply_recipe
from fertool.config.panels import OUTPUT
from fertool.config.reading import DATA

DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        help="fer2013.csv, a folder of images by class, RAF-DB, AffectNet, or 'synth' (drawn "
        "faces; synth:N draws N).",
        rich_help_panel=DATA,
    ),
]
OptionalData = Annotated[
    str | None,
    typer.Option("--data", help="A data set, as in train-teacher.", rich_help_panel=DATA),
]
ModelFile = Annotated[Path, typer.Argument(help="A fertool .pt file.", metavar="MODEL")]
AnyModelFile = Annotated[Path, typer.Argument(help="A model file, .pt or .onnx.", metavar="MODEL")]
_FILES = typer.Argument(help="Model files, .pt or .onnx.", metavar="FILE...")
AnyModelFiles = Annotated[list[Path], _FILES]
FilesToMeasure = Annotated[list[Path] | None, _FILES]
ModelsToExport = Annotated[
    list[Path],
    typer.Argument(
        help="A fertool .pt file; with --bundle several, also exported ones.", metavar="MODEL..."
    ),
]
Bundle = Annotated[
    bool,
    typer.Option(
        "--bundle",
        help="Write a folder for a board: the files, test cases, and programs that check and time "
        "them there.",
        rich_help_panel=OUTPUT,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="The file to write; its folder is made if missing.",
        rich_help_panel=OUTPUT,
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json", help="Print one JSON object on stdout instead of text.", rich_help_panel=OUTPUT
    ),
]
Recipe = Annotated[
    Path | None,
    typer.Option(
        help="YAML presets for these options, by command; flags win.",
        callback=apply_recipe,
        is_eager=True,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Print the plan and write nothing.", rich_help_panel=OUTPUT),
]
Bench = Annotated[
    bool,
    typer.Option(
        "--bench/--no-bench",
        help="Measure the latency of both networks in ONNX Runtime: one thread, interleaved.",
        rich_help_panel=OUTPUT,
    ),
]
