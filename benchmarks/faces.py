"""Faces in pictures: speed and memory on a video, and FER2013 cut anew out of drawn frames.

    python benchmarks/faces.py video models/nano_resnet.int8.onnx
    python benchmarks/faces.py fer2013 models/nano_resnet.int8.onnx --data fer2013.csv

`video` makes a clip of 640 x 480 pixels with one drawn face and labels it on one thread, without
drawing. `fer2013` enlarges each face of PublicTest, puts it into a frame of 640 x 480 pixels, finds
and cuts it with `data crop`, and compares the accuracy with that on FER2013's own crops.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

import fertool
from fertool.data.synth import draw_faces
from fertool.metrics import compare_paired, wilson_ci95

_WIDTH, _HEIGHT = 640, 480


def main() -> None:
    """Run one of the measurements and print its figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("video", "fer2013"))
    parser.add_argument("model")
    parser.add_argument("--data", default="fer2013.csv")
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--detect-size", type=int, default=320)
    parser.add_argument("--images", type=int, default=0)
    parser.add_argument("--surroundings", choices=("edge", "gray"), default="edge")
    arguments = parser.parse_args()
    measured = video(arguments) if arguments.what == "video" else fer2013(arguments)
    print(json.dumps(measured, indent=1))


def video(arguments: argparse.Namespace) -> dict[str, object]:
    """Return frames a second of CPU time and of wall time, and the memory after parts of a clip."""
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        write_clip(clip, arguments.frames)
        predictions = fertool.predict(
            arguments.model, clip, detect_size=arguments.detect_size, smooth=0.25
        )
        marks = []
        faces = 0
        # Behind the first frames, which open everything.
        start_cpu = start = 0.0
        for number, result in enumerate(predictions):
            faces += len(result.faces)
            if number == 99:
                start_cpu, start = time.process_time(), time.monotonic()
            if number % (arguments.frames // 10) == arguments.frames // 10 - 1:
                marks.append(_resident_mb())
        measured = number + 1 - 100
        return {
            "frames": number + 1,
            "faces": faces,
            "detect_size": arguments.detect_size,
            "frames_per_cpu_s": round(measured / (time.process_time() - start_cpu), 1),
            "frames_per_s": round(measured / (time.monotonic() - start), 1),
            "resident_mb": marks,
        }


def write_clip(path: Path, frames: int) -> None:
    """Write a clip in which a drawn face wanders through the picture."""
    import av

    tile = draw_faces(8, 3, 160)[0][1][0]
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        for number in range(frames):
            picture = np.full((_HEIGHT, _WIDTH, 3), 150, np.uint8)
            x, y = 40 + number * 3 % 400, 150 + number % 90
            picture[y : y + 160, x : x + 160] = tile[:, :, None]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def fer2013(arguments: argparse.Namespace) -> dict[str, object]:
    """Return the accuracy on crops that were found in frames, and on the images' own."""
    model = arguments.model
    source = fertool.open_data(arguments.data).fitted()
    images = source.split("val").images.numpy()[:, 0]
    labels = source.split("val").labels.numpy()
    names = source.classes
    if arguments.images:
        images, labels = images[: arguments.images], labels[: arguments.images]
    with tempfile.TemporaryDirectory() as folder:
        frames, crops = Path(folder) / "frames", Path(folder) / "crops"
        frames.mkdir()
        for index, image in enumerate(images):
            _frame(image, index, arguments.surroundings).save(frames / f"{index:05d}.png")
        report = fertool.crop_faces(frames, crops)
        found = sorted(int(path.stem) for path in crops.glob("*.png"))
        cut = [np.asarray(Image.open(crops / f"{index:05d}.png").convert("L")) for index in found]
    own = _correct(model, list(images[found]), labels[found], names)
    again = _correct(model, cut, labels[found], names)
    compared = compare_paired(own, again)
    everything = _correct(model, list(images), labels, names)
    return {
        "images": len(images),
        "without_face": len(report.without_face),
        "surroundings": arguments.surroundings,
        "own_crops": [float(own.mean()), wilson_ci95(int(own.sum()), len(own))],
        "cut_anew": [float(again.mean()), wilson_ci95(int(again.sum()), len(again))],
        "difference": [compared.difference, compared.difference_ci95, compared.mcnemar_p],
        "own_crops_all_images": float(everything.mean()),
    }


def _frame(image: np.ndarray, index: int, surroundings: str) -> Image.Image:
    """Return a frame with an image enlarged to about 200 pixels at a place of its own."""
    rng = np.random.default_rng(index)
    side = int(rng.integers(160, 241))
    x, y = int(rng.integers(0, _WIDTH - side)), int(rng.integers(0, _HEIGHT - side))
    large = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
    margins = ((y, _HEIGHT - side - y), (x, _WIDTH - side - x))
    if surroundings == "edge":
        return Image.fromarray(np.pad(large, margins, mode="edge"))
    return Image.fromarray(np.pad(large, margins, constant_values=128))


def _correct(
    model: str, crops: list[np.ndarray], labels: np.ndarray, names: tuple[str, ...]
) -> np.ndarray:
    results = fertool.predict(model, crops, detect=False)
    return np.array(
        [
            result.faces[0].label == names[label]
            for result, label in zip(results, labels, strict=True)
        ]
    )


def _resident_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return round(int(line.split()[1]) / 1024, 1)
    return 0.0


if __name__ == "__main__":
    main()
