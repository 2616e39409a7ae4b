"""Every frame of a video comes once, in order, upright, with its own time stamp."""

from fractions import Fraction

import numpy as np
import pytest

from fertool.errors import FertoolError
from fertool.faces.frames import read_frames
from fertool.faces.sources import list_sources
from fertool.faces.video import read_video
from fertool.reporter import SILENT

av = pytest.importorskip("av")


def write(path, times_ms, codec="libx264", size=(64, 48)):
    """Write a video with a frame at each of these times; its gray level tells its number."""
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time_ms in enumerate(times_ms):
            pixels = np.full((size[1], size[0], 3), 40 + 8 * number % 200, np.uint8)
            # A bright corner at the left top, by which one can tell what is up.
            pixels[:12, :12] = 255
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def frames_of(path, **options):
    (source,) = list_sources([str(path)])
    return list(read_frames(source, **options))


def test_frames_of_a_variable_rate_have_their_own_times(tmp_path):
    times_ms = [0, 14, 55, 97, 400, 441]
    frames = frames_of(write(tmp_path / "clip.mp4", times_ms))
    assert [frame.number for frame in frames] == [0, 1, 2, 3, 4, 5]
    assert [frame.time_s for frame in frames] == pytest.approx(
        [t / 1000 for t in times_ms], abs=2e-3
    )
    levels = [np.asarray(frame.image)[30, 40].mean() for frame in frames]
    assert levels == pytest.approx([40, 48, 56, 64, 72, 80], abs=4)


def test_every_nth_frame_keeps_its_number_and_time(tmp_path):
    frames = frames_of(write(tmp_path / "clip.mp4", range(0, 400, 40)), every=4)
    assert [(frame.number, round(frame.time_s, 3)) for frame in frames] == [
        (0, 0.0),
        (4, 0.16),
        (8, 0.32),
    ]


def test_a_video_that_was_filmed_sideways_is_turned_upright(tmp_path):
    path = write(tmp_path / "clip.mp4", [0, 40])
    content = bytearray(path.read_bytes())
    # The matrix in the track's header: 90 degrees clockwise, as phones write it.
    start = content.index(b"tkhd") + 4 + 4 + 20 + 16
    one = 1 << 16
    matrix = [0, one, 0, -one, 0, 0, 48 * one, 0, 1 << 30]
    content[start : start + 36] = b"".join(v.to_bytes(4, "big", signed=True) for v in matrix)
    path.write_bytes(content)

    frame = frames_of(path)[0]
    assert frame.image.size == (48, 64)
    pixels = np.asarray(frame.image.convert("L"))
    assert pixels[:10, -10:].mean() > 200
    assert pixels[:10, :10].mean() < 100


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a readable video"),
        (b"this is no video at all" * 100, "not a readable video"),
    ],
)
def test_what_is_no_video_is_one_frame_with_an_error(tmp_path, content, message):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    (frame,) = frames_of(path)
    assert message in frame.error
    assert frame.hint


def test_a_truncated_video_gives_its_frames_and_then_an_error_or_an_end(tmp_path):
    path = write(tmp_path / "clip.mkv", range(0, 4000, 40), size=(320, 240))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames = frames_of(path)
    read = [frame for frame in frames if frame.error is None]
    assert 0 < len(read) < 100
    assert [frame.number for frame in read] == list(range(len(read)))


def test_a_file_with_sound_only_says_so(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (frame,) = frames_of(path)
    assert "sound only" in frame.error


@pytest.mark.parametrize("name", ["camera:7", "rtsp://127.0.0.1:9/none"])
def test_a_camera_that_is_not_there_is_an_error(name):
    (source,) = list_sources([name])
    with pytest.raises(FertoolError) as caught:
        list(read_video(source, 1, 1, SILENT))
    assert "connected" in caught.value.hint


def test_lost_frames_of_a_camera_are_told(tmp_path, monkeypatch):
    from fertool.faces import video

    path = write(tmp_path / "clip.mp4", [0, 40, 80, 240, 280])
    monkeypatch.setitem(video._CAMERAS, "linux", (None, str(path)))
    monkeypatch.setattr(video.sys, "platform", "linux")
    notes = []

    class Notes:
        note = staticmethod(notes.append)

    (source,) = list_sources(["camera:0"])
    assert len(list(read_video(source, 1, 1, Notes()))) == 5
    assert "3 frames were lost" in notes[0]


def test_without_pyav_the_error_says_what_to_install(monkeypatch, tmp_path):
    import sys

    path = write(tmp_path / "clip.mp4", [0])
    monkeypatch.setitem(sys.modules, "av", None)
    (frame,) = frames_of(path)
    assert "PyAV" in frame.error
    assert frame.hint == "pip install 'fertool[video]'"
