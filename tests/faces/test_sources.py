"""What a user names becomes pictures and videos, each once, and never an output."""

import os

import pytest
from PIL import Image

from fertool.faces.sources import list_sources


@pytest.fixture
def folder(tmp_path):
    for name in ("b.jpg", "a.png", "sub/c.JPG", "notes.txt", ".hidden.jpg", "sub/clip.mp4"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(path, "PNG")
    return tmp_path / "in"


def kinds(sources):
    return [(source.kind, source.place.as_posix()) for source in sources]


def test_a_folder_is_walked_in_order(folder):
    assert kinds(list_sources([str(folder)])) == [
        ("picture", "a.png"),
        ("picture", "b.jpg"),
        ("picture", "sub/c.JPG"),
        ("video", "sub/clip.mp4"),
    ]


def test_a_pattern_matches_files(folder):
    found = list_sources([f"{folder}/**/*.[jJ][pP][gG]"])
    assert kinds(found) == [("picture", "b.jpg"), ("picture", "c.JPG")]


@pytest.mark.parametrize("name", ["nothing.jpg", "*.webp", "empty"])
def test_what_is_not_there_is_told(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (source,) = list_sources([str(tmp_path / name)])
    assert source.kind == "missing"
    assert source.error


def test_an_output_folder_inside_is_no_source(folder):
    (folder / "drawn").mkdir()
    Image.new("L", (8, 8)).save(folder / "drawn" / "a.jpg")
    found = list_sources([str(folder)], [folder / "drawn"])
    assert "drawn/a.jpg" not in dict(kinds(found)).values()
    assert len(found) == 4


def test_links_in_a_circle_end(folder):
    (folder / "sub" / "up").symlink_to(folder, target_is_directory=True)
    assert len(list_sources([str(folder)])) == 4


def test_a_folder_named_like_a_picture_is_a_folder(folder):
    os.rename(folder / "sub", folder / "sub.jpg")
    assert ("picture", "sub.jpg/c.JPG") in kinds(list_sources([str(folder)]))


def test_cameras_streams_and_stdin_are_known():
    found = list_sources(["camera:0", "rtsp://cam.example/1", "-"])
    assert [source.kind for source in found] == ["live", "live", "stdin"]
    assert found[0].place.as_posix() == "camera-0"


def test_the_password_of_a_stream_is_in_no_result():
    (source,) = list_sources(["rtsp://user:secret@cam.example:554/live/1"])
    assert source.name == "rtsp://cam.example:554/live/1"
    assert source.address == "rtsp://user:secret@cam.example:554/live/1"
