"""A video that was stopped at any moment plays to its last frame."""

import contextlib
import signal

import numpy as np
import pytest
from PIL import Image

from fertool.faces.video_writing import VideoWriter

av = pytest.importorskip("av")
MOST_FRAMES = 1000


@pytest.fixture
def ctrl_c():
    """Return what raises KeyboardInterrupt after some seconds, wherever the main thread is then."""
    if not hasattr(signal, "setitimer"):
        pytest.skip("this system has no such timers")

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_a_video_that_was_interrupted_has_all_its_frames(tmp_path, ctrl_c):
    noise = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    picture = Image.fromarray(noise)
    for attempt in range(60):
        path = tmp_path / f"{attempt}.mp4"
        begun = 1
        with path.open("wb") as file:
            writer = VideoWriter(file, picture.size, threads=1)
            writer.write(picture, 0)
            with contextlib.suppress(KeyboardInterrupt):
                ctrl_c(0.0005 + 0.0005 * attempt)
                # Python drops an interrupt that comes in a callback of its garbage collector.
                while begun < MOST_FRAMES:
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
