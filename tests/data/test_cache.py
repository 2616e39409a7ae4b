import io
import os
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fertool.data.cache import has_array, load_or_make
from fertool.data.storage import Chunks, cache_folder
from fertool.errors import FertoolError


@pytest.fixture
def make():
    def arrays():
        arrays.calls += 1
        return {
            "images": np.arange(5000, dtype=np.uint8).reshape(100, 50),
            "labels": np.arange(100),
        }

    arrays.calls = 0
    return arrays


def test_the_second_time_is_read_from_the_file(make, notes):
    first = load_or_make("key", make, notes.append)
    again = load_or_make("key", make, notes.append)
    assert make.calls == 1
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert notes == []


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign"])
def test_a_damaged_file_is_silently_made_again(make, notes, cache, damage):
    load_or_make("key", make, notes.append)
    path = cache / "key.npz"
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(
        {"cut": content[:3000], "flipped": bytes(content), "foreign": b"not a zip"}[damage]
    )
    assert np.array_equal(load_or_make("key", make, notes.append)["labels"], np.arange(100))
    assert make.calls == 2
    load_or_make("key", make, notes.append)
    assert make.calls == 2
    assert notes == []


def test_a_folder_that_cannot_be_written_costs_only_a_note(make, notes, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FERTOOL_CACHE", str(tmp_path / "file" / "cache"))
    assert len(load_or_make("key", make, notes.append)["labels"]) == 100
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
    images = load_or_make("key", make, notes.append)["images"]
    assert not images.flags.writeable
    assert not images.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 1


def test_what_numpy_stored_is_what_numpy_loads(make, notes, cache):
    arrays = load_or_make("key", make, notes.append)
    with np.load(cache / "key.npz") as file:
        assert sorted(file.files) == ["images", "labels"]
        assert all(np.array_equal(file[name], arrays[name]) for name in arrays)
    np.savez(cache / "other.npz", images=np.full((3, 5), 7, np.uint8))
    assert load_or_make("other", make, notes.append)["images"].tolist() == [[7] * 5] * 3


def test_chunks_are_stored_without_ever_being_whole(notes):
    chunks = Chunks((64, 1 << 18), lambda: (np.full((1, 1 << 18), k, np.uint8) for k in range(64)))
    tracemalloc.start()
    images = load_or_make("key", lambda: {"images": chunks}, notes.append)["images"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert images[:, 5].tolist() == list(range(64))
    assert peak < images.nbytes / 8


@pytest.mark.parametrize("place", ["cache", "nowhere"])
def test_an_error_in_the_making_is_the_errors_own_and_leaves_nothing_behind(
    notes, cache, tmp_path, monkeypatch, place
):
    def parts():
        yield np.zeros((1, 4), np.uint8)
        raise FertoolError("b.png: not a readable image", "copy it again")

    if place == "nowhere":
        (tmp_path / "file").write_text("in the way")
        monkeypatch.setenv("FERTOOL_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(FertoolError, match=r"b\.png"):
        load_or_make("key", lambda: {"images": Chunks((2, 4), parts)}, notes.append)
    assert os.listdir(cache) == []


def save_zip(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def npy(shape, descr="|u1", content=b""):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue() + content


def forgeries():
    objects = io.BytesIO()
    np.save(objects, np.array([{}, None]), allow_pickle=True)
    good = npy((100, 50), content=bytes(5000))
    numbers = npy((100,), "<i8", bytes(800))
    return {
        "empty": {},
        "another name": {"pixels.npy": good, "labels.npy": numbers},
        "one array missing": {"images.npy": good},
        "huge bytes": {"images.npy": npy((1 << 40,)), "labels.npy": numbers},
        "huge numbers": {"images.npy": good, "labels.npy": npy((1 << 40,), "<i8")},
        "negative": {"images.npy": npy((-1, 50), content=bytes(5000)), "labels.npy": numbers},
        "another shape": {"images.npy": npy((50, 100), content=bytes(5000)), "labels.npy": numbers},
        "another type": {"images.npy": good, "labels.npy": npy((100,), "<f8", bytes(800))},
        "objects": {"images.npy": good, "labels.npy": objects.getvalue()},
        "no arrays": {"images.npy": b"hello", "labels.npy": b""},
        "folder": {"images.npy/": b"", "labels.npy": numbers},
    }


def is_as_made(arrays):
    return has_array(arrays, "images", np.uint8, (100, 50)) and has_array(
        arrays, "labels", np.int64, (None,)
    )


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("kind", forgeries())
def test_whatever_else_lies_in_its_place_is_made_again(make, notes, cache, kind, compression):
    save_zip(cache / "key.npz", forgeries()[kind], compression)
    tracemalloc.start()
    arrays = load_or_make("key", make, notes.append, is_as_made)
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()
    assert np.array_equal(arrays["images"], make()["images"])
    assert np.array_equal(arrays["labels"], np.arange(100))
    calls = make.calls
    load_or_make("key", make, notes.append, is_as_made)
    assert make.calls == calls
    assert notes == []


def test_a_compressed_file_is_not_unpacked(make, notes, cache):
    save_zip(
        cache / "key.npz",
        {"images.npy": npy((1 << 25,), content=bytes(1 << 25))},
        zipfile.ZIP_DEFLATED,
    )
    assert (cache / "key.npz").stat().st_size < 1 << 20
    assert np.array_equal(load_or_make("key", make, notes.append)["labels"], np.arange(100))


@pytest.mark.parametrize("kind", ["folder", "fifo", "device"])
def test_what_is_no_file_is_left_alone_with_a_note(make, notes, cache, kind):
    path = cache / "key.npz"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/null")
    before = path.lstat()
    assert np.array_equal(load_or_make("key", make, notes.append)["labels"], np.arange(100))
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert [note for note in notes if "not cached" in note]


def test_without_a_home_folder_nothing_is_cached_and_one_note_says_so(make, notes, monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("FERTOOL_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert np.array_equal(load_or_make("key", make, notes.append)["labels"], np.arange(100))
    assert len(notes) == 1
    assert "FERTOOL_CACHE" in notes[0]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    changes=st.lists(st.tuples(st.integers(0, 6600), st.integers(0, 255)), max_size=4),
    end=st.integers(0, 8000),
)
def test_no_damage_is_believed(make, notes, cache, changes, end):
    load_or_make("key", make, notes.append)
    content = bytearray((cache / "key.npz").read_bytes())
    for place, value in changes:
        content[place % len(content)] = value
    (cache / "key.npz").write_bytes(content[:end])
    arrays = load_or_make("key", make, notes.append, is_as_made)
    assert np.array_equal(arrays["images"], make()["images"])
    assert np.array_equal(arrays["labels"], np.arange(100))
