"""`fertool quantize`: integers in place of floats, in the file and in the arithmetic."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from fertool.cli.data import open_source
from fertool.cli.evaluate import evaluate_file
from fertool.cli.groups import command
from fertool.cli.options import DataOption, DryRun, Json, ModelFile, Output, ReadOptions, Recipe, Seed
from fertool.cli.provenance import make_step
from fertool.errors import UsageError


@command
def quantize(
    model: ModelFile,
    data: DataOption,
    output: Output = None,
    bits: Annotated[int, typer.Option(help="Bits of every weight; activations have 8.", min=2, max=8)] = 8,
    method: Annotated[Literal["ptq"], typer.Option(help="ptq: post-training, with calibration images.")] = "ptq",
    observer: Annotated[
        Literal["min-max", "percentile", "mse"], typer.Option(help="How activation ranges are chosen.")
    ] = "mse",
    samples: Annotated[int, typer.Option(help="Calibration images, balanced over the classes.", min=1)] = 512,
    full_range: Annotated[
        bool,
        typer.Option(
            "--full-range/--portable",
            help="Use weights up to 127, or up to 64: the same answers on processors without VNNI, too.",
        ),
    ] = False,
    dry_run: DryRun = False,
    read: ReadOptions = ReadOptions(),
    seed: Seed = 0,
    recipe: Recipe = None,
    json: Json = False,
) -> None:
    """Quantise a float model to integers after training; the file stores the integers.

    Calibrates on training images, and reports the validation accuracy before and after.

    Example: fertool quantize pruned.pt -o int8.pt --data fer2013.csv
    """
    raise UsageError("not wired")
