"""Arrays that are expensive to make, in the user's cache folder by a digest of their source."""

from __future__ import annotations

import errno
import math
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fertool.artifact.atomic import replacing
from fertool.data.storage import Chunks, assemble, cache_folder, map_array

Arrays = Mapping[str, NDArray[Any]]

Maker = Callable[[], Mapping[str, "NDArray[Any] | Chunks"]]

_LOCAL_HEADER = struct.Struct("<26x2H")
"""The end of a member's local header in a zip: lengths of the name and the extra field after it."""


def load_or_make(
    key: str,
    make: Maker,
    on_note: Callable[[str], None],
    valid: Callable[[Arrays], bool] = lambda arrays: True,
) -> Arrays:
    """Return the arrays cached under `key`, or make and cache them.

    `Chunks` are written chunk by chunk. The file is an uncompressed .npz. Arrays of uint8 are
    mapped from it and are read-only; others are read into memory. A file that is damaged (by the
    checksums of the zip), or whose arrays are not `valid`, is made again. Where the folder cannot
    be written the arrays stay in memory, and `on_note` receives the reason.
    """
    try:
        path = cache_folder() / f"{key}.npz"
    except OSError as error:
        on_note(f"the data is not cached: {error.strerror}")
        return _in_memory(make())

    # A damaged cache is no error: the source is still there, and making the arrays anew costs time
    # alone.
    stored = _load(path, valid)
    if stored is not None:
        return stored

    made = make()
    try:
        # An atomic write replaces whatever has the name, a device or a link included.
        _require_replaceable(path)
        with replacing(path) as file:
            _save(file, made)
        # Read back, so that the caller gets mapped arrays and the made ones can be freed.
        stored = _load(path, valid)
    except OSError as error:
        on_note(f"the data is not cached: {path.parent}: cannot write ({error.strerror})")
    return _in_memory(made) if stored is None else stored


def has_array(
    arrays: Arrays, name: str, dtype: type[np.generic], shape: tuple[int | None, ...]
) -> bool:
    """Return whether there is an array of this name, type and shape; None allows any length."""
    array = arrays.get(name)
    if array is None or array.dtype != dtype or array.ndim != len(shape):
        return False
    return all(wanted in (None, length) for wanted, length in zip(shape, array.shape, strict=True))


def _in_memory(made: Mapping[str, NDArray[Any] | Chunks]) -> Arrays:
    arrays: dict[str, NDArray[Any]] = {}
    for name, array in made.items():
        if isinstance(array, Chunks):
            array = assemble(array)
        arrays[name] = array
    return arrays


def _require_replaceable(path: Path) -> None:
    """Raise OSError where the path is not a regular file: a folder, a device, a link to one."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EEXIST, f"{path.name} is not a regular file")


def _save(file: BinaryIO, arrays: Mapping[str, NDArray[Any] | Chunks]) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            # Written by hand instead of numpy.savez, which needs each array as a whole.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                _write_array(member, array)


def _write_array(member: Any, array: NDArray[Any] | Chunks) -> None:
    if not isinstance(array, Chunks):
        np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
        return
    # The header first, for which the shape of the whole must be known.
    header = {"descr": "|u1", "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(member, header)
    for part in array.parts():
        member.write(np.ascontiguousarray(part).data)


def _load(path: Path, valid: Callable[[Arrays], bool]) -> Arrays | None:
    """Return the arrays of a cached file; None for one that is missing, damaged or not `valid`."""
    if not path.is_file():
        return None
    try:
        arrays = _read_arrays(path)
    # zipfile and NumPy's header parser fail on damaged bytes with errors of a dozen types.
    except Exception:
        return None
    if arrays is None or not valid(arrays):
        return None
    return arrays


def _read_arrays(path: Path) -> Arrays | None:
    """Return the arrays of a file, None for a wrong checksum; raises errors of any type."""
    with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
        _require_stored(archive)
        # Plain reads: a checksum over the mapping would count the file as this process's memory.
        if archive.testzip() is not None:
            return None
        arrays: dict[str, NDArray[Any]] = {}
        for info in archive.infolist():
            arrays[info.filename.removesuffix(".npy")] = _read_array(file, archive, info)
    return arrays


def _require_stored(archive: zipfile.ZipFile) -> None:
    """Raise ValueError for compressed members, which could be far larger than the file."""
    for info in archive.infolist():
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise ValueError(f"{info.filename}: compressed")


def _read_array(file: BinaryIO, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    """Return the array of a member: mapped where it is uint8, else read into memory."""
    with archive.open(info) as member:
        np.lib.format.read_magic(member)
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)
        header_size = member.tell()
        # Checked before anything is allocated or mapped: a header can declare any shape.
        if dtype.itemsize * math.prod(shape) != info.file_size - header_size:
            raise ValueError(f"{info.filename}: declares another size than it has")
        # Only images are large; other arrays take little memory.
        if dtype != np.uint8:
            member.seek(0)
            array: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
            return array

    # The central directory does not tell where the content starts: the extra field of the local
    # header may have another length than its own.
    file.seek(info.header_offset)
    name_size, extra_size = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    member_start = info.header_offset + _LOCAL_HEADER.size + name_size + extra_size
    return map_array(file, offset=member_start + header_size, shape=shape)
