"""`fertool export`: an ONNX file that has been compared with the model it came from."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

import typer

from fertool.cli.data import open_source
from fertool.cli.groups import command
from fertool.cli.inputs import require_inputs
from fertool.cli.options import Json, ModelFile, OptionalData, Output, ReadOptions, Recipe
from fertool.errors import UsageError

PARITY_IMAGES = 512
DRAWN = f"synth:{10 * PARITY_IMAGES // 2}"


@command
def export(
    model: ModelFile,
    output: Output = None,
    format: Annotated[
        Literal["auto", "onnx"], typer.Option(help="auto goes by the suffix of -o.")
    ] = "auto",
    data: OptionalData = None,
    opset: Annotated[int, typer.Option(help="ONNX operator set.", min=17, max=20)] = 18,
    simplify: Annotated[
        bool, typer.Option("--simplify/--no-simplify", help="Run onnxsim on the graph.")
    ] = True,
    packed: Annotated[
        bool | None,
        typer.Option(
            "--packed/--plain",
            help="Weights of an INT8 model in as few bits as they need, or one byte each and no operator but standard "
            "QDQ, for other runtimes. Default: packed where that saves 30 % of the file.",
        ),
    ] = None,
    recipe: Recipe = None,
    json: Json = False,
) -> None:
    """Export a float or INT8 model to ONNX: raw pixels in, logits out.

    Before the file gets its name its answers are compared with the model's, on validation images of --data or on
    drawn faces: FP32 logits within 1e-4, INT8 with the same top class on at least 99 % of the images.

    Example: fertool export int8.pt -o int8.onnx --data fer2013.csv
    """
    from fertool.artifact.atomic import require_writable, write_atomic
    from fertool.artifact.header import format_of
    from fertool.cli.output import announce, default_output
    from fertool.report.console import note, progress

    output = output or default_output(model, "", ".onnx")
    if format == "auto" and format_of(output) is None:
        raise UsageError(
            f"-o {output}: no format has the suffix '{output.suffix}'",
            "use .onnx, or --format onnx",
        )
    require_writable(output, model, *ReadOptions().inputs(data))
    require_inputs(model, data=data)
    from fertool import models
    from fertool.export import ExportOptions, check_parity, export_model, open_onnx, require_parity

    options = ExportOptions(opset=opset, simplify=simplify, packed=packed)
    spec, module = models.load_model(model)
    shape = spec.input
    # Drawn faces have seven classes, which need not be the model's; only the images are used.
    classes = spec.classes if data else None
    source = open_source(
        data or DRAWN, ReadOptions(), size=shape.size, channels=shape.channels, classes=classes
    )
    images = source.split("val").images[:PARITY_IMAGES]
    content = export_model(spec, module, options, on_note=note)
    with progress("parity") as on_progress:
        parity = check_parity(open_onnx(content), module, spec, images, on_progress=on_progress)
    require_parity(parity)
    write_atomic(output, content)
    if spec.quant:
        note(f"same top class as torch on {parity.top1_agreement:.2%} of {parity.n} images")
    else:
        note(f"logits within {parity.max_abs_diff:.1e} of torch's on {parity.n} images")
    announce(spec, output, json, parity=asdict(parity))
