"""Checkpoints of other programs: tensors by name, out of the files and wrappings they come in."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fertool.artifact import store
from fertool.artifact.header import MEMBER, damaged
from fertool.artifact.input_files import require_file
from fertool.artifact.safetensors import is_safetensors, read_safetensors
from fertool.errors import FertoolError
from fertool.strict_json import WrongContentError, listed

_USUAL_KEYS = ("state_dict", "model")
_KEYS = (
    *_USUAL_KEYS,
    "model_state_dict",
    "model_state",
    "net",
    "network",
    "weights",
    "params",
    "module",
    "student",
    # Running means last: they are worse where training stopped early.
    "ema",
    "model_ema",
    "ema_state_dict",
    "state_dict_ema",
    "params_ema",
)
"""Keys under which checkpoints keep a state dict, the most usual first."""
_MAX_NESTING = 4
"""Keys below each other that lead to a state dict, at most."""
_PARALLEL = "module."
_PREFIXES = (
    _PARALLEL,
    "_orig_mod.",
    "model.",
    "backbone.",
    "net.",
    "network.",
    "encoder.",
    "student.",
)
"""What wrappers put before the names of a network's tensors."""
_ZIP_MEMBERS = {
    ".npy": "arrays of NumPy",
    "/constants.pkl": "a TorchScript program",
    ".weights.h5": "a Keras model",
}
"""Endings of the names of members of zip files, and what such a file is."""
_SIGNATURES = {
    b"\x89HDF\r\n": "an HDF5 file, as Keras writes",
    b"TFL3": "a TensorFlow Lite model",
}
"""First bytes of files of other libraries."""
_SIGNATURE_BYTES = 8
_SHOWN = 80
"""Characters of a name that an error shows."""
_REFUSED_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
"""The function in torch's error about a pickle that would call one."""
_SAVE_AGAIN = "torch.save(model.state_dict(), path)"


