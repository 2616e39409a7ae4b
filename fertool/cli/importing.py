"""`fertool import`: any network as a model file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fertool.cli.groups import command
from fertool.cli.options import Json, Output
from fertool.cli.training import parse_arch_args
from fertool.errors import UsageError


@command
def import_(
    source: Annotated[
        str,
        typer.Argument(
            help="A name of the zoo, torchvision:NAME, timm:NAME, path/file.py:factory, a .pt2 or an .onnx file.",
            metavar="SOURCE",
        ),
    ],
    output: Output = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="State dict for the network: .pth, .pt or .safetensors, plain or in the usual wrappings."
        ),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Names of the outputs, in order: a,b,…", metavar="NAMES")
    ] = None,
    input_size: Annotated[
        int | None, typer.Option(help="Side of the images in pixels.", min=8, max=1024)
    ] = None,
    input_channels: Annotated[
        int | None,
        typer.Option(help="1 (gray) or 3 (RGB); 1 sums the weights of an RGB stem.", min=1, max=3),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(
            help="Mean of pixels from 0 to 1: one value, or one per channel.", metavar="M,…"
        ),
    ] = None,
    std: Annotated[
        str | None,
        typer.Option(
            help="Deviation of pixels from 0 to 1: one value, or one per channel.", metavar="S,…"
        ),
    ] = None,
    arch_arg: Annotated[
        list[str] | None,
        typer.Option(help="Argument of the zoo's network or of the factory.", metavar="KEY=VALUE"),
    ] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="List what can be pruned and quantized, by layer.")
    ] = False,
    json: Json = False,
) -> None:
    """Import a network of your own, of torchvision or timm, an exported program or an ONNX file as a model file.

    The file holds the network itself as a graph of known operators, so that every other command can work on it. Before
    it gets its name its logits are compared with the source's, within 1e-5. Python is run only where SOURCE names it;
    nothing in a file is ever executed.

    Example: fertool import torchvision:mobilenet_v3_small --weights weights.pth -o model.pt
    """
    from fertool.artifact.atomic import require_writable
    from fertool.cli.flags import with_flags
    from fertool.cli.output import announce
    from fertool.cli.provenance import make_step
    from fertool.importing import ImportOptions, import_model
    from fertool.importing.survey import survey
    from fertool.models import save_model
    from fertool.report import tables
    from fertool.report.console import note, result

    output = output or Path(f"{_stem(source)}.pt")
    require_writable(output, *(path for path in (weights, _file(source)) if path))
    options = ImportOptions(
        weights=weights,
        classes=tuple(classes.split(",")) if classes else None,
        input_size=input_size,
        input_channels=input_channels,
        mean=_numbers("--mean", mean),
        std=_numbers("--std", std),
        arguments=parse_arch_args(arch_arg),
    )
    found = import_model(source, options)
    for line in found.notes:
        note(with_flags(line))
    named = {"source": found.spec.arch, "input_size": found.spec.input.size}
    step = make_step("import", named, None, weights=weights, source=_file(source))
    written = save_model(output, found.spec.with_step(step), found.network)
    note(f"logits within {found.difference:.1e} of the source's")
    surveyed = survey(found.network, found.spec.input)
    note(surveyed.summary)
    if layers and not json:
        result(tables.layers_table(surveyed.layers))
    announce(
        written,
        output,
        json,
        **{"import": {"max_abs_diff": found.difference, "layers": surveyed.layers}},
    )


def _file(source: str) -> Path | None:
    place = Path(source.rpartition(":")[0] or source)
    return place if place.is_file() else None


def _stem(source: str) -> str:
    name = source.replace("\\", "/").rpartition("/")[2]
    return name.removesuffix(".onnx").removesuffix(".pt2").replace(".py:", ".").replace(":", ".")


def _numbers(flag: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"{flag} {text}: not numbers", f"for example {flag} 0.5 or {flag} 0.485,0.456,0.406"
        ) from None
    return values
