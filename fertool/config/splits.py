"""Nothing is chosen on test images: the refusal of options that would do so."""

from __future__ import annotations

import re

from fertool.errors import UsageError

_CHOOSES = {
    "train-teacher": "chooses epochs, seeds and grids on the validation split",
    "distill": "chooses epochs, seeds and grids on the validation split",
    "prune": "scores channels on training images and chooses epochs on the validation split",
    "hessian-sensitivity": "measures on training images, since bits are chosen by it",
    "quantize": "calibrates on training images and chooses on the validation split",
    "cascade": "calibrates its threshold on the validation split",
}
_ASKS = re.compile(r"(.*_)?split|test(_.*)?")


def refused_split(command: str | None, option: str | None) -> UsageError | None:
    """Return the error for an option that would name the split of a command that chooses something.

    None for any other option.
    """
    name = (option or "").strip("-").replace("-", "_")
    if command not in _CHOOSES or not _ASKS.fullmatch(name):
        return None
    return UsageError(
        f"``{name}``: {command} {_CHOOSES[command]}, never on test images",
        "what is chosen on the test images is no longer tested by them; "
        "the final figure: eval MODEL ``split=test``",
    )
