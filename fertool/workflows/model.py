"""A model in memory: a network with all that its file says of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fertool.artifact.input_files import require_file
from fertool.errors import FertoolError
from fertool.results import ModelSummary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from fertool.graph.ir import Graph
    from fertool.spec import InputSpec, Metrics, ProvenanceStep, Spec


@dataclass(frozen=True, eq=False)
class Model:
    """A network and the header of its file; `path` is the file, where there is one.

    The workflows leave a model that they are given as it is, and return new ones.
    """

    spec: Spec
    module: nn.Module
    path: Path | None = None

    @property
    def name(self) -> str:
        """What messages call the model: its file, or its architecture."""
        return str(self.path) if self.path else self.spec.arch

    @property
    def files(self) -> list[Path]:
        """The file, in a list that is empty where there is none."""
        if self.path is None:
            return []
        return [self.path]

    @property
    def graph(self) -> Graph:
        """The network as a graph of known operators; of a dynamic one the widest profile."""
        return self.spec.graph

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the outputs, in order."""
        return self.spec.classes

    @property
    def input(self) -> InputSpec:
        """The shape and the normalization of the images."""
        return self.spec.input

    @property
    def metrics(self) -> Metrics | None:
        """The accuracy on the validation images, where it was measured."""
        return self.spec.metrics

    @property
    def lineage(self) -> tuple[ProvenanceStep, ...]:
        """The steps that made the model, with their options and the digests of what they read."""
        return self.spec.provenance

    @cached_property
    def size_bytes(self) -> int:
        """The size of the model's file, written or not."""
        if self.path is not None:
            return self.path.stat().st_size
        return len(self._packed()[1])

    @property
    def summary(self) -> ModelSummary:
        """What a command prints of the model: the header of its file, with the size."""
        return ModelSummary.of(self.path, self.size_bytes, self.spec)

    def save(self, path: str | Path) -> Model:
        """Write the model file, atomically; returns the model of that file.

        Raises FertoolError where it cannot be written.
        """
        from fertool.artifact.atomic import write_atomic

        spec, content = self._packed()
        write_atomic(Path(path), content)
        return replace(self, spec=spec, path=Path(path))

    def finished(self, output: Path | None) -> Model:
        """Return the model as its file has it, written to `output` if there is one."""
        if output is None:
            return self.sealed()
        return self.save(output)

    def sealed(self) -> Model:
        """Return the model with the digest, parameters and MACs that its file would have."""
        return replace(self, spec=self._packed()[0])

    def predict(self, images: Any) -> NDArray[np.float32]:
        """Return the probabilities float32 [N, K] of the classes.

        `images` are uint8 [N, H, W] (gray) or [N, H, W, 3] (RGB) of any size: they are converted to
        the channels of the model and resized to its side. Raises FertoolError for other arrays.
        """
        import numpy as np
        import torch

        from fertool.data.pixels import fit_images, to_input
        from fertool.inference import eval_mode
        from fertool.spec import affordable_batch

        channels_first = _channels_first(np.asarray(images))
        fitted = fit_images(channels_first, self.input.size, self.input.channels)
        parts = []
        with torch.no_grad(), eval_mode(self.module):
            for batch in torch.split(fitted, affordable_batch(256, self.input.size)):
                logits = self.module(to_input(batch, self.input)).float()
                if self.spec.temperature is not None:
                    logits = logits / self.spec.temperature
                parts.append(logits.softmax(1))
        if not parts:
            return np.empty((0, len(self.classes)), np.float32)
        return torch.cat(parts).numpy()

    def _packed(self) -> tuple[Spec, bytes]:
        from fertool.models import pack_model

        return pack_model(self.spec, self.module)


def load(path: str | Path) -> Model:
    """Open a model file, `.pt`; nothing in the file is executed.

    Raises FertoolError for a missing, foreign, damaged or too new file.
    """
    path = Path(path)
    # Before PyTorch is imported, which takes seconds.
    require_file(path)
    from fertool.models import load_model

    spec, module = load_model(path)
    return Model(spec, module, path)


def _channels_first(images: NDArray[Any]) -> NDArray[np.uint8]:
    """Return images uint8 [N, H, W] or [N, H, W, 3] as [N, C, H, W]."""
    if images.dtype != "uint8":
        raise FertoolError(
            f"images of type {images.dtype}: the pixels must be uint8, 0 to 255",
            "convert them, for example with (255 * images).astype('uint8')",
        )
    # Gray images have no axis of channels, as OpenCV and Pillow give them.
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[3] in (1, 3):
        return images.transpose(0, 3, 1, 2)
    raise FertoolError(
        f"images of shape {images.shape}: expected [N, H, W] or [N, H, W, 3]",
        "give one image as images[None]",
    )
