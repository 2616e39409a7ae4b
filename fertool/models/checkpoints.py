"""Checkpoints of other programs: the tensors by name, out of the files and wrappings that people save them in."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fertool.artifact import store
from fertool.artifact.header import MEMBER
from fertool.artifact.input_files import require_file
from fertool.artifact.safetensors import is_safetensors, read_safetensors
from fertool.errors import FertoolError
from fertool.strict_json import WrongContentError, listed

_USUAL_KEYS = ("state_dict", "model")
_KEYS = (
    *_USUAL_KEYS,
    *(
        "model_state_dict",
        "model_state",
        "net",
        "network",
        "weights",
        "params",
        "module",
        "student",
    ),
    *("ema", "model_ema", "ema_state_dict", "state_dict_ema", "params_ema"),
)
"""Under which checkpoints keep a state dict, the most usual first, running means last."""
_MOST_WRAPPED = 4
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
_OTHER_MEMBERS = {
    ".npy": "arrays of NumPy",
    "/constants.pkl": "a TorchScript program",
    ".weights.h5": "a Keras model",
}
_OTHER_BEGINNINGS = {
    b"\x89HDF\r\n": "an HDF5 file, as Keras writes",
    b"TFL3": "a TensorFlow Lite model",
}
_BEGINNING = 8
_ASKED = re.compile(r"GLOBAL ([\w.]+)")


def read_weights(path: Path, wanted: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors of a checkpoint for a network with the tensors `wanted`, and what was unwrapped in words.

    Takes state dicts as torch.save writes them, plain or in the usual wrappings, safetensors files and fertool's own.
    Raises FertoolError for other files, those that would run code, and tensors that are not plain numbers in memory.
    """
    require_file(path)
    if is_model_file(path):
        artifact = store.load(path)
        if artifact.spec.quant is not None:
            raise FertoolError(
                f"{path}: a quantised model has no float weights", "give the model it was made from"
            )
        artifact.spec.require_static("where a training starts")
        return artifact.state_dict, []
    content = _content(path)
    state, notes = _unwrapped(content, path)
    try:
        store.require_dense(state)
    except WrongContentError as error:
        raise FertoolError(
            f"{path}: {error}", "save plain tensors: torch.save(model.state_dict(), path)"
        ) from None
    state, more = _without_prefixes(state, wanted)
    return state, notes + more


def _content(path: Path) -> Any:
    kind = _other_kind(path)
    if kind is not None:
        raise FertoolError(
            f"{path}: {kind}, not a state dict of PyTorch or a safetensors file",
            "load it with the library that wrote it, and save its weights: torch.save(model.state_dict(), path)",
        )
    try:
        return read_safetensors(path) if is_safetensors(path) else store.load_plain(path)
    except WrongContentError as error:
        raise FertoolError(f"{path}: damaged, {error}", "make or copy the file again") from None
    except pickle.UnpicklingError as error:
        asked = _ASKED.search(str(error))
        why = f"it asks for {asked[1]}, and so" if asked else "it"
        raise FertoolError(
            f"{path}: not a plain state dict: {why} would have to run code, or it is damaged; nothing was run",
            "where the model's own code is at hand, save it again with torch.save(model.state_dict(), path)",
        ) from None
    except Exception:  # On damaged files torch's reader fails with whatever it stumbles over: struct.error, assertions.
        raise FertoolError(
            f"{path}: not a state dict, or a truncated one", "copy the file again"
        ) from None


def is_model_file(path: Path) -> bool:
    """Return whether a file is a zip with fertool's header."""
    return MEMBER in _members(path)


def _other_kind(path: Path) -> str | None:
    """Return in words what a file of weights is that people have beside state dicts; None where it may be one."""
    members = _members(path)
    for ending, kind in _OTHER_MEMBERS.items():
        if any(name.endswith(ending) for name in members):
            return kind
    with open(path, "rb") as file:
        beginning = file.read(_BEGINNING)
    for content, kind in _OTHER_BEGINNINGS.items():
        if content in beginning:
            return kind
    return "an ONNX file" if path.suffix.lower() == ".onnx" else None


def _members(path: Path) -> list[str]:
    """Return the names in a zip; none for other files."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return []


def _unwrapped(content: Any, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Return the state dict inside a checkpoint, and under which keys it was, unless these are the usual ones."""
    keys: list[str] = []
    for _ in range(_MOST_WRAPPED):
        key = next((key for key in _KEYS if _holds_map(content, key)), None)
        if key is None:
            break
        keys.append(key)
        content = content[key]
    others = (
        [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
        if _is_map(content)
        else []
    )
    if not _is_map(content) or others:
        holds = listed([name[:80] for name in others]) or type(content).__name__
        raise FertoolError(
            f"{path}: not a state dict: it holds {holds}, not named tensors alone",
            f"a state dict, also under one of the keys {', '.join(_KEYS)}",
        )
    unusual = set(keys) - set(_USUAL_KEYS)
    notes = [f"taken from '{'.'.join(keys)}' in the file"] if unusual else []
    return {str(name): value for name, value in content.items()}, notes


def _is_map(value: Any) -> bool:
    return isinstance(value, Mapping)


def _holds_map(content: Any, key: str) -> bool:
    return _is_map(content) and _is_map(content.get(key))


def _without_prefixes(
    given: dict[str, Tensor], wanted: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors without what wrappers put before their names, and a note of what was removed.

    A prefix of all names goes unless the network has it itself; one of most names, if more then fit the network.
    """
    removed: list[str] = []
    while prefix := _removable(given, wanted):
        given = _renamed(given, prefix)
        removed.append(prefix)
    if not removed or removed == [_PARALLEL]:
        return given, []
    return given, [
        f"prefix {''.join(removed)} removed: {_matches(given, wanted)} of {len(given)} tensors are the network's"
    ]


def _removable(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    before = _matches(given, wanted)
    for prefix in _PREFIXES:
        count = sum(name.startswith(prefix) for name in given)
        if 2 * count <= len(given):
            continue
        renamed = _renamed(given, prefix)
        gained = _matches(renamed, wanted) - before
        if len(renamed) == len(given) and (gained > 0 or (gained == 0 and count == len(given))):
            return prefix
    return None


def _renamed(given: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in given.items()}


def _matches(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> int:
    return len(given.keys() & wanted.keys())
