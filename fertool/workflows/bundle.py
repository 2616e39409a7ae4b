"""A folder for a board: model files, test cases, and programs that need ONNX Runtime alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fertool.artifact.atomic import temporary_folder
from fertool.artifact.header import MODEL_SUFFIX, format_of, read_spec
from fertool.artifact.input_files import require_file
from fertool.config.exporting import DEFAULT_FORMAT, BundleConfig, ExportConfig
from fertool.config.option import configured
from fertool.errors import UsageError
from fertool.registry import FORMATS
from fertool.reporter import SILENT, Reporter
from fertool.results import BundledFile, BundleResult
from fertool.workflows.bundle_files import BOARD, OWN_FILES, RUNTIME, Cases, common_files
from fertool.workflows.data import Data, drawn_faces
from fertool.workflows.model import load

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fertool.runtime import Predictor

_DRAWN_PER_IMAGE = 10
"""A tenth of drawn faces is the validation split."""
_FEWEST_DRAWN = 70
_CROP_SCALE = 2
"""Drawn crops of any size are so many times as large as the network's images, to be resized."""


def export_bundle(
    models: str | Path | Iterable[str | Path],
    folder: str | Path,
    config: ExportConfig = ExportConfig(),
    bundle: BundleConfig = BundleConfig(),
    *,
    data: Data | None = None,
    reporter: Reporter = SILENT,
    **options: Any,
) -> BundleResult:
    """Write a folder that checks and times models on a board without fertool.

    Models, `.pt`, are exported as `export` does; files that ONNX Runtime runs are taken as they
    are. The test cases are validation images of `data`, with their labels, or drawn faces; with
    `data` the folder therefore holds these images. It replaces a bundle of the same files, and
    appears when all is written. `options` are those of `ExportConfig` and `BundleConfig`, by name.

    Raises FertoolError where a file cannot be read, exported or written, UsageError for files of
    other runtimes and for two files of one name.
    """
    config, bundle = configured(config, options, bundle)
    paths = [Path(models)] if isinstance(models, str | Path) else [Path(path) for path in models]
    folder = Path(folder)
    names = _bundled_names(paths, config)
    require_bundle_output(folder, names, paths, data)

    from fertool.artifact.atomic_folder import write_folder

    with temporary_folder() as temporary:
        files = _model_files(paths, names, temporary, config, data, reporter)
        cases = Cases()
        entries = []
        for file in files:
            entries.append(_add_cases(cases, file, bundle, data, reporter))
        result = BundleResult(board=BOARD, home=_home(), files=tuple(entries), folder=str(folder))
        contents = {file.name: file.read_bytes() for file in files}
    contents |= common_files(result, cases, has_real_images=data is not None)
    write_folder(folder, contents)
    return result


def require_single(models: Sequence[Path], bundle: BundleConfig) -> None:
    """Raise UsageError for what only a bundle has: several models, a number of images."""
    if len(models) != 1:
        raise UsageError(
            f"{len(models)} models for one file",
            "export one at a time, or add ``bundle`` for a folder of all of them",
        )
    if bundle.bundle_images is not None:
        raise UsageError(
            f"``bundle_images={bundle.bundle_images}`` without ``bundle``",
            "add ``bundle`` for a folder with test images, or leave it out",
        )


def require_bundle_output(
    folder: Path, names: Iterable[str], inputs: Iterable[Path], data: Data | None
) -> None:
    """Raise an error, before any work, where the folder cannot be written."""
    from fertool.artifact.atomic_folder import require_folder_writable

    if format_of(folder) is not None or folder.suffix == MODEL_SUFFIX:
        raise UsageError(
            f"{folder}: a bundle is a folder, and this is the name of a model file",
            "for example ``output=board``",
        )
    every_input = [*inputs, *(data.files if data else [])]
    require_folder_writable(folder, [*OWN_FILES, *names], *every_input)


