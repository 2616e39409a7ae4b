"""Read the header of a model file, in milliseconds and without torch."""

from __future__ import annotations

import zipfile
from pathlib import Path

from fertool.artifact.archive import read_member
from fertool.artifact.input_files import require_file
from fertool.errors import FertoolError
from fertool.registry import FORMATS
from fertool.spec import Spec
from fertool.strict_json import WrongContentError

MODEL_SUFFIX = ".pt"
"""Of fertool's own files."""
MEMBER = "archive/fertool.json"
"""Of the zip that torch.save writes."""
ONNX_KEY = "fertool"
"""Of the metadata of an ONNX file."""
PROFILE_OUTPUT = "profile"
"""Of a dynamic network's ONNX file: which profile computed the logits of each image, int64 [N]."""


def read_spec(path: Path) -> Spec:
    """Return the spec in the header of a model file, without reading the tensors.

    Raises FertoolError for a missing file, another kind of file, or one without fertool's header.
    """
    return Spec.from_json(read_header(path), str(path))


def read_header(path: Path) -> str:
    """Return the JSON text in the header of a file of any kind; raises FertoolError for none."""
    require_file(path)
    format = format_of(path)
    if format is None:
        return _zip_header(path)
    header: str = FORMATS.load(format)().read_header(path)
    return header


def format_of(path: Path) -> str | None:
    """Return the export format that a file has by its suffix, in any case; None for another one."""
    suffix = path.suffix.lower()
    # Without a look at the registry, which may load other people's packages.
    if suffix in ("", MODEL_SUFFIX):
        return None
    return FORMATS.having("suffix", suffix)


def files_of(path: Path) -> list[Path]:
    """Return a model file and, in formats of two files, the one that belongs to it."""
    format = format_of(path)
    companion = FORMATS.attribute(format, "companion", "") if format else ""
    if not companion:
        return [path]
    return [path, path.with_suffix(companion)]


def not_an_artifact(path: Path) -> FertoolError:
    """Return the error for a file that no fertool command wrote."""
    return FertoolError(
        f"{path}: not a fertool model file, or a truncated one",
        "copy or make the file again; fertool import makes one of another library's network",
    )


def damaged(path: Path, problem: str) -> FertoolError:
    """Return the error for a file that a command wrote, and that has changed since."""
    return FertoolError(f"{path}: damaged, {problem}", "make or copy the file again")


def _zip_header(path: Path) -> str:
    try:
        return read_member(path, MEMBER).decode()
    except WrongContentError as error:
        raise damaged(path, str(error)) from None
    # zipfile has no base class of its errors. RuntimeError: a damaged entry that claims to be
    # encrypted or packed in an unknown way.
    except (
        zipfile.BadZipFile,
        KeyError,
        ValueError,
        EOFError,
        OSError,
        RuntimeError,
        OverflowError,
    ):
        raise not_an_artifact(path) from None
