import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from fertool.data.cache import cached
from fertool.data.storage import Chunks, cache_folder
from fertool.errors import FertoolError


@pytest.fixture
def make():
    def arrays():
        arrays.calls += 1
        return {"images": np.arange(5000, dtype=np.uint8).reshape(100, 50), "labels": np.arange(100)}

    arrays.calls = 0
    return arrays


def test_the_second_time_is_read_from_the_file(make, notes):
    first = cached("key", make, notes.append)
    again = cached("key", make, notes.append)
    assert make.calls == 1
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert notes == []


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign"])
def test_a_damaged_file_is_silently_made_again(make, notes, cache, damage):
    cached("key", make, notes.append)
    path = cache / "key.npz"
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes({"cut": content[:3000], "flipped": bytes(content), "foreign": b"not a zip"}[damage])
    assert np.array_equal(cached("key", make, notes.append)["labels"], np.arange(100))
    assert make.calls == 2
    cached("key", make, notes.append)
    assert make.calls == 2
    assert notes == []


def test_a_folder_that_cannot_be_written_costs_only_a_note(make, notes, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FERTOOL_CACHE", str(tmp_path / "file" / "cache"))
    assert len(cached("key", make, notes.append)["labels"]) == 100
    assert len(notes) == 1
    assert "not cached" in notes[0]


def test_the_folder_follows_the_environment(monkeypatch):
    monkeypatch.setenv("FERTOOL_CACHE", "/a")
    assert cache_folder() == Path("/a")
    monkeypatch.delenv("FERTOOL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert cache_folder() == Path("/b/fertool")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/c")
    assert cache_folder() == Path("/c/.cache/fertool")


def test_images_are_mapped_and_nothing_can_write_into_them(make, notes):
    images = cached("key", make, notes.append)["images"]
    assert not images.flags.writeable
    assert not images.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 1


def test_what_numpy_stored_is_what_numpy_loads(make, notes, cache):
    arrays = cached("key", make, notes.append)
    with np.load(cache / "key.npz") as file:
        assert sorted(file.files) == ["images", "labels"]
        assert all(np.array_equal(file[name], arrays[name]) for name in arrays)
    np.savez(cache / "other.npz", images=np.full((3, 5), 7, np.uint8))
    assert cached("other", make, notes.append)["images"].tolist() == [[7] * 5] * 3


def test_chunks_are_stored_without_ever_being_whole(notes):
    chunks = Chunks((64, 1 << 18), lambda: (np.full((1, 1 << 18), k, np.uint8) for k in range(64)))
    tracemalloc.start()
    images = cached("key", lambda: {"images": chunks}, notes.append)["images"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert images[:, 5].tolist() == list(range(64))
    assert peak < images.nbytes / 8


@pytest.mark.parametrize("place", ["cache", "nowhere"])
def test_an_error_in_the_making_is_the_errors_own_and_leaves_nothing_behind(notes, cache, tmp_path, monkeypatch, place):
    def parts():
        yield np.zeros((1, 4), np.uint8)
        raise FertoolError("b.png: not a readable image", "copy it again")

    if place == "nowhere":
        (tmp_path / "file").write_text("in the way")
        monkeypatch.setenv("FERTOOL_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(FertoolError, match=r"b\.png"):
        cached("key", lambda: {"images": Chunks((2, 4), parts)}, notes.append)
    assert os.listdir(cache) == []