def _bundled_names(paths: Sequence[Path], config: ExportConfig) -> list[str]:
    """Return the name of each model in the bundle."""
    if not paths:
        raise UsageError("a bundle without a model", "name one or more files, .pt, .onnx or .ort")
    names: list[str] = []
    for path in paths:
        require_file(path)
        format = format_of(path)
        name = path.name
        if format is None:
            format = DEFAULT_FORMAT if config.format == "auto" else config.format
            name = f"{path.stem}{config.suffix}"
        if FORMATS.attribute(format, "runtime", "") != RUNTIME:
            raise UsageError(
                f"{path}: a bundle runs in ONNX Runtime, and {format} files do not",
                "give .onnx or .ort files, or the models that they are made from",
            )
        if name in names or name in OWN_FILES:
            raise UsageError(
                f"{path}: another file of the bundle has the name {name}", "rename one of them"
            )
        names.append(name)
    return names


def _model_files(
    paths: Sequence[Path],
    names: Sequence[str],
    folder: Path,
    config: ExportConfig,
    data: Data | None,
    reporter: Reporter,
) -> list[Path]:
    """Return the files for ONNX Runtime: those that are given, and exported ones in `folder`."""
    from fertool.workflows.export import export

    files = []
    for path, name in zip(paths, names, strict=True):
        if format_of(path) is None:
            export(load(path), folder / name, config, data=data, reporter=reporter)
            files.append(folder / name)
        else:
            # A file of another program has no header, which says how to feed it.
            read_spec(path)
            files.append(path)
    return files


def _add_cases(
    cases: Cases, file: Path, bundle: BundleConfig, data: Data | None, reporter: Reporter
) -> BundledFile:
    """Add images, logits and labels for one file, and return what `bundle.json` says of it."""
    import numpy as np

    from fertool.artifact.contract import PROBABILITIES
    from fertool.artifact.store import file_digest
    from fertool.runtime.opening import open_predictor
    from fertool.workflows.predict import template_of

    predictor = open_predictor(file, threads=1)
    images, labels = _test_images(predictor, bundle.image_count, data)
    with reporter.progress(file.name) as on_progress:
        # One by one, as the board does.
        logits = predictor.logits(images, batch_size=1, on_progress=on_progress)
    template, _ = template_of(predictor, False, reporter)
    contract = predictor.contract
    # `_model_files` requires a header, and `_bundled_names` a file of ONNX Runtime, which ncnn's
    # order of axes is not for.
    assert contract is not None
    assert contract.layout != "CHW"
    if contract.output == PROBABILITIES and predictor.spec is not None:
        # The logarithms of what the file returns, as its runner computes them.
        logits = logits / np.float32(predictor.spec.temperature or 1.0)
    return BundledFile(
        file=file.name,
        digest=predictor.digest,
        sha256=file_digest(file),
        quantized=predictor.quantized,
        dynamic=predictor.choose_profile is not None,
        size_bytes=file.stat().st_size,
        params=predictor.params,
        macs=predictor.macs,
        layout=contract.layout,
        output=contract.output,
        # As the file takes them: its runner has no other knowledge of the file.
        images=cases.add("images", contract.arrange(images)),
        logits=cases.add("logits", logits),
        labels=None if labels is None else cases.add("labels", labels),
        split=None if labels is None else "val",
        template=tuple((float(x), float(y)) for x, y in template),
    )


def _test_images(
    predictor: Predictor, count: int, data: Data | None
) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
    """Return images uint8 [N, C, H, W] and their labels [N], None for drawn ones.

    A file that takes crops of any size gets those of the data set in their own size.
    """
    import numpy as np

    if data is None:
        # Of the seven expressions, which need not be the model's: only the images are used.
        faces = drawn_faces(max(_FEWEST_DRAWN, _DRAWN_PER_IMAGE * count))
        side = predictor.input.size * (_CROP_SCALE if predictor.any_size else 1)
        drawn = faces.fitted(replace(predictor.input, size=side), crop_channels=predictor.channels)
        return drawn.split("val").images[:count].numpy(), None
    split = data.fitted_to(predictor).split("val")
    # From everywhere in the split: folders are read class by class.
    chosen = np.linspace(0, len(split) - 1, min(count, len(split))).round().astype(int)
    return split.images.numpy()[chosen], split.labels.numpy()[chosen]


def _home() -> Any:
    """Return the environment of this machine, as the board's programs describe theirs."""
    from fertool.onnx_runtime import import_onnxruntime
    from fertool.results import Environment
    from fertool.strict_json import as_type

    import_onnxruntime()
    from fertool import __version__
    from fertool.board.machine import describe_machine

    machine = describe_machine()
    machine["versions"]["fertool"] = __version__
    return as_type(machine, Environment)
