"""Folders as people leave them, generated: what is read is what was written."""

import io
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fertool.data import DataOptions, open_data
from fertool.data.split_names import split_of
from fertool.errors import FertoolError


def encoded(mode, suffix):
    pixels = np.random.default_rng(0).integers(0, 255, (12, 10, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 250)
    content = io.BytesIO()
    converted = image if mode == "I;16" else image.convert(mode)
    converted.save(content, {"jpg": "JPEG", "png": "PNG", "tif": "TIFF"}[suffix])
    return suffix, content.getvalue()


IMAGES = [
    encoded(mode, suffix)
    for mode, suffix in [
        ("L", "png"),
        ("1", "png"),
        ("P", "png"),
        ("RGBA", "png"),
        ("I;16", "png"),
        ("RGB", "jpg"),
        ("CMYK", "jpg"),
        ("LAB", "tif"),
    ]
]
NAME = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp"), exclude_characters="/"),
    min_size=1,
    max_size=6,
).filter(lambda name: not name.startswith((".", "__")) and len(name.encode()) < 60)
CLASS = NAME.filter(lambda name: split_of(name) is None and not name.isdecimal() and name.strip())
CLASSES = st.lists(CLASS, min_size=2, max_size=4, unique_by=lambda name: name.strip().casefold())
PLACE = st.tuples(st.sampled_from(["", "a b/", "x.y/ü/"]), st.sampled_from(IMAGES))
FILES = st.lists(PLACE, min_size=1, max_size=3)
JUNK = ("Thumbs.db", ".DS_Store", "._1.png", "notes.txt", "desktop.ini")


@settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(st.data(), CLASSES, st.sampled_from([(), ("train", "Validation"), ("train", "val", "TEST")]))
def test_every_image_of_a_folder_is_read_into_its_class(tmp_path_factory, data, classes, splits):
    root = tmp_path_factory.mktemp("faces")
    written = Counter()
    for split in splits or ("",):
        for name in classes:
            folder = root / split / name
            folder.mkdir(parents=True)
            (folder / data.draw(st.sampled_from(JUNK))).write_text("junk")
            (folder / "loop").symlink_to(folder)
            for number, (inside, (suffix, content)) in enumerate(data.draw(FILES)):
                path = folder / inside / f"{number} é.v1.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                written[split_of(split) or "train"] += 1
    source = open_data(str(root), DataOptions(size=8))
    read = Counter()
    for split in source.splits:
        faces = source.raw(split)
        # What is held out was written for training.
        read[split if splits else "train"] += len(faces)
    assert read == written
    assert len(source.classes) == len(classes)


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "train/", "val/", "1/", "a/"]),
            st.sampled_from(
                ["", "b/", "B/", "2/", "happy/", "Happiness/", "test/", ".x/", "\x7f/"]
            ),
            st.sampled_from(["1.png", "bad.png", "Thumbs.db", "labels.csv", "empty"]),
        ),
        max_size=6,
    )
)
def test_any_folder_is_read_or_an_error_names_it(tmp_path_factory, places):
    root = tmp_path_factory.mktemp("faces")
    for outer, inner, name in places:
        folder = root / outer / inner
        folder.mkdir(parents=True, exist_ok=True)
        if name != "empty":
            content = IMAGES[0][1] if name == "1.png" else b"1.png,x\n"
            (folder / name).write_bytes(content)
    try:
        source = open_data(str(root), DataOptions(size=8, skip_unreadable=True))
        counts = [len(source.raw(split)) for split in source.splits]
    except FertoolError as error:
        message, hint = error.message, error.hint
    else:
        assert sum(counts) > 0
        return
    assert str(root) in message
    assert hint


def test_one_image_a_class_is_enough_to_look_at(tmp_path):
    for name in ("bored", "engaged"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(IMAGES[0][1])
    source = open_data(str(tmp_path), DataOptions())
    assert len(source.raw("train")) == 2
    with pytest.raises(FertoolError, match="too few training images"):
        source.split("val")
