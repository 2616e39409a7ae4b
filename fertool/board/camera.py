"""Label the faces before a camera: `python camera.py int8.onnx`; Ctrl-C ends.

Frames come from picamera2, OpenCV or PyAV (V4L), whichever is installed. With OpenCV (4.8 or later)
faces are found and cut as `fertool predict` does: the five landmarks of YuNet are brought to their
places in the training images. Without it the square in the middle of the frame is the face.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from machine import onnxruntime


def import_optional(name: str) -> Any:
    """Return a module, None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


cv2 = import_optional("cv2")
HERE = Path(__file__).resolve().parent
LUMA = np.array([0.299, 0.587, 0.114])
"""Of red, green and blue, as Pillow makes gray of them."""
MIN_SCORE = 0.7
"""Of YuNet, from 0 to 1: faces below it are not shown."""
CROP_SCALE = 2
"""Faces for a file that resizes them are cut so many times as large as its network sees them."""
LEAST_AGREEMENT = 0.2
"""Of landmarks with their places: below this fraction of the usual scale they are not turned."""
MOST_SAMPLES = 16
"""For a pixel of the crop, across and down: bounds the memory for faces of many pixels."""


def frames(source: str) -> Iterator[Any]:
    """Yield RGB pixels [H, W, 3] of a camera by its number, or of a video file."""
    is_camera = source.isdigit()
    picamera2 = import_optional("picamera2")
    if is_camera and picamera2 is not None:
        yield from picamera_frames(picamera2, int(source))
    elif cv2 is not None:
        yield from opencv_frames(int(source) if is_camera else source)
    else:
        yield from av_frames(source, is_camera)


def picamera_frames(picamera2: Any, number: int) -> Iterator[Any]:
    """Yield the frames of a camera of the Raspberry Pi, without end."""
    camera = picamera2.Picamera2(number)
    # Named the other way round: this is red, green, blue in memory.
    camera.configure(camera.create_video_configuration({"format": "BGR888"}))
    camera.start()
    while True:
        yield camera.capture_array()


def opencv_frames(source: Any) -> Iterator[Any]:
    """Yield the frames of a camera by its number, or of a file, read by OpenCV."""
    capture = cv2.VideoCapture(source)
    is_read, pixels = capture.read()
    while is_read:
        # OpenCV has blue first.
        yield pixels[:, :, ::-1]
        is_read, pixels = capture.read()


def av_frames(source: str, is_camera: bool) -> Iterator[Any]:
    """Yield the frames of a camera of V4L by its number, or of a file, read by PyAV."""
    av = import_optional("av")
    if av is None:
        sys.exit("install one of picamera2, opencv-python-headless and av")
    name, format = (f"/dev/video{source}", "v4l2") if is_camera else (source, None)
    try:
        container = av.open(name, format=format)
    # A file that is not there, or no video.
    except (OSError, ValueError) as error:
        sys.exit(f"{name}: {error}")
    if not container.streams.video:
        sys.exit(f"{name}: no video in it")
    for frame in container.decode(video=0):
        yield frame.to_ndarray(format="rgb24")


