"""A video that was stopped at any moment plays to its last frame."""

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fertool.faces.video_writing import VideoWriter

av = pytest.importorskip("av")


def test_a_video_that_was_interrupted_has_all_its_frames(tmp_path):
    if not hasattr(signal, "setitimer"):
        pytest.skip("this system has no such timers")
    # A process of its own: an interrupt that something else of the tests gets would end the worker.
    command = [sys.executable, __file__, tmp_path]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stderr


def interrupt_videos(folder):
    """Write videos until Ctrl-C, which comes at another moment in each, and count their frames."""

    def interrupt(number, frame):
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    noise = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    picture = Image.fromarray(noise)
    for attempt in range(60):
        path = folder / f"{attempt}.mp4"
        begun = 1
        with path.open("wb") as file:
            writer = VideoWriter(file, picture.size, threads=1)
            writer.write(picture, 0)
            with contextlib.suppress(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, 0.0005 + 0.0005 * attempt)
                while True:
                    begun += 1
                    writer.write(picture, begun / 25)
            writer.close()
        with av.open(path) as container:
            frames = len(list(container.decode(video=0)))
        assert frames in {begun - 1, begun}


def test_frames_keep_their_times(tmp_path):
    picture = Image.new("RGB", (64, 48), "gray")
    times = [0.0, 0.04, 0.5, 0.51]
    with (tmp_path / "a.mp4").open("wb") as file:
        writer = VideoWriter(file, picture.size, threads=1)
        for time_s in times:
            writer.write(picture, time_s)
        writer.close()
    with av.open(tmp_path / "a.mp4") as container:
        read = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    assert read == pytest.approx(times, abs=1e-4)


if __name__ == "__main__":
    interrupt_videos(Path(sys.argv[1]))
