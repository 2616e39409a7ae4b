"""What a program without fertool has to know of a model file: how it is fed, and what it gives."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from msgspec import Meta

from fertool.artifact.header import PROFILE_OUTPUT
from fertool.header_json import canonical_json
from fertool.spec import Classes, Spec, Temperature
from fertool.strict_json import Name, Positive

# For annotations alone: `show` reads a header without numpy.
if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGES: Final = "images"
LOGITS: Final = "logits"
CROPS: Final = "crops"
"""The input of files that resize crops themselves."""
PROBABILITIES: Final = "probabilities"
"""The output of files that end in a softmax."""
NCNN_INPUT: Final = "in0"
NCNN_OUTPUT: Final = "out0"
"""Of ncnn's files, as pnnx names them."""
CONTRACT_KEY = "fertool_contract"
"""Of the metadata of an ONNX file with preprocessing or a softmax: its contract as JSON."""
BATCH: Final = "batch"
HEIGHT: Final = "height"
WIDTH: Final = "width"
"""The names of the sizes that are free."""

Size = Positive | Literal["batch", "height", "width"]


@dataclass(frozen=True)
class Contract:
    """The input and the output of a model file.

    `input_shape` has the axes in the order of `layout`; a name stands for a size that is free.
    Pixels are whole numbers from 0 to 255 whatever their type is, and of RGB the red channel comes
    first. `output_shape` is [batch, classes], the classes in this order. Logits become
    probabilities by a softmax, divided by `temperature` before where there is one.
    """

    input_name: Name
    input_dtype: Literal["uint8", "float32"]
    input_shape: Annotated[tuple[Size, ...], Meta(min_length=3, max_length=4)]
    layout: Literal["NCHW", "NHWC", "CHW"]
    pixel_range: tuple[int, int]
    color_order: Literal["gray", "RGB", "as in training"]
    output_name: Name
    output_dtype: Literal["float32"]
    output_shape: tuple[Size, Positive]
    output: Literal["logits", "probabilities"]
    temperature: Temperature | None
    other_outputs: tuple[Name, ...]
    classes: Classes

    @classmethod
    def of(cls, spec: Spec) -> Contract:
        """Return the contract of a file that `export` has written with this header."""
        channels = spec.input.channels
        size = spec.input.size
        input_name, layout = IMAGES, "NCHW"
        sizes: dict[str, Any] = {"N": BATCH, "C": channels, "H": size, "W": size}
        if spec.preprocessing is not None:
            channels = spec.preprocessing.channels
            input_name, layout = CROPS, spec.preprocessing.layout.upper()
            sizes = {"N": BATCH, "C": channels, "H": HEIGHT, "W": WIDTH}
        has_softmax = spec.output == PROBABILITIES
        return cls(
            input_name=input_name,
            input_dtype="uint8",
            input_shape=tuple(sizes[axis] for axis in layout),
            layout=layout,  # type: ignore[arg-type]
            pixel_range=(0, 255),
            color_order=_COLOR_ORDERS.get(channels, "as in training"),
            output_name=PROBABILITIES if has_softmax else LOGITS,
            output_dtype="float32",
            output_shape=(BATCH, len(spec.classes)),
            output=PROBABILITIES if has_softmax else LOGITS,
            # Inside of the graph where that ends in a softmax.
            temperature=None if has_softmax else spec.temperature,
            other_outputs=(PROFILE_OUTPUT,) if spec.gates else (),
            classes=spec.classes,
        )

    @property
    def channels(self) -> int:
        """The channels of the images that the file takes."""
        return int(self.input_shape[self.layout.index("C")])

    @property
    def any_size(self) -> bool:
        """Whether height and width of the images are free."""
        return HEIGHT in self.input_shape

    def with_batch(self, count: int) -> Contract:
        """Return the contract of a file that takes so many images a pass, and no other number."""
        return replace(
            self,
            input_shape=(count, *self.input_shape[1:]),
            output_shape=(count, self.output_shape[1]),
        )

    def arrange(self, images: NDArray[Any]) -> NDArray[Any]:
        """Return images [N, C, H, W] in the order of axes that the file takes."""
        import numpy as np

        if self.layout == "NHWC":
            return np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        return images

    def to_logits(self, outputs: NDArray[Any], temperature: float | None) -> NDArray[Any]:
        """Return the outputs [N, K] of a file as logits, up to a constant for each image.

        `temperature` is what the file has divided its logits by.
        """
        import numpy as np

        if self.output == LOGITS:
            return outputs
        # Probabilities that have become 0 get the logits of the smallest ones.
        least = np.finfo(np.float32).tiny
        logits: NDArray[Any] = np.log(np.maximum(outputs, least)) * (temperature or 1.0)
        return logits

    def to_json(self) -> str:
        """Return the canonical JSON text."""
        return canonical_json(asdict(self))


_COLOR_ORDERS: dict[int, Any] = {1: "gray", 3: "RGB"}
