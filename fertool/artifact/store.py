"""Tensors and a header in one file that any `torch.load(path, weights_only=True)` opens."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fertool.artifact.archive import read_member, require_bounded
from fertool.artifact.atomic import write_atomic
from fertool.artifact.files import require_file
from fertool.artifact.header import MEMBER, not_an_artifact
from fertool.checked import WrongContentError, parse_json
from fertool.errors import FertoolError
from fertool.spec import Spec, canonical_json

_PLAIN_TYPES = {
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
}
"""What torch can convert and compare; its types of 8 bits and fewer and its unsigned ones are not all of that."""
_SMALL_BYTES = 4096
"""Tensors up to this size share a storage in the file."""


@dataclass(frozen=True)
class Artifact:
    """A checked model file: its spec and its tensors by name."""

    spec: Spec
    state_dict: dict[str, Tensor]


def save(path: Path, spec: Spec, state_dict: Mapping[str, Tensor]) -> Spec:
    """Write a model file atomically and return its spec with the digest filled in.

    The same spec and tensors give the same bytes under any file name.
    """
    header, content = pack(json.loads(spec.to_json()), state_dict)
    write_atomic(path, content)
    return replace(spec, digest=header["digest"])


def load(path: Path) -> Artifact:
    """Read a model file and check its digest; nothing in the file is executed.

    Raises FertoolError for a missing, foreign, truncated, damaged or too new file.
    """
    header, state_dict = unpack(path)
    return Artifact(Spec.from_json(canonical_json(header), str(path)), state_dict)


def pack(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], bytes]:
    """Return the header with its digest, and the bytes of the file that holds both it and the tensors."""
    plain = _stored_together(
        {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    )
    header = {**header, "digest": ""}
    header["digest"] = _digest(header, plain)
    text = canonical_json(header)
    buffer = io.BytesIO()
    torch.save({"state_dict": plain, "spec": text}, buffer)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        # A ZipInfo made by hand carries the year 1980, not the clock.
        archive.writestr(zipfile.ZipInfo(MEMBER), text)
    return header, buffer.getvalue()


def unpack(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read and check a file written from `pack`; returns its header and tensors.

    What is read has no more bytes than the file. Raises FertoolError.
    """
    try:
        content = load_plain(path)
        text, state_dict = content["spec"], content["state_dict"]
        header = parse_json(text)
        digest = header["digest"]
        member = read_member(path, MEMBER).decode()
        require_dense(state_dict)
        if sum(tensor.nbytes for tensor in state_dict.values()) > path.stat().st_size:
            raise WrongContentError("its tensors have more numbers than the file")
        found = _digest({**header, "digest": ""}, state_dict)
    except WrongContentError as error:
        raise FertoolError(f"{path}: damaged, {error}", "make or copy the file again") from None
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, OSError):
        raise not_an_artifact(path) from None
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        IndexError,
        OverflowError,
        AssertionError,
    ):
        raise not_an_artifact(path) from None
    if member != text or found != digest:
        raise FertoolError(
            f"{path}: damaged, its content does not match its digest", "make or copy the file again"
        )
    return header, state_dict


def load_plain(path: Path) -> Any:
    """Return what `torch.load` finds in a file; nothing in it is executed, and it makes no more of it than there is.

    Raises FertoolError for what is no file, WrongContentError for a file that would unpack to more than it is, and
    whatever torch fails with.
    """
    require_file(path)
    require_bounded(path)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # torch comments on foreign files; the callers' errors are enough
        return torch.load(path, map_location="cpu", weights_only=True)


def require_dense(tensors: Mapping[str, Any]) -> None:
    """Raise WrongContentError, naming the first, for what is no plain tensor of real numbers in memory.

    That is a sparse, quantized, complex or meta tensor, or one of more numbers than are stored (expanded).
    """
    for name, tensor in tensors.items():
        kind = _unusual(tensor)
        if kind:
            raise WrongContentError(f"{name} is {kind}")


def _unusual(tensor: Any) -> str:
    """Return what keeps this from being a plain tensor, or nothing."""
    if not isinstance(tensor, Tensor):
        return "no tensor"
    if tensor.layout != torch.strided or tensor.is_nested:
        return "sparse"
    if tensor.is_quantized:
        return "quantized by torch"
    if tensor.is_complex():
        return "complex"
    if tensor.dtype not in _PLAIN_TYPES:
        return f"of type {str(tensor.dtype).removeprefix('torch.')}"
    if tensor.device.type != "cpu":
        return f"on the {tensor.device.type} device"
    if tensor.nbytes > tensor.untyped_storage().nbytes():
        return "expanded: it has more numbers than are stored"
    return ""


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hexadecimal digits; raises FertoolError for what is no regular file."""
    require_file(path)
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _stored_together(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies of which the small ones of one type share a storage: each storage costs a file 300 bytes.

    Copies also drop the unused neighbours that a view of a larger storage would write.
    """
    copies = {
        name: tensor.clone() for name, tensor in tensors.items() if tensor.nbytes > _SMALL_BYTES
    }
    small: dict[torch.dtype, list[str]] = {}
    for name in tensors.keys() - copies.keys():
        small.setdefault(tensors[name].dtype, []).append(name)
    for names in map(sorted, small.values()):
        whole = torch.cat([tensors[name].reshape(-1) for name in names])
        parts = torch.split(whole, [tensors[name].numel() for name in names])
        copies.update(
            (name, part.view(tensors[name].shape)) for name, part in zip(names, parts, strict=True)
        )
    return {name: copies[name] for name in tensors}


def _digest(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(canonical_json(header).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(canonical_json([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
