"""Read an ONNX file as a protobuf message; nothing in it is run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fertool.errors import FertoolError

if TYPE_CHECKING:
    from onnx import ModelProto


def load_onnx_model(path: Path) -> ModelProto:
    """Return the graph in an ONNX file; raises FertoolError for a file of another kind."""
    # Imported here: the header of a `.pt` file is read without onnx.
    import onnx

    with _wrapping_errors(path):
        # Without the files that it may name, whose paths could lead anywhere.
        return onnx.load(path, load_external_data=False)


def read_onnx_metadata(path: Path, key: str) -> str | None:
    """Return the entry of an ONNX file's metadata with this key, None if there is none.

    Raises FertoolError for a file of another kind.
    """
    model = load_onnx_model(path)
    for entry in model.metadata_props:
        # The first of several: a file may carry another one behind it.
        if entry.key == key:
            return _as_text(entry.value, path)
    return None


def _as_text(value: str | bytes, path: Path) -> str:
    # What is not UTF-8 arrives as bytes.
    if isinstance(value, bytes):
        with _wrapping_errors(path):
            return value.decode()
    return value


@contextmanager
def _wrapping_errors(path: Path) -> Iterator[None]:
    from google.protobuf.message import DecodeError

    try:
        yield
    except (DecodeError, ValueError, OSError, RecursionError):
        raise FertoolError(
            f"{path}: not an ONNX file, or a truncated one", "export it again"
        ) from None
