"""Networks in files: exported programs and ONNX files. Nothing in them is executed but operators that are known."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fertool.artifact.archive import require_bounded
from fertool.artifact.files import require_file
from fertool.checked import WrongContentError, parse_json, shown
from fertool.errors import FertoolError
from fertool.graph.capture import Captured
from fertool.graph.from_program import capture_program
from fertool.graph.network import ImageShape

Read = tuple[Captured, ImageShape, Callable[[Tensor], Tensor], tuple[str, ...]]
"""A network, the shape of its images, what computes its logits, and notes for the user."""

_TYPES = {6: torch.float16, 7: torch.float32, 8: torch.float64, 13: torch.bfloat16, 5: torch.int64, 4: torch.int32}
"""Types of tensors by the numbers that exported programs have for them."""
_LONGEST_PROGRAM = 64 << 20


def program_network(path: Path, size: int | None, channels: int | None) -> Read:
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
        raise FertoolError(f"{path}: {error}", "export the module again with torch.export.save") from None
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, RuntimeError) as error:
        raise FertoolError(
            f"{path}: not an exported program, or a damaged one ({error})", "make it with torch.export.save"
        ) from None
    network = captured.network(image)
    return captured, image, lambda images: network(images), ()


def onnx_network(path: Path, size: int | None, channels: int | None) -> Read:
    """Return the network of an ONNX file; raises FertoolError for operators that are not known."""
    import onnx
    from google.protobuf.message import DecodeError

    from fertool.graph.from_onnx import graph_of_onnx
    from fertool.onnx_runtime import open_session, session_options

    require_file(path)
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError, OSError, RecursionError):
        raise FertoolError(f"{path}: not an ONNX file, or a truncated one", "export it again") from None
    try:
        found = graph_of_onnx(model, _image(path, size, channels))
    except FertoolError as error:
        raise FertoolError(f"{path}: {error.message}", error.hint) from None
    session = open_session(path, session_options(1), str(path))

    def logits(images: Tensor) -> Tensor:
        name = session.get_inputs()[0].name
        return torch.from_numpy(session.run(None, {name: images.numpy()})[0])

    return found.captured, found.image, logits, tuple(found.notes)


def _image(path: Path, size: int | None, channels: int | None) -> ImageShape | None:
    return None if size is None else (channels or 3, size, size)


def _program_parts(archive: zipfile.ZipFile) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    """Return the JSON and the tensors of an exported program; raises WrongContentError."""
    members = {name.partition("/")[2]: name for name in archive.namelist()}
    program = _json(archive, members, "models/model.json")
    tensors: dict[str, Tensor] = {}
    for kind in ("weights", "constants"):
        config = _json(archive, members, f"data/{kind}/model_{kind}_config.json").get("config", {})
        for name, about in config.items():
            tensors[name] = _stored(archive, members, f"data/{kind}/{about['path_name']}", name, about)
    return program, tensors


def _json(archive: zipfile.ZipFile, members: Mapping[str, str], name: str) -> Any:
    if name not in members:
        raise WrongContentError(f"it has no {name}: not an exported program of PyTorch 2.9 or later")
    if archive.getinfo(members[name]).file_size > _LONGEST_PROGRAM:
        raise WrongContentError(f"{name} is longer than {_LONGEST_PROGRAM >> 20} MB")
    return parse_json(archive.read(members[name]))


def _stored(
    archive: zipfile.ZipFile, members: Mapping[str, str], path: str, name: str, about: Mapping[str, Any]
) -> Tensor:
    if about.get("use_pickle") or about.get("tensor_meta") is None or path not in members:
        raise WrongContentError(f"{shown(name)} is pickled, or not there; nothing that runs code is read")
    meta = about["tensor_meta"]
    if meta["dtype"] not in _TYPES:
        raise WrongContentError(f"{shown(name)} is of a type that no network has")
    kind, shape = _TYPES[meta["dtype"]], [size["as_int"] for size in meta["sizes"]]
    flat = torch.frombuffer(bytearray(archive.read(members[path])), dtype=kind)
    offset, strides = meta["storage_offset"]["as_int"], [stride["as_int"] for stride in meta["strides"]]
    if math.prod(shape) > len(flat):
        raise WrongContentError(f"{shown(name)} has more numbers than are stored")
    tensor = torch.as_strided(flat, shape, strides, offset).clone()
    return nn.Parameter(tensor) if about.get("is_param") else tensor
