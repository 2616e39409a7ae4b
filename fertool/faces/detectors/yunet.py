"""YuNet of the OpenCV Zoo (2023mar), by ONNX Runtime and numpy.

Wu, Peng, Yu: YuNet: a tiny millisecond-level face detector, Machine Intelligence Research 20
(2023). Boxes and landmarks are those of OpenCV's FaceDetectorYN to two decimals.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fertool.errors import FertoolError
from fertool.faces.boxes import overlaps
from fertool.faces.constants import LARGEST_OVERLAP, PAD_MULTIPLE, STRIDES
from fertool.faces.detector import COLUMNS, Detector
from fertool.onnx_runtime import open_session, session_options
from fertool.registry import DETECTORS

_FILE = Path(__file__).with_name("yunet.onnx")


@DETECTORS.register("yunet")
class YuNet(Detector):
    """YuNet (2023), 54,000 weights, five landmarks."""

    def __init__(self, threads: int) -> None:
        if not _FILE.is_file():
            raise FertoolError(f"{_FILE}: the face detector is missing", "install fertool again")
        options = session_options(threads)
        # Else a plan of the memory is kept for every size of pictures, without end.
        options.enable_mem_pattern = False
        self._session = open_session(_FILE.read_bytes(), options, str(_FILE))
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._input = self._session.get_inputs()[0].name

    def detect(self, pixels: NDArray[np.uint8], min_score: float) -> NDArray[np.float64]:
        """Return the faces in RGB pixels [H, W, 3], the best first."""
        height, width = pixels.shape[:2]
        padded_height, padded_width = _padded(height), _padded(width)
        # The network takes blue, green, red from 0 to 255, and no sides but such multiples.
        image = np.zeros((1, 3, padded_height, padded_width), np.float32)
        image[0, :, :height, :width] = pixels[:, :, ::-1].transpose(2, 0, 1)

        values = self._session.run(self._outputs, {self._input: image})
        outputs = {name: value[0] for name, value in zip(self._outputs, values, strict=True)}
        found = [_decode(outputs, stride, padded_width, min_score) for stride in STRIDES]
        return _suppress_overlaps(np.concatenate(found))


def _padded(side: int) -> int:
    return -(-side // PAD_MULTIPLE) * PAD_MULTIPLE


def _decode(
    outputs: Mapping[str, NDArray[np.float32]], stride: int, width: int, min_score: float
) -> NDArray[np.float64]:
    """Return the detections [N, 15] at the anchors of one stride, row by row from the top left."""
    is_face = np.clip(outputs[f"cls_{stride}"][:, 0], 0, 1)
    is_object = np.clip(outputs[f"obj_{stride}"][:, 0], 0, 1)
    scores = np.sqrt(is_face * is_object)
    kept = np.flatnonzero(scores >= min_score)

    columns = width // stride
    anchors = np.stack([kept % columns, kept // columns], axis=1)
    boxes = outputs[f"bbox_{stride}"][kept].astype(np.float64)
    centers = (anchors + boxes[:, :2]) * stride
    sizes = np.exp(boxes[:, 2:]) * stride
    offsets = outputs[f"kps_{stride}"][kept].reshape(-1, 5, 2).astype(np.float64)
    landmarks = (offsets + anchors[:, None]) * stride

    detections = np.empty((len(kept), COLUMNS))
    detections[:, :2] = centers - sizes / 2
    detections[:, 2:4] = sizes
    detections[:, 4:14] = landmarks.reshape(-1, 10)
    detections[:, 14] = scores[kept]
    return detections


def _suppress_overlaps(detections: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the detections, the best first, without those that overlap a better one."""
    remaining = detections[np.argsort(-detections[:, 14], kind="stable")]
    kept: list[NDArray[np.float64]] = []
    while len(remaining):
        best, others = remaining[0], remaining[1:]
        kept.append(best)
        remaining = others[overlaps(best, others) < LARGEST_OVERLAP]
    return np.array(kept).reshape(-1, COLUMNS)
