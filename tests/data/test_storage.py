import os
import tracemalloc

import numpy as np
import pytest

from fertool.data import storage
from fertool.data.storage import Chunks, assemble, iter_chunks, select_images


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (50, 1, 8, 8), dtype=np.uint8)


@pytest.fixture
def little_memory(monkeypatch):
    monkeypatch.setattr(storage, "IN_MEMORY", 256)
    monkeypatch.setattr(storage, "PIECE", 3 * 64)


@pytest.mark.parametrize("memory", ["enough", "little"])
@pytest.mark.parametrize(
    "index", [[], [7], [3, 4, 5], [9, 2, 2, 40, 0], [-3, -2, -1], [*range(49, -1, -1)]]
)
def test_the_images_taken_are_those_of_numpy(images, index, memory, request):
    if memory == "little":
        request.getfixturevalue("little_memory")
    index = np.array(index, np.int64)
    assert np.array_equal(select_images(images, index), images[index])


def test_a_run_without_gaps_is_not_copied(images):
    assert np.shares_memory(select_images(images, np.arange(10, 40)), images)
    assert not np.shares_memory(select_images(images, np.array([10, 12])), images)


@pytest.mark.usefixtures("little_memory")
def test_pieces_are_all_images_in_order(images):
    parts = list(iter_chunks(images))
    assert max(len(part) for part in parts) == 3
    assert np.array_equal(np.concatenate(parts), images)


@pytest.mark.usefixtures("little_memory")
def test_what_is_too_large_for_memory_lies_in_a_file_that_nobody_sees(
    images, tmp_path, monkeypatch
):
    folder = tmp_path / "not" / "yet"
    monkeypatch.setenv("FERTOOL_CACHE", str(folder))
    whole = assemble(Chunks(images.shape, lambda: iter(np.split(images, 5))))
    assert np.array_equal(whole, images)
    assert not whole.flags.writeable
    assert os.listdir(folder) == []


@pytest.mark.usefixtures("little_memory")
def test_without_a_place_for_the_file_memory_serves(images, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FERTOOL_CACHE", str(tmp_path / "file"))
    assert np.array_equal(assemble(Chunks(images.shape, lambda: iter(np.split(images, 5)))), images)


def test_memory_does_not_grow_with_the_images(monkeypatch):
    monkeypatch.setattr(storage, "IN_MEMORY", 1 << 20)
    monkeypatch.setattr(storage, "PIECE", 1 << 18)
    tracemalloc.start()
    whole = assemble(
        Chunks((64, 1 << 18), lambda: (np.full((1, 1 << 18), k, np.uint8) for k in range(64)))
    )
    shuffled = select_images(whole, np.random.default_rng(0).permutation(64))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sorted(shuffled[:, 0].tolist()) == list(range(64))
    assert peak < whole.nbytes / 8
