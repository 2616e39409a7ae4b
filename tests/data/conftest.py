import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """A cache folder of its own for each test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FERTOOL_CACHE", str(folder))
    return folder


@pytest.fixture
def notes():
    return []


@pytest.fixture
def write_image():
    """Write a gray image of one level; `size` is (width, height)."""

    def write(path, level=100, size=(8, 8)):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((size[1], size[0]), level, np.uint8)
        Image.fromarray(pixels).save(path)
        return pixels

    return write


@pytest.fixture
def write_fer2013(tmp_path):
    """Write a small fer2013.csv: `rows` are (label, levels, usage).

    By default two faces of each class and usage.
    """

    def write(rows=None, header="emotion,pixels,Usage", name="fer2013.csv"):
        if rows is None:
            rng = np.random.default_rng(0)
            usages = ["Training"] * 14 + ["PublicTest"] * 14 + ["PrivateTest"] * 14
            rows = [(k % 7, rng.integers(0, 256, 16), usage) for k, usage in enumerate(usages)]
        lines = [f"{label},{' '.join(map(str, levels))},{usage}" for label, levels, usage in rows]
        path = tmp_path / name
        path.write_text("\n".join([header, *lines]) + "\n")
        return path

    return write


@pytest.fixture
def one_thread():
    """A small net is not worth two threads, least of all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