def read_weights(path: Path, wanted: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors of a checkpoint, and notes on what was unwrapped.

    `wanted` are the tensors of the network that they are for, which decide about prefixes. Takes
    state dicts as torch.save writes them, plain or in the usual wrappings, safetensors files and
    fertool's own. Raises FertoolError for other files, for files that would run code, and for
    tensors that are not plain numbers in memory.
    """
    require_file(path)
    if is_model_file(path):
        return _read_model_file(path), []
    state, notes = _unwrap(_read_content(path), path)
    try:
        store.require_dense(state)
    except WrongContentError as error:
        raise FertoolError(f"{path}: {error}", f"save plain tensors: {_SAVE_AGAIN}") from None
    state, prefix_notes = _strip_prefixes(state, wanted)
    return state, notes + prefix_notes


def _read_model_file(path: Path) -> dict[str, Tensor]:
    artifact = store.load(path)
    if artifact.spec.quant is not None:
        raise FertoolError(
            f"{path}: a quantized model has no float weights", "give the model it was made from"
        )
    artifact.spec.require_static("where a training starts")
    return artifact.state_dict


def _read_content(path: Path) -> Any:
    """Return what a PyTorch or safetensors file holds; no code in it is run."""
    kind = _foreign_kind(path)
    if kind is not None:
        raise FertoolError(
            f"{path}: {kind}, not a state dict of PyTorch or a safetensors file",
            f"load it with the library that wrote it, and save its weights: {_SAVE_AGAIN}",
        )
    try:
        if is_safetensors(path):
            return read_safetensors(path)
        return store.load_plain(path)
    except WrongContentError as error:
        raise damaged(path, str(error)) from None
    except pickle.UnpicklingError as error:
        refused = _REFUSED_GLOBAL.search(str(error))
        reason = f"it asks for {refused[1]}, and so" if refused else "it"
        raise FertoolError(
            f"{path}: not a plain state dict: {reason} would have to run code, or it is damaged; "
            "nothing was run",
            f"where the model's own code is at hand, save it again with {_SAVE_AGAIN}",
        ) from None
    except Exception:
        # On damaged files torch's reader raises many types: struct.error, assertions, KeyError.
        raise FertoolError(
            f"{path}: not a state dict, or a truncated one", "copy the file again"
        ) from None


def is_model_file(path: Path) -> bool:
    """Return whether a file is a zip with fertool's header."""
    return MEMBER in _zip_names(path)


def _foreign_kind(path: Path) -> str | None:
    """Return what a file of another library is, in words; None where it may be a state dict."""
    names = _zip_names(path)
    for ending, kind in _ZIP_MEMBERS.items():
        if any(name.endswith(ending) for name in names):
            return kind
    with open(path, "rb") as file:
        first_bytes = file.read(_SIGNATURE_BYTES)
    # Anywhere in the first bytes: TensorFlow Lite's signature stands at byte 4.
    for signature, kind in _SIGNATURES.items():
        if signature in first_bytes:
            return kind
    # An ONNX file begins with no signature.
    if path.suffix.lower() == ".onnx":
        return "an ONNX file"
    return None


def _zip_names(path: Path) -> list[str]:
    """Return the names of the members of a zip; none for other files."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return []


def _unwrap(content: Any, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Return the state dict inside a checkpoint, and a note of its keys unless they are usual."""
    keys: list[str] = []
    # Bounded, as a dict may hold itself.
    while len(keys) < _MAX_NESTING:
        key = _state_dict_key(content)
        if key is None:
            break
        keys.append(key)
        content = content[key]

    if not isinstance(content, Mapping):
        raise _not_a_state_dict(path, type(content).__name__)
    state = {}
    others = []
    for name, value in content.items():
        if isinstance(value, Tensor):
            state[str(name)] = value
        else:
            # A key of a foreign file may be of any length.
            others.append(str(name)[:_SHOWN])
    if others:
        raise _not_a_state_dict(path, listed(others))
    if set(keys) <= set(_USUAL_KEYS):
        return state, []
    return state, [f"taken from '{'.'.join(keys)}' in the file"]


def _state_dict_key(content: Any) -> str | None:
    """Return the key under which a checkpoint keeps another map, if there is one."""
    if not isinstance(content, Mapping):
        return None
    for key in _KEYS:
        if isinstance(content.get(key), Mapping):
            return key
    return None


def _not_a_state_dict(path: Path, holds: str) -> FertoolError:
    return FertoolError(
        f"{path}: not a state dict: it holds {holds}, not named tensors alone",
        f"a state dict, also under one of the keys {', '.join(_KEYS)}",
    )


def _strip_prefixes(
    given: dict[str, Tensor], wanted: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors without the prefixes of wrappers, and a note of what was removed.

    A prefix of all names is removed unless the network has it itself; a prefix of most names, if
    more of them then fit the network.
    """
    removed: list[str] = []
    prefix = _removable_prefix(given, wanted)
    while prefix is not None:
        given = _remove_prefix(given, prefix)
        removed.append(prefix)
        prefix = _removable_prefix(given, wanted)
    # DataParallel's prefix is too usual to be worth a note.
    if not removed or removed == [_PARALLEL]:
        return given, []
    fitting = _count_matches(given, wanted)
    return given, [
        f"prefix {''.join(removed)} removed: {fitting} of {len(given)} tensors are the network's"
    ]


def _removable_prefix(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    """Return the first of the prefixes of wrappers without which the names fit better."""
    for prefix in _PREFIXES:
        if _is_removable(prefix, given, wanted):
            return prefix
    return None


def _is_removable(prefix: str, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> bool:
    count = sum(name.startswith(prefix) for name in given)
    # A part of the network may have such a name itself: `model.` before a few names is no wrapper.
    if 2 * count <= len(given):
        return False
    renamed = _remove_prefix(given, prefix)
    # Two tensors would get the same name.
    if len(renamed) < len(given):
        return False
    gained = _count_matches(renamed, wanted) - _count_matches(given, wanted)
    if gained == 0:
        # It may hide a second prefix, behind which the names fit.
        return count == len(given)
    return gained > 0


def _remove_prefix(given: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in given.items()}


def _count_matches(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> int:
    return len(given.keys() & wanted.keys())
