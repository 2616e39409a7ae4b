import numpy as np
import pytest
from PIL import Image

from fertool.data.images import Entry, ImageTree, image_files, read_images
from fertool.errors import FertoolError


def tree(root, names, **options):
    return ImageTree(root, ("happy", "sad"), {"train": [Entry(root / name, "sad") for name in names]}, **options)


def test_pixels_are_those_of_the_file_in_the_order_given(write_image, tmp_path):
    expected = [write_image(tmp_path / f"{k}.png", level=8 * k) for k in range(30)]
    images = read_images([Entry(tmp_path / f"{k}.png", "sad") for k in reversed(range(30))], 8, 1)
    assert np.array_equal(images[:, 0], np.stack(expected[::-1]))


def test_a_box_is_cut_out_before_resizing(tmp_path):
    pixels = np.zeros((20, 20), np.uint8)
    pixels[5:15, 2:12] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    images = read_images([Entry(tmp_path / "a.png", "sad", (2, 5, 12, 15))], 4, 1)
    assert np.unique(images).tolist() == [200]


def test_colour_files_become_gray_or_three_channels(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    entry = [Entry(tmp_path / "a.png", "sad")]
    assert np.array_equal(read_images(entry, 6, 3)[0], rgb.transpose(2, 0, 1))
    assert np.array_equal(read_images(entry, 6, 1)[0, 0], np.asarray(Image.fromarray(rgb).convert("L")))


@pytest.mark.parametrize("size", [None, 8])
@pytest.mark.parametrize("damage", ["cut", "text", "missing"])
def test_an_unreadable_image_is_named(write_image, tmp_path, size, damage):
    rng = np.random.default_rng(0)
    for name in ("good.png", "bad.png"):
        Image.fromarray(rng.integers(0, 256, (40, 40), dtype=np.uint8)).save(tmp_path / name)
    content = (tmp_path / "bad.png").read_bytes()
    (tmp_path / "bad.png").write_bytes(content[:900] if damage == "cut" else b"hello")
    if damage == "missing":
        (tmp_path / "bad.png").unlink()
    with pytest.raises(FertoolError, match=r"bad\.png: ") as error:
        tree(tmp_path, ["good.png", "bad.png"], size=size).read("train")
    assert error.value.hint


def test_files_of_one_size_keep_it(write_image, tmp_path, notes):
    write_image(tmp_path / "a.png", size=(9, 9))
    assert tree(tmp_path, ["a.png"], on_note=notes.append).read("train").images.shape == (1, 1, 9, 9)
    assert notes == []


def test_files_of_several_sizes_get_the_median_one_with_a_note(write_image, tmp_path, notes):
    for name, size in {"a.png": (9, 12), "b.png": (20, 11), "c.png": (30, 30)}.items():
        write_image(tmp_path / name, size=size)
    faces = tree(tmp_path, ["a.png", "b.png", "c.png"], on_note=notes.append).read("train")
    assert faces.images.shape == (3, 1, 11, 11)
    assert "11x11" in notes[0]


def test_the_digest_follows_names_labels_and_bytes_but_not_the_place(write_image, tmp_path):
    for root in ("one", "two"):
        write_image(tmp_path / root / "a.png", level=1)
    first = tree(tmp_path / "one", ["a.png"]).digest
    assert tree(tmp_path / "two", ["a.png"]).digest == first
    other_label = ImageTree(tmp_path / "one", ("happy",), {"train": [Entry(tmp_path / "one" / "a.png", "happy")]})
    assert other_label.digest != first
    write_image(tmp_path / "one" / "a.png", level=2)
    assert tree(tmp_path / "one", ["a.png"]).digest != first


def test_only_visible_image_files_are_listed(write_image, tmp_path):
    for name in ("b.PNG", "a.jpg", ".hidden.png"):
        write_image(tmp_path / name)
    (tmp_path / "Thumbs.db").write_bytes(b"")
    assert [path.name for path in image_files(tmp_path)] == ["a.jpg", "b.PNG"]