class FaceCutter:
    """Cuts faces out of RGB pixels, as squares [size, size, 3]."""

    def __init__(self, size: int, template: Any) -> None:
        self._size = size
        self._template = np.array(template) * size
        self._detector = None
        if cv2 is not None:
            file = str(HERE / "yunet.onnx")
            self._detector = cv2.FaceDetectorYN.create(file, "", (320, 320), MIN_SCORE)

    def crops(self, pixels: Any) -> Iterator[Any]:
        """Yield the faces of a frame."""
        if self._detector is None:
            yield self._middle(pixels)
            return
        height, width = pixels.shape[:2]
        self._detector.setInputSize((width, height))
        _, faces = self._detector.detect(np.ascontiguousarray(pixels[:, :, ::-1]))
        for face in [] if faces is None else faces:
            yield self._upright(pixels, face[4:14].reshape(5, 2))

    def _upright(self, pixels: Any, landmarks: Any) -> Any:
        """Return the square in which the landmarks have their places."""
        to_crop = similarity(landmarks, self._template)
        # Several samples for a pixel, and their mean: large faces are reduced without a pattern.
        scale = float(np.hypot(*to_crop[:, 0]))
        samples = min(MOST_SAMPLES, max(1, round(1 / scale)))
        side = self._size * samples
        edges = cv2.BORDER_REPLICATE
        large = cv2.warpAffine(pixels, to_crop * samples, (side, side), borderMode=edges)
        return cv2.resize(large, (self._size, self._size), interpolation=cv2.INTER_AREA)

    def _middle(self, pixels: Any) -> Any:
        """Return the largest square in the middle of a frame, as means of samples."""
        height, width = pixels.shape[:2]
        side = min(height, width)
        samples = max(1, side // self._size)
        count = self._size * samples
        # The pixels under the middles of the samples.
        places = ((np.arange(count) + 0.5) * side / count).astype(int)
        top, left = (height - side) // 2, (width - side) // 2
        square = pixels[top + places][:, left + places]
        blocks = square.reshape(self._size, samples, self._size, samples, 3)
        return blocks.mean(axis=(1, 3)).round().astype(np.uint8)


def similarity(source: Any, target: Any) -> Any:
    """Return the similarity [2, 3] that takes points [N, 2] to others with the least squares.

    Umeyama (1991), without reflections, as `fertool predict` cuts faces.
    """
    source_mean, target_mean = source.mean(0), target.mean(0)
    a, b = source - source_mean, target - target_mean
    # The points of a face that is a single pixel have no extent.
    extent = max(float((a**2).sum()), 1e-6)
    cosine = float((a * b).sum()) / extent
    sine = float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()) / extent
    usual_scale = (float((b**2).sum()) / extent) ** 0.5
    # Points in no order of a face, as in a mirror, would be blown down to nothing.
    if np.hypot(cosine, sine) < LEAST_AGREEMENT * usual_scale:
        cosine, sine = usual_scale, 0.0
    rotation = np.array([[cosine, -sine], [sine, cosine]])
    shift = target_mean - rotation @ source_mean
    return np.concatenate([rotation, shift[:, None]], axis=1)


def read_entries() -> dict[str, Any]:
    """Return what is known of each model of this folder, by name."""
    bundle = json.loads((HERE / "bundle.json").read_text(encoding="utf-8"))
    return {file["file"]: file for file in bundle["files"]}


class Classifier:
    """A model of this folder; `side` is that of the faces that it takes."""

    def __init__(self, model: str) -> None:
        path, providers = str(HERE / model), ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(path, providers=providers)
        header = json.loads(self._session.get_modelmeta().custom_metadata_map["fertool"])
        self._entry = read_entries()[model]
        self._input = self._session.get_inputs()[0]
        self._temperature = header.get("temperature") or 1
        self.classes = header["classes"]
        self.template = self._entry["template"]
        self.side = header["input"]["size"]
        # Sizes with names are free: such a file resizes crops itself.
        if isinstance(self._input.shape[2], str):
            self.side *= CROP_SCALE

    def probabilities(self, crop: Any) -> Any:
        """Return those of the classes [K] for a face, RGB [side, side, 3]."""
        is_interleaved = self._entry["layout"] == "NHWC"
        channels = self._input.shape[3 if is_interleaved else 1]
        if channels == 1:
            crop = np.round(crop @ LUMA).astype(np.uint8)[:, :, None]
        if not is_interleaved:
            crop = np.ascontiguousarray(crop.transpose(2, 0, 1))
        output = self._session.run(None, {self._input.name: crop[None]})[0][0]
        if self._entry["output"] == "probabilities":
            return output
        # The largest power is 1, so that none overflows.
        powers = np.exp((output - output.max()) / self._temperature)
        return powers / powers.sum()


def main(model: str, source: str, count: int) -> None:
    """Print a line for each face: the time of the frame, and the most probable class."""
    classifier = Classifier(model)
    cutter = FaceCutter(classifier.side, classifier.template)
    number = -1
    for number, pixels in enumerate(frames(source)):
        if number == count:
            return
        start = time.perf_counter()
        for crop in cutter.crops(pixels):
            probabilities = classifier.probabilities(crop)
            best = int(probabilities.argmax())
            took_ms = 1000 * (time.perf_counter() - start)
            name, probability = classifier.classes[best], probabilities[best]
            sys.stdout.write(f"frame {number}  {name:10} {probability:6.1%}  {took_ms:.0f} ms\n")
    if number < 0:
        sys.exit(f"no frames from {source}: check --source, the number of a camera or a video file")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=list(read_entries()), help="a model of this folder")
    parser.add_argument("--source", default="0", help="number of a camera, or a video file")
    parser.add_argument("--count", type=int, default=-1, help="frames to look at; -1: all")
    given = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        main(given.model, given.source, given.count)
