"""The augmentation that a recording of teachers fixes for the students of its views."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fertool.config.option import values_of, with_values
from fertool.config.training import AugmentConfig
from fertool.errors import UsageError
from fertool.reporter import Reporter

if TYPE_CHECKING:
    from fertool.distillation.cached_teachers import Views

FIXED_BY_VIEWS = (
    "flip",
    "rotation",
    "translate",
    "scale",
    "aspect",
    "brightness",
    "contrast",
    "erasing",
)
"""The options of augmentation that a recording with views fixes."""
RECORD_ANEW = "leave it out, or record the teachers anew with ``save_logits``"


def with_views(
    views: Views,
    given: AugmentConfig,
    settled: AugmentConfig,
    path: Path,
    reporter: Reporter,
) -> AugmentConfig:
    """Return the augmentation of a recording's views; raises UsageError for another given one."""
    given_values = values_of(given)
    defaults = values_of(AugmentConfig())
    fixed: dict[str, Any] = {}
    changes: list[str] = []
    for name in FIXED_BY_VIEWS:
        value = getattr(views.config, name)
        # None is 0 or the default of a strength: neither says anything else than the other.
        given_value = given_values[name] or 0
        # An option that is at its default was not given, and contradicts nothing.
        if given_value not in (value or 0, defaults[name] or 0):
            raise UsageError(
                f"``{name}={given_value:g}``: {path} was recorded {_with_option(name, value)}",
                RECORD_ANEW,
            )
        fixed[name] = value
        if (value or 0) != given_value:
            changes.append(f"``{name}={value or 0:g}``")
    if changes:
        reporter.note(f"{path}: images are changed as they were recorded, with {' '.join(changes)}")
    return with_values(settled, fixed)


def _with_option(name: str, value: float | None) -> str:
    """Return how teachers were recorded; None stands for an option that was not given."""
    return f"without ``{name}``" if value is None else f"with ``{name}={value:g}``"
