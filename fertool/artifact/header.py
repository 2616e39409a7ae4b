"""Read the header of a model file, in milliseconds and without torch."""

from __future__ import annotations

import zipfile
from pathlib import Path

from fertool.artifact.archive import MAX_HEADER_BYTES, read_member
from fertool.artifact.input_files import require_file
from fertool.errors import FertoolError
from fertool.spec import Spec
from fertool.strict_json import WrongContentError

MEMBER = "archive/fertool.json"
"""Of the zip that torch.save writes."""
ONNX_KEY = "fertool"
"""Of the metadata of an ONNX file."""


def read_spec(path: Path) -> Spec:
    """Return the spec in the header of a `.pt` or `.onnx` file, without reading the tensors.

    Raises FertoolError for a missing file, another kind of file, or one without fertool's header.
    """
    return Spec.from_json(read_header(path), str(path))


def read_header(path: Path) -> str:
    """Return the JSON text in the header of a file of any kind; raises FertoolError for none."""
    require_file(path)
    if is_onnx(path):
        return _onnx_header(path)
    return _zip_header(path)


def is_onnx(path: Path) -> bool:
    """Return whether a file is ONNX by its suffix, in any case."""
    return path.suffix.lower() == ".onnx"


def not_an_artifact(path: Path) -> FertoolError:
    """Return the error for a file that no fertool command wrote."""
    return FertoolError(
        f"{path}: not a fertool model file, or a truncated one",
        "weights of another library can start a teacher: train one with ``init``",
    )


def _zip_header(path: Path) -> str:
    try:
        return read_member(path, MEMBER).decode()
    except WrongContentError as error:
        raise FertoolError(f"{path}: damaged, {error}", "make or copy the file again") from None
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


def _onnx_header(path: Path) -> str:
    # Here, so that the header of a zip is read without onnx.
    import onnx
    from google.protobuf.message import DecodeError

    header = None
    try:
        model = onnx.load(path, load_external_data=False)
        for entry in model.metadata_props:
            # The first of several: a file may carry another one behind it.
            if entry.key == ONNX_KEY and header is None:
                header = str(entry.value)
    except (DecodeError, ValueError, OSError, RecursionError):
        raise FertoolError(
            f"{path}: not an ONNX file, or a truncated one", "export it again"
        ) from None
    if header is None:
        raise FertoolError(
            f"{path}: an ONNX file without fertool's header",
            "fertool eval and bench take it, with ``classes=a,b,…`` and ``input_size=N``",
        )
    if len(header) > MAX_HEADER_BYTES:
        raise FertoolError(f"{path}: a header of {len(header):,} characters", "export it again")
    return header
