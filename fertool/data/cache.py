"""Arrays that took time to make, kept under the user's cache folder by the digest of what they were made from."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fertool.artifact.atomic import replacing
from fertool.data.storage import Chunks, assemble, cache_folder, mapped

Arrays = Mapping[str, NDArray[Any]]

_DAMAGE = (OSError, ValueError, KeyError, EOFError, NotImplementedError, struct.error, zipfile.BadZipFile, zlib.error)
_LOCAL_HEADER = struct.Struct("<26x2H")
"""What a zip file has before each member ends with the lengths of its name and of the extra field that follow."""


def cached(key: str, make: Callable[[], Mapping[str, NDArray[Any] | Chunks]], on_note: Callable[[str], None]) -> Arrays:
    """Return the arrays stored under `key`, or make and store them; `Chunks` never are in memory as a whole.

    The file is an uncompressed .npz. Arrays of uint8 are mapped from it, so nothing may write into them; others are
    read. A damaged file (the zip's checksums tell) is made again. A folder that cannot be written costs a note, and
    memory for all arrays.
    """
    path = cache_folder() / f"{key}.npz"
    stored = _load(path)
    if stored is not None:
        return stored
    made = make()
    try:
        with replacing(path) as file:
            _save(file, made)
        stored = _load(path)
    except OSError as error:
        on_note(f"the data is not cached: {path.parent}: cannot write ({error.strerror})")
    if stored is not None:
        return stored
    return {name: assemble(array) if isinstance(array, Chunks) else array for name, array in made.items()}


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
                    np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)


def _load(path: Path) -> Arrays | None:
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            # Plain reading: a checksum over the mapping would make the whole file count as this process's memory.
            if archive.testzip() is not None:
                return None
            return {info.filename.removesuffix(".npy"): _read(file, archive, info) for info in archive.infolist()}
    except _DAMAGE:
        return None


def _read(file: BinaryIO, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(info) as member:
        np.lib.format.read_magic(member)
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)
        header = member.tell()
        if dtype != np.uint8:
            member.seek(0)
            array: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
            return array
    file.seek(info.header_offset)
    name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    return mapped(file, info.header_offset + _LOCAL_HEADER.size + name + extra + header, shape)
