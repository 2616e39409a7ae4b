"""Names of splits: what a folder, or a word in a list, stands for."""

from __future__ import annotations

import re

_SPLIT_OF_NAME = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "dev": "val",
    "devel": "val",
    "development": "val",
    "eval": "val",
    "evaluation": "val",
    "publictest": "val",
    "test": "test",
    "testing": "test",
    "privatetest": "test",
}
_ENDINGS = ("set", "data", "images", "folder", "split")
_DATASET_AND_YEAR = re.compile(
    r"(fer|ferplus|fer\+|rafdb|affectnet|ck|ck\+|ckplus|expw|data|dataset)?"
    r"((19|20)[0-9]{2})?(plus|\+)?"
)
"""What precedes or follows a split in the names of folders: a data set, a year."""


def split_of(name: str) -> str | None:
    """Return the split that a name stands for; None for no split.

    Case and separators do not matter.
    """
    plain = re.sub(r"[-_. ]+", "", name).lower()
    for ending in ("", *_ENDINGS):
        split = _split_of_word(plain.removesuffix(ending))
        if split is not None:
            return split
    return None


def _split_of_word(word: str) -> str | None:
    if word in _SPLIT_OF_NAME:
        return _SPLIT_OF_NAME[word]
    for usual, split in _SPLIT_OF_NAME.items():
        before, found, after = word.partition(usual)
        # Nothing else may stand beside it: "contest" and "evalentine" name no split.
        beside_is_known = _DATASET_AND_YEAR.fullmatch(before) and _DATASET_AND_YEAR.fullmatch(after)
        if found and beside_is_known:
            return split
    return None
