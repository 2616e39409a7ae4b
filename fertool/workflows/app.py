"""Make the page that runs a model in a browser."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fertool.artifact.atomic import require_writable, temporary_folder, write_atomic
from fertool.artifact.input_files import require_file
from fertool.config.app import VIDEO_SIZE, AppConfig
from fertool.config.option import configured
from fertool.errors import FertoolError, UsageError
from fertool.reporter import SILENT, Reporter
from fertool.workflows.model import Model, load

if TYPE_CHECKING:
    from fertool.runtime import Predictor
    from fertool.web.settings import (
        ClassifierSettings,
        DetectorSettings,
        Fact,
        PageSettings,
        PageTexts,
        PixelType,
    )

LARGEST_SINGLE_BYTES = 128 << 20
"""Of a model in one HTML file, whose text a phone has to hold in memory several times."""
_DETECTOR = importlib.resources.files("fertool.faces.detectors")


@dataclass(frozen=True)
class AppPage:
    """A page that was written: one file, or a folder of files by their names."""

    path: Path
    files: Mapping[str, bytes]

    @property
    def size_bytes(self) -> int:
        """What a browser loads before the page works."""
        return sum(len(content) for content in self.files.values())


def app(
    model: Model | str | Path,
    path: str | Path,
    config: AppConfig = AppConfig(),
    *,
    reporter: Reporter = SILENT,
    **options: Any,
) -> AppPage:
    """Write a page that finds faces in photos and before a camera and labels them with the model.

    It is one HTML file, or with `folder` a folder for a static host. Everything runs in the
    browser; the page asks no other computer for anything. `options` are those of `AppConfig`, by
    name; `runtime`, the npm package onnxruntime-web, is needed.

    Not for inferring the emotions of people at work or in education, which the EU's AI Act
    prohibits.

    Raises FertoolError for a model or a runtime that cannot be read, UsageError for a wrong option.
    """
    (config,) = configured(config, options)
    path = Path(path)
    require_app_output(path, config, *_inputs(model))

    from fertool.web.runtime_files import find_runtime

    # Before the model is read or exported, which takes seconds.
    runtime_files = find_runtime(config.runtime)

    from fertool.web.notices import all_notices
    from fertool.web.pages import INDEX, AppParts, single_page, site_files

    with temporary_folder() as folder:
        file = _onnx_file(model, folder, reporter)
        settings = _settings(model, file, config, reporter)
        content = file.read_bytes()
    if len(content) > LARGEST_SINGLE_BYTES and not config.folder:
        raise FertoolError(
            f"{_name(model)}: {len(content):,} bytes are too many for one HTML file",
            "``folder=True`` makes a folder of files; a quantized model loads faster, too",
        )
    parts = AppParts(
        settings=settings,
        model=content,
        detector=(_DETECTOR / "yunet.onnx").read_bytes(),
        runtime=runtime_files,
        notices=all_notices((_DETECTOR / "YUNET_LICENSE").read_text(encoding="utf-8")),
    )
    if not config.folder:
        page = single_page(parts)
        write_atomic(path, page)
        return AppPage(path, {INDEX: page})
    files = site_files(parts)
    # The page last: it is never there without its files.
    for name in sorted(files, key=lambda name: name == INDEX):
        write_atomic(path / name, files[name])
    return AppPage(path, files)


def require_app_output(path: Path, config: AppConfig, *inputs: Path) -> None:
    """Raise FertoolError, before any work, where the page cannot be written."""
    if not config.folder:
        require_writable(path, *inputs)
        return
    if path.exists() and not path.is_dir():
        raise FertoolError(f"{path}: is a file", "name a folder as ``output``")
    require_writable(path / "index.html", *inputs)


def _inputs(model: Model | str | Path) -> list[Path]:
    if isinstance(model, Model):
        return [model.path] if model.path else []
    return [Path(model)]


def _name(model: Model | str | Path) -> str:
    return model.name if isinstance(model, Model) else str(model)


def _onnx_file(model: Model | str | Path, folder: Path, reporter: Reporter) -> Path:
    """Return the model as an ONNX file: itself, or exported into `folder`."""
    from fertool.artifact.header import MODEL_SUFFIX
    from fertool.workflows.export import export

    if not isinstance(model, Model):
        path = Path(model)
        require_file(path)
        if path.suffix.lower() == ".onnx":
            return path
        if path.suffix.lower() not in ("", MODEL_SUFFIX):
            raise UsageError(
                f"{path}: browsers run ONNX files", f"give an .onnx file, or a {MODEL_SUFFIX} one"
            )
        model = load(path)
    return export(model, folder / "model.onnx", reporter=reporter).path


def _settings(
    model: Model | str | Path, file: Path, config: AppConfig, reporter: Reporter
) -> PageSettings:
    from fertool.report.printable import printable
    from fertool.runtime.opening import open_predictor
    from fertool.web.settings import PageSettings
    from fertool.workflows.predict import require_pictures_fit
    from fertool.workflows.predictors import note_assumptions

    predictor = open_predictor(file, foreign=config.foreign)
    note_assumptions(predictor, config.foreign, reporter)
    require_pictures_fit(predictor)
    title = printable(config.title).strip()
    if not title:
        raise UsageError("``title``: is empty", "name the page, for example ``title=Expressions``")
    return PageSettings(
        classifier=_classifier_settings(predictor, _pixel_type(file), reporter),
        detector=_detector_settings(config),
        texts=_texts(title, _facts(predictor, Path(_name(model)), file)),
        min_confidence=config.min_confidence,
        smooth_s=config.smooth,
    )


def _pixel_type(file: Path) -> PixelType:
    """Return the type of a graph's pixels; raises FertoolError for weights in other files."""
    import onnx

    graph = onnx.load(file, load_external_data=False).graph
    for tensor in graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise FertoolError(
                f"{file}: has its weights in other files",
                "save it with its weights inside: onnx.save(onnx.load(path), other_path)",
            )
    is_uint8 = graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    return "uint8" if is_uint8 else "float32"


