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
from fertool.artifact.header import MEMBER, damaged, not_an_artifact
from fertool.artifact.input_files import require_file
from fertool.header_json import canonical_json
from fertool.spec import Spec
from fertool.strict_json import WrongContentError, parse_json

_PLAIN_TYPES = {
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
}
"""What torch can convert and compare; not all of its other types of 8 bits and fewer, and of its
unsigned ones, allow that."""
# Neither torch nor zipfile has a base class of what they raise; those from KeyError on are for
# content of other keys and types.
_FOREIGN_FILE_ERRORS = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    RuntimeError,
    EOFError,
    OSError,
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    OverflowError,
    AssertionError,
)
_SMALL_BYTES = 4096
"""Tensors up to this size share a storage in the file."""


@dataclass(frozen=True)
class Artifact:
    """A checked model file: its spec and its tensors by name."""

    spec: Spec
    state_dict: dict[str, Tensor]


def save(path: Path, spec: Spec, state_dict: Mapping[str, Tensor]) -> Spec:
    """Write a model file atomically and return its spec with the digest filled in.

    The same spec and tensors give the same bytes under any file name. Raises FertoolError when the
    file cannot be written.
    """
    spec, content = pack_spec(spec, state_dict)
    write_atomic(path, content)
    return spec


def load(path: Path) -> Artifact:
    """Read a model file and check its digest; nothing in the file is executed.

    Raises FertoolError for a missing, foreign, truncated, damaged or too new file.
    """
    header, state_dict = unpack(path)
    return Artifact(Spec.from_json(canonical_json(header), str(path)), state_dict)


def pack_spec(spec: Spec, state_dict: Mapping[str, Tensor]) -> tuple[Spec, bytes]:
    """Return a spec with the digest filled in, and the bytes of its model file."""
    # By way of the text, which is the form of the header that is read back.
    header, content = pack(json.loads(spec.to_json()), state_dict)
    return replace(spec, digest=header["digest"]), content


def pack(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], bytes]:
    """Return the header with its digest, and the bytes of a file with header and tensors."""
    # Sorted, so that the order in which a network lists its tensors does not change the file.
    plain = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    plain = _share_storages(plain)
    header = {**header, "digest": ""}
    header["digest"] = _digest(header, plain)
    text = canonical_json(header)
    buffer = io.BytesIO()
    torch.save({"state_dict": plain, "spec": text}, buffer)
    # The text a second time, as a member: `read_header` finds it there without torch.
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        # A ZipInfo made by hand carries the year 1980, not the clock.
        archive.writestr(zipfile.ZipInfo(MEMBER), text)
    return header, buffer.getvalue()


def unpack(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read and check a file written from `pack`; returns its header and tensors.

    No more bytes are read than the file has. Raises FertoolError.
    """
    try:
        content = load_plain(path)
        text = content["spec"]
        state_dict = content["state_dict"]
        header = parse_json(text)
        digest = header["digest"]
        member = read_member(path, MEMBER).decode()
        require_dense(state_dict)
        # Many tensors may share one storage.
        if sum(tensor.nbytes for tensor in state_dict.values()) > path.stat().st_size:
            raise WrongContentError("its tensors have more numbers than the file")
        found = _digest({**header, "digest": ""}, state_dict)
    except WrongContentError as error:
        raise damaged(path, str(error)) from None
    except _FOREIGN_FILE_ERRORS:
        raise not_an_artifact(path) from None
    if member != text or found != digest:
        raise damaged(path, "its content does not match its digest")
    return header, state_dict


def load_plain(path: Path) -> Any:
    """Return what `torch.load` finds in a file, after checks that it cannot make more of it.

    Nothing in it is executed. Raises FertoolError for what is not a regular file, WrongContentError
    for a file that would unpack to more than it is, and whatever torch fails with.
    """
    require_file(path)
    require_bounded(path)
    with warnings.catch_warnings():
        # torch comments on foreign files; the callers' errors are enough.
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)


def require_dense(tensors: Mapping[str, Any]) -> None:
    """Raise WrongContentError, naming the first, for what is no plain tensor of real numbers.

    That is a sparse, quantized, complex or meta tensor, or one of more numbers than are stored
    (expanded).
    """
    for name, tensor in tensors.items():
        problem = _find_problem(tensor)
        if problem:
            raise WrongContentError(f"{name} is {problem}")


def _find_problem(tensor: Any) -> str:
    """Return what keeps this from being a plain tensor, or an empty text."""
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
    """Return the SHA-256 of a file's bytes as hexadecimal digits.

    Raises FertoolError for what is not a regular file.
    """
    require_file(path)
    # It reads in blocks: data sets are larger than memory.
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _share_storages(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies, of which the small ones of one type share a storage.

    Each storage costs a file 300 bytes. Copies also drop the unused neighbors that a view of a
    larger storage would write.
    """
    copies: dict[str, Tensor] = {}
    small: dict[torch.dtype, list[str]] = {}
    for name in sorted(tensors):
        tensor = tensors[name]
        if tensor.nbytes > _SMALL_BYTES:
            copies[name] = tensor.clone()
        else:
            small.setdefault(tensor.dtype, []).append(name)

    for names in small.values():
        whole = torch.cat([tensors[name].reshape(-1) for name in names])
        parts = torch.split(whole, [tensors[name].numel() for name in names])
        for name, part in zip(names, parts, strict=True):
            copies[name] = part.view(tensors[name].shape)
    # In the order given, which is that of the file.
    return {name: copies[name] for name in tensors}


def _digest(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over the header and over name, type, shape and bytes of each tensor.

    docs/artifact.md defines it.
    """
    digest = hashlib.sha256(canonical_json(header).encode())
    # Sorted: a file's own order of tensors is no part of its content.
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        description = [name, str(tensor.dtype), list(tensor.shape)]
        digest.update(canonical_json(description).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
