"""Options that only some variants of a command have, as `--rounds` belongs to `--method iterative`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fertool.errors import UsageError

Own = Mapping[str, Mapping[str, Any]]
"""By variant, the options (field names) that it has beyond the common ones, and what they are where left out."""


def require_own(options: Any, selector: str, own: Own) -> None:
    """Raise UsageError for an option that is given and that the variant chosen by the field `selector` lacks."""
    chosen = getattr(options, selector)
    for name in dict.fromkeys(name for names in own.values() for name in names):
        value = getattr(options, name)
        if value is not None and name not in own[chosen]:
            having = " or ".join(variant for variant, names in own.items() if name in names)
            raise UsageError(
                f"--{name.replace('_', '-')} {value}: --{selector} {chosen} has none",
                f"leave it out, or add --{selector} {having}",
            )


def own_options(options: Any, selector: str, own: Own) -> dict[str, Any]:
    """Return the options that the chosen variant has beyond the common ones, the defaults for those left out."""
    defaults = own[getattr(options, selector)]
    given = {name: getattr(options, name) for name in defaults}
    return {**defaults, **{name: value for name, value in given.items() if value is not None}}
