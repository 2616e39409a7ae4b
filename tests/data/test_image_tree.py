import os
import time
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from fertool.data import image_batches
from fertool.data.image_batches import ImageEntry, decode_images
from fertool.data.image_files import image_files
from fertool.data.image_tree import ImageTree
from fertool.errors import FertoolError


def tree(root, names, **options):
    return ImageTree(
        root,
        ("happy", "sad"),
        {"train": [ImageEntry(root / name, "sad") for name in names]},
        **options,
    )


def test_pixels_are_those_of_the_file_in_the_order_given(write_image, tmp_path):
    expected = [write_image(tmp_path / f"{k}.png", level=8 * k) for k in range(30)]
    images = next(
        decode_images([ImageEntry(tmp_path / f"{k}.png", "sad") for k in reversed(range(30))], 8, 1)
    )
    assert np.array_equal(images[:, 0], np.stack(expected[::-1]))


def test_a_box_is_cut_out_before_resizing(tmp_path):
    pixels = np.zeros((20, 20), np.uint8)
    pixels[5:15, 2:12] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    images = next(decode_images([ImageEntry(tmp_path / "a.png", "sad", (2, 5, 12, 15))], 4, 1))
    assert np.unique(images).tolist() == [200]


def test_colour_files_become_gray_or_three_channels(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    entry = [ImageEntry(tmp_path / "a.png", "sad")]
    assert np.array_equal(next(decode_images(entry, 6, 3))[0], rgb.transpose(2, 0, 1))
    assert np.array_equal(
        next(decode_images(entry, 6, 1))[0, 0], np.asarray(Image.fromarray(rgb).convert("L"))
    )


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
    assert tree(tmp_path, ["a.png"], on_note=notes.append).read("train").images.shape == (
        1,
        1,
        9,
        9,
    )
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
    other_label = ImageTree(
        tmp_path / "one", ("happy",), {"train": [ImageEntry(tmp_path / "one" / "a.png", "happy")]}
    )
    assert other_label.digest != first
    write_image(tmp_path / "one" / "a.png", level=2)
    assert tree(tmp_path / "one", ["a.png"]).digest != first


def test_only_visible_image_files_are_listed(write_image, tmp_path):
    for name in ("b.PNG", "a.jpg", ".hidden.png"):
        write_image(tmp_path / name)
    (tmp_path / "Thumbs.db").write_bytes(b"")
    assert [path.name for path in image_files(tmp_path)] == ["a.jpg", "b.PNG"]


@pytest.fixture
def old_images(tmp_path):
    """Ten different images that were last changed long ago, as files of one length."""
    for k in range(10):
        path = tmp_path / f"{k}.pgm"
        Image.fromarray(np.full((8, 8), k, np.uint8)).save(path)
        os.utime(path, (1, 1))
    return [f"{k}.pgm" for k in range(10)]


def never(*arguments):
    raise AssertionError("a file was read")


def test_the_second_opening_reads_no_image_file(old_images, tmp_path, monkeypatch):
    first = tree(tmp_path, old_images)
    faces = first.read("train")
    monkeypatch.setattr(image_batches, "scan_image", never)
    monkeypatch.setattr(image_batches, "_decode", never)
    again = tree(tmp_path, old_images)
    assert np.array_equal(again.read("train").images, faces.images)
    assert faces.images[:, 0, 0, 0].tolist() == list(range(10))
    assert again.digest == first.digest


def test_touched_files_are_read_again_but_not_decoded_again(old_images, tmp_path, monkeypatch):
    first = tree(tmp_path, old_images)
    first.read("train")
    os.utime(tmp_path / "3.pgm", (2, 2))
    monkeypatch.setattr(image_batches, "_decode", never)
    again = tree(tmp_path, old_images)
    assert again.digest == first.digest
    assert again.read("train").images[3].max() == 3


def test_new_bytes_are_noticed_even_with_the_old_length_and_date(old_images, tmp_path):
    tree(tmp_path, old_images).read("train")
    # Longer than a tick of the clock that dates files.
    time.sleep(0.05)
    Image.fromarray(np.full((8, 8), 99, np.uint8)).save(tmp_path / "3.pgm")
    os.utime(tmp_path / "3.pgm", (1, 1))
    assert tree(tmp_path, old_images).read("train").images[3].max() == 99


def test_a_file_changed_just_now_is_not_taken_for_settled(write_image, tmp_path, monkeypatch):
    write_image(tmp_path / "a.png", level=1)
    tree(tmp_path, ["a.png"]).read("train")
    monkeypatch.setattr(image_batches, "scan_image", never)
    with pytest.raises(AssertionError, match="was read"):
        tree(tmp_path, ["a.png"]).read("train")


def test_sizes_and_channels_are_kept_apart(old_images, tmp_path):
    for size, channels in ((8, 1), (4, 1), (4, 3)):
        images = tree(tmp_path, old_images, size=size, channels=channels).read("train").images
        assert images.shape == (10, channels, size, size)


def test_decoding_needs_the_memory_of_a_few_images(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    names = [f"{k}.pgm" for k in range(64)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (256, 256), dtype=np.uint8)).save(tmp_path / name)
    monkeypatch.setattr(image_batches, "_BATCH_FILES", 2)
    tracemalloc.start()
    images = tree(tmp_path, names).read("train").images
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < images.nbytes / 3


@pytest.fixture
def damaged(tmp_path):
    """Five good images, one cut off, one that is text and a folder's link to nowhere."""
    rng = np.random.default_rng(0)
    for k in range(6):
        pixels = rng.integers(0, 256, (40, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{k}.png")
        os.utime(tmp_path / f"{k}.png", (1, 1))
    content = (tmp_path / "3.png").read_bytes()
    (tmp_path / "3.png").write_bytes(content[:900])
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "gone.png").symlink_to("nowhere")
    return [*(f"{k}.png" for k in range(6)), "text.png", "gone.png"]


@pytest.mark.parametrize("size", [None, 8])
def test_unreadable_images_are_skipped_when_asked_for_named_and_counted(
    damaged, tmp_path, notes, size
):
    for _ in range(2):  # the second time from the cache
        skipping = tree(tmp_path, damaged, size=size, skip_unreadable=True, on_note=notes.append)
        faces = skipping.read("train")
        assert len(faces) == len(faces.images) == 5
        assert faces.names.tolist() == ["0.png", "1.png", "2.png", "4.png", "5.png"]
        assert list(skipping.findings.unreadable) == ["gone.png", "text.png", "3.png"]
        assert skipping.findings.unreadable["text.png"] == "not a readable image"
    assert notes[0].startswith(f"{tmp_path}: 3 unreadable train images skipped: gone.png (no such")
    # What the cache has of the damaged ones is no reason to stop naming them.
    with pytest.raises(FertoolError, match=r"(3|text|gone)\.png: "):
        tree(tmp_path, damaged, size=size).read("train")
    with pytest.raises(FertoolError, match=r"3\.png: not a readable image"):
        tree(tmp_path, damaged[:6], size=size).read("train")


def test_nothing_but_unreadable_images_is_an_error_all_the_same(tmp_path):
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(FertoolError, match=r"none of its images can be read: a\.png: not a"):
        tree(tmp_path, ["a.png"], skip_unreadable=True).read("train")
