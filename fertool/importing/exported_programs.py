"""Networks in exported programs (.pt2). Only functions that are known are executed."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from msgspec import Meta
from torch import Tensor, nn

from fertool.artifact.archive import require_bounded
from fertool.artifact.input_files import require_file
from fertool.errors import FertoolError
from fertool.graph.from_program import capture_program
from fertool.importing.sources import SourceNetwork, given_image_shape
from fertool.strict_json import Name, WrongContentError, as_type, parse_json, shown

_DTYPES = {
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    13: torch.bfloat16,
}
"""By the numbers of `torch._export.serde.schema.ScalarType`, which exported programs have."""
_MAX_JSON_BYTES = 64 << 20
"""Of the graph, or of the table of the tensors."""


def load_program_network(path: Path, size: int | None, channels: int | None) -> SourceNetwork:
    """Return the network of a .pt2 file as `torch.export.save` writes it since PyTorch 2.9.

    Raises FertoolError for other files, programs with pickled parts, and calls that are not known.
    """
    require_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            require_bounded(path)
            program, tensors = _read_archive(archive)
        captured, image = capture_program(program, tensors, given_image_shape(size, channels))
    except WrongContentError as error:
        raise FertoolError(
            f"{path}: {error}", "export the module again with torch.export.save"
        ) from None
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, RuntimeError) as error:
        raise FertoolError(
            f"{path}: not an exported program, or a damaged one ({error})",
            "make it with torch.export.save",
        ) from None

    # PyTorch's loader would run code of the file, so that the network is its own reference; the
    # comparison still finds results that depend on the number of images.
    network = captured.network(image)
    return SourceNetwork(captured, image, reference=network)


_AxisSize = Annotated[int, Meta(ge=0, le=1 << 32)]
# Bounds against hostile files, far above what networks of images have.
_MAX_AXES = 8
_MAX_TENSORS = 100_000


@dataclass(frozen=True)
class _Integer:
    as_int: _AxisSize


@dataclass(frozen=True)
class _TensorLayout:
    """How a tensor of a program lies in its file; strides and offset in elements."""

    dtype: int
    sizes: Annotated[tuple[_Integer, ...], Meta(max_length=_MAX_AXES)]
    strides: Annotated[tuple[_Integer, ...], Meta(max_length=_MAX_AXES)]
    storage_offset: _Integer


@dataclass(frozen=True)
class _TensorEntry:
    path_name: Name
    is_param: bool = False
    use_pickle: bool = False
    tensor_meta: _TensorLayout | None = None


@dataclass(frozen=True)
class _TensorTable:
    config: Annotated[Mapping[Name, _TensorEntry], Meta(max_length=_MAX_TENSORS)]


def _read_archive(archive: zipfile.ZipFile) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    """Return the JSON and the tensors of an exported program; raises WrongContentError."""
    members: dict[str, str] = {}
    for name in archive.namelist():
        # The first folder has the name of the file when it was saved.
        members[name.partition("/")[2]] = name
    program = as_type(_read_json(archive, members, "models/model.json"), dict[str, Any])
    tensors: dict[str, Tensor] = {}
    for kind in ("weights", "constants"):
        content = _read_json(archive, members, f"data/{kind}/model_{kind}_config.json")
        for name, entry in as_type(content, _TensorTable).config.items():
            member = members.get(f"data/{kind}/{entry.path_name}")
            if member is None or entry.use_pickle or entry.tensor_meta is None:
                raise WrongContentError(
                    f"{shown(name)} is pickled, or missing; nothing that runs code is read"
                )
            tensor = _decode_tensor(archive.read(member), entry.tensor_meta, name)
            if entry.is_param and tensor.is_floating_point():
                tensor = nn.Parameter(tensor)
            tensors[name] = tensor
    return program, tensors


def _read_json(archive: zipfile.ZipFile, members: Mapping[str, str], name: str) -> Any:
    if name not in members:
        raise WrongContentError(
            f"it has no {name}: not an exported program of PyTorch 2.9 or later"
        )
    if archive.getinfo(members[name]).file_size > _MAX_JSON_BYTES:
        raise WrongContentError(f"{name} is longer than {_MAX_JSON_BYTES >> 20} MB")
    return parse_json(archive.read(members[name]))


def _decode_tensor(content: bytes, layout: _TensorLayout, name: str) -> Tensor:
    if layout.dtype not in _DTYPES:
        raise WrongContentError(f"{shown(name)} has an unsupported element type")

    dtype = _DTYPES[layout.dtype]
    shape = [size.as_int for size in layout.sizes]
    strides = [stride.as_int for stride in layout.strides]
    # Files pad what they store, so that the rest after the last whole element is no tensor's.
    whole = len(content) // dtype.itemsize * dtype.itemsize
    flat = torch.empty(0, dtype=dtype)
    # torch.frombuffer refuses an empty buffer.
    if whole:
        flat = torch.frombuffer(bytearray(content[:whole]), dtype=dtype)

    # A stride of 0 would let a few bytes become a tensor that fills the memory.
    if math.prod(shape) > len(flat):
        raise WrongContentError(f"{shown(name)} has more numbers than are stored")
    if len(shape) != len(strides):
        raise WrongContentError(f"{shown(name)} has {len(shape)} axes and {len(strides)} strides")
    return torch.as_strided(flat, shape, strides, layout.storage_offset.as_int).clone()
