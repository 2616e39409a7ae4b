from pathlib import Path

import numpy as np
import pytest

from fertool.data.cache import cache_folder, cached


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
