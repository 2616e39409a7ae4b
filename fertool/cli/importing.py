"""`fertool import`: any network as a model file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fertool.cli.options import Json, Output
from fertool.cli.reporting import CONSOLE
from fertool.config.importing import ImportConfig


def import_(
    source: Annotated[
        str,
        typer.Argument(
            help="A name of the zoo, torchvision:NAME, timm:NAME, path/file.py:factory, a .pt2 or "
            "an .onnx file.",
            metavar="SOURCE",
        ),
    ],
    output: Output = None,
    config: ImportConfig = ImportConfig(),
    layers: Annotated[
        bool, typer.Option("--layers", help="List what can be pruned and quantized, by layer.")
    ] = False,
    json: Json = False,
) -> None:
    """Import a network as a model file: your own, of torchvision or timm, a .pt2 or an ONNX file.

    The file holds the network itself as a graph of known operators, so that every other command can
    work on it. Before it gets its name its logits are compared with the source's, within 1e-5.
    Python is run only where SOURCE names it; nothing in a file is ever executed.

    Example: fertool import torchvision:mobilenet_v3_small --weights weights.pth -o model.pt
    """
    from fertool.cli.output import announce
    from fertool.report import tables
    from fertool.report.console import result
    from fertool.workflows.importing import import_model, name_of

    output = output or Path(f"{name_of(source)}.pt")
    model = import_model(source, config, output=output, reporter=CONSOLE)
    if layers and not json:
        result(tables.layers_table(model.layers))
    announce(model.summary, json)
