"""Read what a model file says about itself, in milliseconds and without torch."""

from __future__ import annotations

import zipfile
from pathlib import Path

from fertool.artifact.archive import MAX_HEADER_BYTES, read_member
from fertool.artifact.files import require_file
from fertool.checked import WrongContentError
from fertool.errors import FertoolError
from fertool.spec import Spec

__all__ = ["MEMBER", "ONNX_KEY", "not_an_artifact", "read_header", "read_spec", "require_file"]

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


def not_an_artifact(path: Path) -> FertoolError:
    """Return the error for a file that no fertool command wrote."""
    return FertoolError(
        f"{path}: not a fertool model file, or a truncated one",
        "weights of another library are taken with: fertool train-teacher --init",
    )


def _zip_header(path: Path) -> str:
    try:
        return read_member(path, MEMBER).decode()
    except WrongContentError as error:
        raise FertoolError(f"{path}: damaged, {error}", "make or copy the file again") from None
    # RuntimeError: a damaged entry that claims to be encrypted or packed in an unknown way.
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
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
        header = next(
            (str(entry.value) for entry in model.metadata_props if entry.key == ONNX_KEY), None
        )
    except (DecodeError, ValueError, OSError, RecursionError):
        raise FertoolError(
            f"{path}: not an ONNX file, or a truncated one", "export it again"
        ) from None
    if header is None:
        raise FertoolError(
            f"{path}: an ONNX file without fertool's header",
            "fertool eval and bench take it, with --classes a,b,… --input-size N",
        )
    if len(header) > MAX_HEADER_BYTES:
        raise FertoolError(f"{path}: a header of {len(header):,} characters", "export it again")
    return header
