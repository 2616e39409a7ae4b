"""Export a model: a file for other runtimes that has been compared with the model it came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fertool.artifact.atomic import require_writable, temporary_folder, write_atomic
from fertool.config.exporting import DEFAULT_FORMAT, ExportConfig
from fertool.config.option import configured
from fertool.errors import UsageError
from fertool.registry import FORMATS
from fertool.reporter import SILENT, Reporter
from fertool.results import ExportResult, Parity
from fertool.workflows.data import Data, drawn_faces
from fertool.workflows.model import Model

if TYPE_CHECKING:
    from torch import Tensor

    from fertool.spec import Spec

PARITY_IMAGES = 512
_DRAWN_FACES = 10 * PARITY_IMAGES // 2
"""A tenth of these is the validation split, and a tenth is for the test."""


@dataclass(frozen=True)
class ExportedFile:
    """A file for other runtimes, the spec that it holds, and how close its logits are."""

    path: Path
    spec: Spec
    parity: Parity
    size_bytes: int

    @property
    def summary(self) -> ExportResult:
        """What the command prints: the header that the file holds, and the comparison."""
        return ExportResult.of(self.path, self.size_bytes, self.spec, parity=self.parity)


def export(
    model: Model,
    path: str | Path,
    config: ExportConfig = ExportConfig(),
    *,
    data: Data | None = None,
    reporter: Reporter = SILENT,
    **options: Any,
) -> ExportedFile:
    """Write a float or quantized model in a format that reads raw pixels and gives logits.

    Before the file gets its name its logits are compared with the model's, on validation images of
    `data` or on drawn faces. `options` are those of `ExportConfig`, by name.

    Raises FertoolError where the logits differ too much, and for a network that cannot be exported;
    UsageError for a wrong option, and a path whose suffix is of no format.
    """
    (config,) = configured(config, options)
    path = Path(path)
    require_exportable(path, config, *_inputs(model, data))

    from fertool.exporting import check_parity, exported_spec, require_parity
    from fertool.formats.format import load_format
    from fertool.inference import eval_mode

    format = load_format(_format_name(path, config))
    spec = exported_spec(model.spec, config)
    images = _parity_images(model, spec, data)
    # Written elsewhere first: a file that fails the comparison never gets its name.
    with temporary_folder() as folder:
        file = folder / f"model{format.suffix}"
        format.write(file, model.spec, model.module, config, reporter.note)
        with eval_mode(model.module), reporter.progress("parity") as on_progress:
            parity = check_parity(
                format.open(file), model.module, spec, images, on_progress=on_progress
            )
        require_parity(parity)
        content = file.read_bytes()
        size_bytes = len(content)
        # Some formats have a second file, whose name follows the first one's.
        for other in sorted(set(folder.iterdir()) - {file}):
            companion = other.read_bytes()
            size_bytes += len(companion)
            write_atomic(path.with_suffix(other.suffix), companion)
    # Last, since this file is what a Makefile waits for.
    write_atomic(path, content)
    _report_parity(model, parity, reporter)
    return ExportedFile(path, spec, parity, size_bytes)


def require_exportable(path: Path, config: ExportConfig, *inputs: Path) -> None:
    """Raise UsageError for a suffix of no format, FertoolError for what cannot be written."""
    _format_name(path, config)
    require_writable(path, *inputs)


def _format_name(path: Path, config: ExportConfig) -> str:
    """Return the format that is asked for, or that has the suffix of the path."""
    from fertool.artifact.header import format_of

    name: str | None = config.format
    if name == "auto":
        name = format_of(path)
    if name is None:
        suffixes = [FORMATS.attribute(each, "suffix", "") for each in FORMATS.names()]
        raise UsageError(
            f"{path}: no format has the suffix '{path.suffix}'",
            f"use {' or '.join(suffixes)}, or ``format={DEFAULT_FORMAT}``",
        )
    return name


def _inputs(model: Model, data: Data | None) -> list[Path]:
    if data is None:
        return model.files
    return [*model.files, *data.files]


def _parity_images(model: Model, spec: Spec, data: Data | None) -> list[Tensor]:
    """Return the images uint8 [N, C, H, W] that the file is compared on.

    Of several sizes where it takes any.
    """
    from fertool.exporting.parity import make_crops

    if spec.preprocessing is None:
        if data is not None:
            return [data.fitted_to(model).split("val").images[:PARITY_IMAGES]]
        # Of the seven expressions, which need not be the model's: only the images are used.
        drawn = drawn_faces(_DRAWN_FACES).fitted(model.input)
        return [drawn.split("val").images[:PARITY_IMAGES]]
    channels = spec.preprocessing.channels
    if data is not None:
        faces = data.fitted_to(model, channels).split("val").images
    else:
        faces = drawn_faces(_DRAWN_FACES).fitted().split("val").images
    return make_crops(faces[:PARITY_IMAGES], spec.input.size, channels)


def _report_parity(model: Model, parity: Parity, reporter: Reporter) -> None:
    if model.spec.quant:
        agreement = f"{parity.top1_agreement:.2%} of {parity.n} images"
        reporter.note(f"same top class as torch on {agreement}")
    else:
        reporter.note(f"logits within {parity.max_abs_diff:.1e} of torch's on {parity.n} images")
