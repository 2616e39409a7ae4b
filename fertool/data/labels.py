"""Expression names: the canonical set, other spellings, and the index order of each source."""

from __future__ import annotations

from fertool.errors import FertoolError

EXPRESSIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral", "contempt")
"""The canonical names in the order of fer2013.csv, contempt last."""

BASIC = EXPRESSIONS[:7]

FER2013_ORDER = BASIC
FERPLUS_ORDER = ("neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", "contempt")
"""The vote columns of FER+, before `unknown` and `NF` (not a face)."""
RAFDB_ORDER = ("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral")
"""RAF-DB counts from 1."""
AFFECTNET_ORDER = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry", "contempt")

# Spellings in releases of data sets and in the names of folders.
_ALIASES = {
    "anger": "angry",
    "disgusted": "disgust",
    "disgusting": "disgust",
    "fearful": "fear",
    "afraid": "fear",
    "scared": "fear",
    "happiness": "happy",
    "joy": "happy",
    "joyful": "happy",
    "smile": "happy",
    "sadness": "sad",
    "surprised": "surprise",
    "neutrality": "neutral",
    "normal": "neutral",
    "calm": "neutral",
    "contemptuous": "contempt",
}


def find_expression(name: str) -> str | None:
    """Return the canonical name for any known spelling in any case; None for an unknown one."""
    plain = name.strip().lower()
    if plain in EXPRESSIONS:
        return plain
    return _ALIASES.get(plain)


def canonical_expression(name: str, where: str) -> str:
    """Return the canonical name for any known spelling.

    Raises FertoolError for an unknown one; `where` is the file or folder that has the name.
    """
    found = find_expression(name)
    if found is None:
        raise FertoolError(
            f"{where}: '{name}' is not an expression that fertool knows",
            f"rename it to one of: {', '.join(EXPRESSIONS)}",
        )
    return found


def in_canonical_order(names: set[str] | frozenset[str]) -> tuple[str, ...]:
    """Return a set of canonical names in the order of `EXPRESSIONS`."""
    return tuple(name for name in EXPRESSIONS if name in names)
