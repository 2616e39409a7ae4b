"""Options of exporting."""

from __future__ import annotations

from dataclasses import dataclass

from fertool.config.image_options import Layout, require_gray_or_color
from fertool.config.option import check, option
from fertool.errors import UsageError
from fertool.registry import FORMATS

DEFAULT_FORMAT = "onnx"
DEFAULT_OPSET = 18
PACKING_OPSET = 18
"""The first operator set with BitwiseAnd, by which packed weights are unpacked."""
MIN_SAVING = 0.3
"""The fraction of a graph's bytes that packing has to save to be the default."""
BUNDLE_IMAGES = 64


@dataclass(frozen=True)
class ExportConfig:
    """How a file for other runtimes is written; raises UsageError for options that clash.

    `packed` decides how integer weights are stored: True in as few bits as they need; False in one
    byte each, in a graph of standard operators and nothing else; None packed where that saves much
    of the file, else as with False. onnxsim has at most `simplify_timeout_s` seconds.
    """

    format: str = option("auto", "auto: by the suffix of the file.", registry=FORMATS)
    # 13 is the first with one scale per channel; torch's exporter of integer weights ends at 20.
    opset: int = option(DEFAULT_OPSET, "ONNX operator set.", minimum=13, maximum=20)
    simplify: bool = option(True, "Run onnxsim on the graph.")
    packed: bool | None = option(
        None,
        "Weights of an INT8 model in as few bits as they need, or one byte each and no operator "
        "but standard QDQ, for other runtimes. Default: packed where that saves "
        f"{100 * MIN_SAVING:.0f} % of the file.",
        off_flag="plain",
    )
    with_preprocessing: bool = option(
        False,
        "Convert and resize inside the graph, as Pillow does: uint8 crops of any size in.",
    )
    crop_layout: Layout | None = option(
        None,
        "With ``with_preprocessing``: axes of the crops, channels last or first. Default: nhwc.",
    )
    crop_channels: int | None = option(
        None,
        "With ``with_preprocessing``: channels of the crops, 1 for gray, 3 for RGB. Default: 3.",
        minimum=1,
        maximum=3,
    )
    with_softmax: bool = option(
        False, "Probabilities out, of logits divided by the temperature that the header has."
    )
    skipped_passes: tuple[str, ...] = ()
    simplify_timeout_s: float = 300.0

    @property
    def suffix(self) -> str:
        """The suffix of a file whose path is not given."""
        # The path's own suffix would decide, but there is no path.
        format = DEFAULT_FORMAT if self.format == "auto" else self.format
        suffix: str = FORMATS.attribute(format, "suffix", "")
        return suffix

    def __post_init__(self) -> None:
        check(self)
        require_gray_or_color(self.crop_channels, "crop_channels")
        for name in ("crop_layout", "crop_channels"):
            value = getattr(self, name)
            if value is not None and not self.with_preprocessing:
                raise UsageError(
                    f"``{name}={value}``: without ``with_preprocessing`` a file takes images as "
                    "the network does",
                    "add ``with_preprocessing``, or leave it out",
                )
        if self.packed and self.opset < PACKING_OPSET:
            raise UsageError(
                f"``packed=True`` with ``opset={self.opset}``: packed weights need operators of "
                f"{PACKING_OPSET} or later",
                f"use ``opset={DEFAULT_OPSET}``, or leave ``packed`` out",
            )


@dataclass(frozen=True)
class BundleConfig:
    """What a bundle for a board holds besides its models; raises UsageError for other values."""

    # A board takes some milliseconds for each, and all of them are copied to it.
    bundle_images: int | None = option(
        None,
        f"With ``bundle``: test images, from the validation split. Default: {BUNDLE_IMAGES}.",
        minimum=1,
        maximum=10_000,
    )

    def __post_init__(self) -> None:
        check(self)

    @property
    def image_count(self) -> int:
        """How many images the test cases have."""
        return BUNDLE_IMAGES if self.bundle_images is None else self.bundle_images
