"""Read what a model file says about itself, in milliseconds and without torch."""

from __future__ import annotations

import zipfile
from pathlib import Path

from fertool.errors import FertoolError
from fertool.spec import Spec

MEMBER = "archive/fertool.json"
ONNX_KEY = "fertool"


def read_spec(path: Path) -> Spec:
    """Return the spec in the header of a `.pt` or `.onnx` file; the tensors are neither read nor checked.

    Raises FertoolError for a missing file, another kind of file, or one without fertool's header.
    """
    return Spec.from_json(read_header(path), str(path))


def read_header(path: Path) -> str:
    """Return the JSON text in the header of a file of any kind; raises FertoolError if it has none."""
    require_file(path)
    return _onnx_header(path) if is_onnx(path) else _zip_header(path)


def is_onnx(path: Path) -> bool:
    """Whether the name of a file says that it is ONNX, in capitals or not."""
    return path.suffix.lower() == ".onnx"


def require_file(path: Path) -> None:
    """Raise FertoolError unless `path` is an existing file."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise FertoolError(f"{path}: {what}", "check the path")


def not_an_artifact(path: Path) -> FertoolError:
    """Return the error for a file that no fertool command wrote."""
    return FertoolError(
        f"{path}: not a fertool model file, or a truncated one",
        "weights of another library are taken with: fertool train-teacher --init",
    )


def _zip_header(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(MEMBER).decode()
    # RuntimeError: a damaged entry that claims to be encrypted or packed in an unknown way.
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError, EOFError, OSError, RuntimeError):
        raise not_an_artifact(path) from None


def _onnx_header(path: Path) -> str:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError, OSError):
        raise FertoolError(f"{path}: not an ONNX file, or a truncated one", "export it again") from None
    for entry in model.metadata_props:
        if entry.key == ONNX_KEY:
            return str(entry.value)
    raise FertoolError(
        f"{path}: an ONNX file without fertool's header", "name its classes and size: --classes a,b,… --input-size N"
    )