def _classifier_settings(
    predictor: Predictor, pixel_type: PixelType, reporter: Reporter
) -> ClassifierSettings:
    from fertool.faces.constants import MOST_SAMPLES
    from fertool.report.printable import printable
    from fertool.web.settings import ClassifierSettings
    from fertool.workflows.predict import temperature_of, template_of

    assumed = predictor.assumptions
    template, _ = template_of(predictor, True, reporter)
    contract: dict[str, Any] = {}
    if assumed is not None:
        contract = {
            "pixel_type": pixel_type,
            "pixel_range": assumed.pixel_range,
            "mean": assumed.mean,
            "std": assumed.std,
            "output": assumed.output,
            "may_be_probabilities": True,
        }
    elif predictor.contract is not None:
        contract = {
            "channels_last": predictor.contract.layout == "NHWC",
            "may_be_probabilities": predictor.contract.output == "probabilities",
        }
    return ClassifierSettings(
        classes=tuple(printable(name) for name in predictor.classes),
        channels=predictor.channels,
        size=predictor.input.size,
        template=template,
        most_samples=MOST_SAMPLES,
        batch=predictor.batch,
        temperature=temperature_of(predictor),
        **contract,
    )


def _detector_settings(config: AppConfig) -> DetectorSettings:
    from fertool.faces import constants
    from fertool.web.settings import DetectorSettings

    return DetectorSettings(
        photo_size=config.detection.detect_size,
        video_size=min(VIDEO_SIZE, config.detection.detect_size),
        min_score=config.detection.min_score,
        second_looks=constants.SECOND_LOOKS,
        smallest_side=constants.SMALLEST_SIDE,
        largest_area=constants.LARGEST_AREA,
        pad_multiple=constants.PAD_MULTIPLE,
        strides=constants.STRIDES,
        largest_overlap=constants.LARGEST_OVERLAP,
    )


def _facts(predictor: Predictor, path: Path, file: Path) -> tuple[Fact, ...]:
    """Return what the page says of the model, as `show` has it."""
    from fertool.report.model_tables import model_facts
    from fertool.report.units import size_text
    from fertool.results import ModelSummary

    size_bytes = file.stat().st_size
    if predictor.spec is None:
        facts = [("size", size_text(size_bytes)), ("classes", ", ".join(predictor.classes))]
    else:
        facts = model_facts(ModelSummary.of(file, size_bytes, predictor.spec))
    return (("file", path.name), *facts)


def _texts(title: str, facts: tuple[Fact, ...]) -> PageTexts:
    from fertool.report.page import EXCLUDED, INTENDED, LIMITS, PROHIBITED
    from fertool.web.settings import PageTexts

    return PageTexts(
        title=title,
        intended=INTENDED,
        excluded=EXCLUDED,
        prohibited=PROHIBITED,
        limits=LIMITS,
        facts=facts,
    )
