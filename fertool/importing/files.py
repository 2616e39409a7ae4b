"""Networks in files: exported programs and ONNX files. Nothing in them is executed but operators that are known."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from msgspec import Meta
from torch import Tensor, nn

from fertool.artifact.archive import require_bounded
from fertool.artifact.input_files import require_file
from fertool.errors import FertoolError
from fertool.graph.capture import CapturedGraph
from fertool.graph.from_program import capture_program
from fertool.graph.network import ImageShape
from fertool.importing.libraries import Preprocessing
from fertool.strict_json import Name, WrongContentError, as_type, parse_json, shown


@dataclass(frozen=True)
class Found:
    """What a source holds: the network, what computes the logits to compare, and how images are prepared if it says."""

    captured: CapturedGraph
    image: ImageShape
    reference: Callable[[Tensor], Tensor]
    prepared: Preprocessing | None = None
    notes: tuple[str, ...] = ()


_TYPES = {
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    13: torch.bfloat16,
    5: torch.int64,
    4: torch.int32,
}
"""Types of tensors by the numbers that exported programs have for them."""
_LONGEST_PROGRAM = 64 << 20


def program_network(path: Path, size: int | None, channels: int | None) -> Found:
    """Return the network of a .pt2 file as `torch.export.save` writes it since PyTorch 2.9.

    Raises FertoolError for other files, programs with pickled parts, and calls that are not known.
    """
    require_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            require_bounded(path)
            program, tensors = _program_parts(archive)
        captured, image = capture_program(program, tensors, _image(path, size, channels))
    except WrongContentError as error:
        raise FertoolError(
            f"{path}: {error}", "export the module again with torch.export.save"
        ) from None
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, RuntimeError) as error:
        raise FertoolError(
            f"{path}: not an exported program, or a damaged one ({error})",
            "make it with torch.export.save",
        ) from None
    network = captured.network(image)
    return Found(captured, image, lambda images: network(images))


def onnx_network(path: Path, size: int | None, channels: int | None) -> Found:
    """Return the network of an ONNX file; raises FertoolError for operators that are not known."""
    import onnx
    from google.protobuf.message import DecodeError

    from fertool.graph.from_onnx import graph_of_onnx
    from fertool.onnx_runtime import failed_pass, open_session, session_options

    require_file(path)
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError, OSError, RecursionError):
        raise FertoolError(
            f"{path}: not an ONNX file, or a truncated one", "export it again"
        ) from None
    try:
        found = graph_of_onnx(model, _image(path, size, channels))
    except FertoolError as error:
        raise FertoolError(f"{path}: {error.message}", error.hint) from None
    session = open_session(path, session_options(1), str(path))

    def logits(images: Tensor) -> Tensor:
        fed = images.permute(0, 2, 3, 1) if found.channels_last else images
        pixels = fed.round().to(torch.uint8) if found.raw_pixels else fed
        try:
            results = session.run([found.output], {session.get_inputs()[0].name: pixels.numpy()})
        except Exception as error:
            raise failed_pass(error, str(path)) from None
        return torch.from_numpy(results[0])

    # A graph that takes bytes prepares them itself.
    prepared = Preprocessing(found.image[1], (0.0,), (1 / 255,)) if found.raw_pixels else None
    return Found(found.captured, found.image, logits, prepared, tuple(found.notes))


def _image(path: Path, size: int | None, channels: int | None) -> ImageShape | None:
    return None if size is None else (channels or 3, size, size)


Axis = Annotated[int, Meta(ge=0, le=1 << 32)]


@dataclass(frozen=True)
class _Number:
    as_int: Axis


@dataclass(frozen=True)
class _TensorForm:
    """How a tensor of a program lies in its file."""

    dtype: int
    sizes: Annotated[tuple[_Number, ...], Meta(max_length=8)]
    strides: Annotated[tuple[_Number, ...], Meta(max_length=8)]
    storage_offset: _Number


@dataclass(frozen=True)
class _Payload:
    path_name: Name
    is_param: bool = False
    use_pickle: bool = False
    tensor_meta: _TensorForm | None = None


@dataclass(frozen=True)
class _Payloads:
    config: Annotated[Mapping[Name, _Payload], Meta(max_length=100_000)]


def _program_parts(archive: zipfile.ZipFile) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    """Return the JSON and the tensors of an exported program; raises WrongContentError."""
    members = {name.partition("/")[2]: name for name in archive.namelist()}
    program = as_type(_json(archive, members, "models/model.json"), dict[str, Any])
    tensors: dict[str, Tensor] = {}
    for kind in ("weights", "constants"):
        found = as_type(_json(archive, members, f"data/{kind}/model_{kind}_config.json"), _Payloads)
        for name, payload in found.config.items():
            path = members.get(f"data/{kind}/{payload.path_name}")
            if path is None or payload.use_pickle or payload.tensor_meta is None:
                raise WrongContentError(
                    f"{shown(name)} is pickled, or not there; nothing that runs code is read"
                )
            tensor = _tensor(archive.read(path), payload.tensor_meta, name)
            tensors[name] = (
                nn.Parameter(tensor) if payload.is_param and tensor.is_floating_point() else tensor
            )
    return program, tensors


def _json(archive: zipfile.ZipFile, members: Mapping[str, str], name: str) -> Any:
    if name not in members:
        raise WrongContentError(
            f"it has no {name}: not an exported program of PyTorch 2.9 or later"
        )
    if archive.getinfo(members[name]).file_size > _LONGEST_PROGRAM:
        raise WrongContentError(f"{name} is longer than {_LONGEST_PROGRAM >> 20} MB")
    return parse_json(archive.read(members[name]))


def _tensor(content: bytes, form: _TensorForm, name: str) -> Tensor:
    if form.dtype not in _TYPES:
        raise WrongContentError(f"{shown(name)} is of a type that no network has")
    kind = _TYPES[form.dtype]
    shape, strides = (
        [number.as_int for number in numbers] for numbers in (form.sizes, form.strides)
    )
    # Of content that is no whole number of entries the rest is no tensor's.
    whole = len(content) // kind.itemsize * kind.itemsize
    flat = (
        torch.frombuffer(bytearray(content[:whole]), dtype=kind)
        if whole
        else torch.empty(0, dtype=kind)
    )
    if math.prod(shape) > len(flat):
        raise WrongContentError(f"{shown(name)} has more numbers than are stored")
    if len(shape) != len(strides):
        raise WrongContentError(f"{shown(name)} has {len(shape)} axes and {len(strides)} strides")
    return torch.as_strided(flat, shape, strides, form.storage_offset.as_int).clone()
