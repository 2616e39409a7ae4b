"""Names of classes: the eight expressions with their aliases, and any others as they stand."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping

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

MOST_CLASSES = 1000
"""Classes of a data set, as many as ImageNet has; more are names of persons or of files."""
_LONGEST_NAME = 100
"""Characters of the name of a class."""
_SHOWN = 60
"""Characters of a wrong name that an error shows."""
_PART_OF_WORDS = {0x200C: None, 0x200D: None}
"""Unicode's joiners: not printable by themselves, but letters of words in Persian and Hindi."""

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


def name_classes(found: Mapping[str, str]) -> dict[str, str]:
    """Return the class that each name in a data set stands for.

    Where all names are spellings of expressions they become the canonical ones. Otherwise every
    name is a class of its own as it stands, in Unicode's composed form: `calm` beside `excited` is
    not `neutral`. `found` has the file or folder of each name, for messages. Raises FertoolError
    for more names than `MOST_CLASSES`, for one that cannot be printed, and for two that differ in
    case only.
    """
    if len(found) > MOST_CLASSES:
        example, where = next(iter(found.items()))
        raise FertoolError(
            f"{len(found):,} classes, the first is '{example[:_SHOWN]}' ({where}); there may be "
            f"{MOST_CLASSES:,}",
            "are these names of persons or of files? Give one folder or one label for each class",
        )
    expressions = {name: find_expression(name) or "" for name in found}
    if all(expressions.values()):
        return expressions

    classes: dict[str, str] = {}
    spelling_of: dict[str, str] = {}
    for name, where in found.items():
        plain = _plain_name(name, where)
        other = spelling_of.setdefault(plain.casefold(), plain)
        if other != plain:
            raise FertoolError(
                f"{where}: the classes '{other}' and '{plain}' differ in case only",
                "give both the same name, or names that differ in more",
            )
        classes[name] = plain
    return classes


def _plain_name(name: str, where: str) -> str:
    """Return the name of a class without spaces around it, in composed form.

    Raises FertoolError for one that cannot be printed.
    """
    # Composed, since macOS writes the same name of a folder in decomposed form.
    plain = unicodedata.normalize("NFC", name).strip()
    visible = plain.translate(_PART_OF_WORDS)
    is_visible = bool(visible.strip()) and all(_is_visible(letter) for letter in visible)
    if not is_visible or len(plain) > _LONGEST_NAME:
        raise FertoolError(
            f"{where}: {name[:_SHOWN]!a} cannot be the name of a class",
            f"use 1 to {_LONGEST_NAME} printable characters, in UTF-8",
        )
    return plain


def _is_visible(letter: str) -> bool:
    # Python calls spaces other than the plain one, Japanese ones for example, not printable.
    return letter.isprintable() or unicodedata.category(letter) == "Zs"


def class_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return names of classes in the order of `EXPRESSIONS` if all are, else alphabetically."""
    distinct = set(names)
    if distinct <= set(EXPRESSIONS):
        return tuple(name for name in EXPRESSIONS if name in distinct)
    return tuple(sorted(distinct))


def match_classes(names: Iterable[str], targets: Iterable[str]) -> dict[str, str]:
    """Return the target that each name means; names that mean none are missing.

    An equal name is meant, else the only target that is a spelling of the same expression and that
    no name equals.
    """
    names = tuple(names)
    targets = tuple(targets)
    by_expression: dict[str, list[str]] = {}
    for target in targets:
        by_expression.setdefault(find_expression(target) or target, []).append(target)
    matches: dict[str, str] = {}
    for name in names:
        spellings = by_expression.get(find_expression(name) or name, [])
        if name in targets:
            matches[name] = name
        elif len(spellings) == 1 and spellings[0] not in names:
            matches[name] = spellings[0]
    return matches
