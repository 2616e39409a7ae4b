"""`fertool export`: a file for other runtimes, compared with the model that it came from."""

from __future__ import annotations

from fertool.cli.options import Bundle, Json, ModelsToExport, OptionalData, Output, Recipe
from fertool.cli.reporting import CONSOLE
from fertool.config.exporting import BundleConfig, ExportConfig


def export(
    models: ModelsToExport,
    output: Output = None,
    data: OptionalData = None,
    config: ExportConfig = ExportConfig(),
    bundle: Bundle = False,
    bundle_config: BundleConfig = BundleConfig(),
    recipe: Recipe = None,
    json: Json = False,
) -> None:
    """Export a float or INT8 model to ONNX or another format: raw pixels in, logits out.

    Before the file gets its name its logits are compared with the model's, on validation images of
    --data or on drawn faces: FP32 logits within 1e-4, INT8 with the same top class on at least 99 %
    of the images.

    Example: fertool export int8.pt -o int8.onnx --data fer2013.csv

    Example: fertool export int8.pt -o crops.onnx --with-preprocessing --with-softmax

    Example: fertool export student.pt int8.pt -o board --bundle
    """
    from fertool.cli.output import announce
    from fertool.workflows.bundle import export_bundle, require_single
    from fertool.workflows.data import open_data
    from fertool.workflows.export import export, require_exportable
    from fertool.workflows.model import load
    from fertool.workflows.outputs import default_output

    faces = open_data(data, reporter=CONSOLE) if data else None
    if bundle:
        output = output or default_output(models[0], "", ".board")
        written = export_bundle(models, output, config, bundle_config, data=faces, reporter=CONSOLE)
        announce(written, json)
        return
    require_single(models, bundle_config)
    (model,) = models
    output = output or default_output(model, "", config.suffix)
    require_exportable(output, config, model, *(faces.files if faces else []))
    exported = export(load(model), output, config, data=faces, reporter=CONSOLE)
    announce(exported.summary, json)
