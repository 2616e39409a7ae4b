"""Arrays that took time to make, kept under the user's cache folder by the digest of what they were made from."""

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
from fertool.data.storage import Chunks, assemble, cache_folder, mapped

Arrays = Mapping[str, NDArray[Any]]

Maker = Callable[[], Mapping[str, "NDArray[Any] | Chunks"]]

_LOCAL_HEADER = struct.Struct("<26x2H")
"""What a zip file has before each member ends with the lengths of its name and of the extra field that follow."""


def cached(
    key: str,
    make: Maker,
    on_note: Callable[[str], None],
    valid: Callable[[Arrays], bool] = lambda arrays: True,
) -> Arrays:
    """Return the arrays stored under `key`, or make and store them; `Chunks` never are in memory as a whole.

    The file is an uncompressed .npz. Arrays of uint8 are mapped from it, so nothing may write into them; others are
    read. A file that is damaged (the zip's checksums tell), or holds arrays that are not `valid`, is made again. A
    folder that cannot be written costs a note, and memory for all arrays.
    """
    try:
        path = cache_folder() / f"{key}.npz"
    except OSError as error:
        on_note(f"the data is not cached: {error.strerror}")
        return _in_memory(make())
    stored = _load(path, valid)
    if stored is not None:
        return stored
    made = make()
    try:
        _require_replaceable(path)
        with replacing(path) as file:
            _save(file, made)
        stored = _load(path, valid)
    except OSError as error:
        on_note(f"the data is not cached: {path.parent}: cannot write ({error.strerror})")
    return _in_memory(made) if stored is None else stored


def holds(
    arrays: Arrays, name: str, dtype: type[np.generic], shape: tuple[int | None, ...]
) -> bool:
    """Say whether there is an array of this name, type and shape; None stands for any length."""
    array = arrays.get(name)
    if array is None or array.dtype != dtype or array.ndim != len(shape):
        return False
    return all(wanted in (None, length) for wanted, length in zip(shape, array.shape, strict=True))


def _in_memory(made: Mapping[str, NDArray[Any] | Chunks]) -> Arrays:
    return {
        name: assemble(array) if isinstance(array, Chunks) else array
        for name, array in made.items()
    }


def _require_replaceable(path: Path) -> None:
    """Raise OSError where something lies that is not a file of the cache: a folder, a device, a link to one."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EEXIST, f"{path.name} is not a regular file")


def _save(file: BinaryIO, arrays: Mapping[str, NDArray[Any] | Chunks]) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                if isinstance(array, Chunks):
                    header = {"descr": "|u1", "fortran_order": False, "shape": array.shape}
                    np.lib.format.write_array_header_1_0(member, header)
                    for part in array.parts():
                        member.write(np.ascontiguousarray(part).data)
                else:
                    np.lib.format.write_array(
                        member, np.ascontiguousarray(array), allow_pickle=False
                    )


def _load(path: Path, valid: Callable[[Arrays], bool]) -> Arrays | None:
    """Return the arrays of a file of the cache; None for one that is missing, damaged, forged or not `valid`."""
    if not path.is_file():
        return None
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            _require_stored(archive)
            # Plain reading: a checksum over the mapping would make the whole file count as this process's memory.
            if archive.testzip() is not None:
                return None
            arrays = {
                info.filename.removesuffix(".npy"): _read(file, archive, info)
                for info in archive.infolist()
            }
    # Damaged bytes lead zipfile and NumPy's header parser to errors of a dozen types; all mean: make it again.
    except Exception:
        return None
    return arrays if valid(arrays) else None


def _require_stored(archive: zipfile.ZipFile) -> None:
    """Raise ValueError for members that were compressed: they could be far larger than the file."""
    for info in archive.infolist():
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise ValueError(f"{info.filename}: compressed")


def _read(file: BinaryIO, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(info) as member:
        np.lib.format.read_magic(member)
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)
        header = member.tell()
        if dtype.itemsize * math.prod(shape) != info.file_size - header:
            raise ValueError(f"{info.filename}: declares another size than it has")
        if dtype != np.uint8:
            member.seek(0)
            array: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
            return array
    file.seek(info.header_offset)
    name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    return mapped(file, info.header_offset + _LOCAL_HEADER.size + name + extra + header, shape)
