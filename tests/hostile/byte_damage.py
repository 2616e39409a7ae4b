"""Damaged bytes and zip containers, of any format."""

import io
import random
import zipfile
from collections.abc import Iterator

BOMB = b" " * (256 << 20)


def byte_damages(content: bytes, draw: random.Random) -> Iterator[tuple[str, bytes]]:
    """Yield (what was done, bytes) for ever."""
    while True:
        place = draw.randrange(len(content))
        kind = draw.randrange(7)
        if kind == 0:
            yield f"cut at byte {place}", content[:place]
        elif kind == 1:
            mask = 1 << draw.randrange(8)
            changed = bytes([content[place] ^ mask])
            yield (
                f"bit {mask} of byte {place} flipped",
                content[:place] + changed + content[place + 1 :],
            )
        elif kind == 2:
            length = draw.randrange(1, 4096)
            rest = content[place + length :]
            yield f"{length} zeros at byte {place}", content[:place] + bytes(length) + rest
        elif kind == 3:
            length = draw.randrange(1, 4096)
            rest = content[place + length :]
            yield (
                f"{length} random bytes at byte {place}",
                content[:place] + draw.randbytes(length) + rest,
            )
        elif kind == 4:
            yield "garbage appended", content + draw.randbytes(1000)
        elif kind == 5:
            yield "garbage in front", draw.randbytes(1000) + content
        else:
            yield "a part twice", content[:place] + content[place // 2 :]


def zip_damages(content: bytes, draw: random.Random) -> Iterator[tuple[str, bytes]]:
    """Yield (what was done, bytes) for ever; the members themselves stay well-formed."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    while True:
        chosen = draw.randrange(len(members))
        name, inside = members[chosen]
        others = members[:chosen] + members[chosen + 1 :]
        kind = draw.randrange(9)
        if kind == 0:
            yield f"{name} removed", packed(others)
        elif kind == 1:
            yield f"{name} empty", packed([*others, (name, b"")])
        elif kind == 2:
            yield "all members deflated", packed(members, zipfile.ZIP_DEFLATED)
        elif kind == 3:
            shuffled = draw.sample(members, len(members))
            yield "members in another order", packed(shuffled)
        elif kind == 4:
            yield f"{name} unpacks to 256 MB", packed([*others, (name, BOMB)], zipfile.ZIP_DEFLATED)
        elif kind == 5:
            yield f"{name} twice", packed([*members, (name, inside[: len(inside) // 2])])
        elif kind == 6:
            yield f"{name} renamed", packed([*others, ("../" + name, inside)])
        elif kind == 7:
            damaged = bytearray(inside)
            if damaged:
                damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
            yield f"a bit of {name} flipped", packed([*others, (name, bytes(damaged))])
        else:
            yield "sizes forged", forged_sizes(packed(members), draw)


def packed(members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip file of these members, in this order."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression, compresslevel=1) as archive:
        for name, inside in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = compression
            archive.writestr(info, inside)
    return buffer.getvalue()


def forged_sizes(content: bytes, draw: random.Random) -> bytes:
    """Return a zip file whose directory declares 4 GB for one of its members."""
    entries = []
    at = content.find(b"PK\x01\x02")
    while at >= 0:
        entries.append(at)
        at = content.find(b"PK\x01\x02", at + 4)
    entry = draw.choice(entries)
    return content[: entry + 20] + b"\xf0\xff\xff\xff\xf0\xff\xff\xff" + content[entry + 28 :]
