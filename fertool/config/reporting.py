"""Options of the report."""

from __future__ import annotations

from dataclasses import dataclass

from fertool.config.evaluation import Split
from fertool.config.option import check, option

MISTAKES = "Mistakes"


@dataclass(frozen=True)
class ReportConfig:
    """What is shown of the images of ``data``; raises UsageError for a value out of its bounds."""

    split: Split = option("val", "Whose images are looked at.", panel=MISTAKES)
    mistakes: int = option(
        12,
        "Images of each kind: wrong only after compression, wrong only before, wrong in both; the "
        "surest first. The page then holds these images.",
        minimum=0,
        maximum=200,
        panel=MISTAKES,
    )
    grad_cam: bool = option(
        False,
        "Show beside each image where the first and the last model look (Grad-CAM); they must be "
        "float .pt files.",
        panel=MISTAKES,
    )

    def __post_init__(self) -> None:
        check(self)
