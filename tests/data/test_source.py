import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fertool.config.reading import DataConfig, parse_classes
from fertool.data import DataOptions, image_tree, open_data, storage
from fertool.data.class_groups import relabel
from fertool.data.info import inspect_source
from fertool.data.reader import RawSplit
from fertool.errors import FertoolError, UsageError

BASIC = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


@pytest.fixture
def kaggle(tmp_path, write_image):
    """Kaggle's layout: 20 training and 2 test images of three classes, all different."""
    root, level = tmp_path / "kaggle", 0
    for split, count in (("train", 20), ("test", 2)):
        for name in ("happy", "neutral", "angry"):
            for k in range(count):
                write_image(root / split / name / f"{k}.png", level=level)
                level += 1
    return root


def test_a_csv_gives_its_three_splits(write_fer2013):
    source = open_data(str(write_fer2013()), DataOptions())
    assert source.splits == ("train", "val", "test")
    data = source.split("val")
    assert (data.classes, data.split, len(data)) == (BASIC, "val", 14)
    assert data.images.dtype == torch.uint8
    assert data.labels.dtype == torch.int64
    assert data.digest == source.digest == source.split("test").digest


def test_a_folder_with_the_csv_is_opened_as_the_csv(write_fer2013):
    path = write_fer2013()
    assert (
        open_data(str(path.parent), DataOptions()).digest
        == open_data(str(path), DataOptions()).digest
    )


def test_labels_follow_the_models_order_by_name(kaggle):
    data = open_data(str(kaggle), DataOptions(classes=("neutral", "happy", "angry"))).split("test")
    by_name = {
        data.classes[k]: data.images[data.labels == k][:, 0, 4, 4].tolist() for k in range(3)
    }
    assert by_name == {"happy": [60, 61], "neutral": [62, 63], "angry": [64, 65]}
    assert data.class_counts().tolist() == [2, 2, 2]


def test_classes_that_the_model_lacks_are_dropped_with_a_note(kaggle, notes):
    data = open_data(
        str(kaggle), DataOptions(classes=("happy", "angry")), on_note=notes.append
    ).split("test")
    assert (len(data), data.classes) == (4, ("happy", "angry"))
    assert notes == [f"{kaggle}: 2 test images of classes that the model lacks are left out"]


def test_no_image_of_the_models_classes_is_an_error(kaggle):
    with pytest.raises(FertoolError, match="no images in the split 'test' show fear, sad"):
        open_data(str(kaggle), DataOptions(classes=("fear", "sad"))).split("test")


def test_a_class_that_the_source_never_has_is_noted_only(kaggle, notes):
    source = open_data(
        str(kaggle), DataOptions(classes=("happy", "neutral", "angry", "sad")), on_note=notes.append
    )
    assert source.split("train").class_counts().tolist() == [18, 18, 18, 0]
    assert any("has no class sad" in note for note in notes)


def test_a_class_missing_in_training_is_an_error_that_names_it_and_the_file(write_fer2013):
    rows = [(k % 7, np.full(16, k), "Training") for k in range(28) if k % 7 != 1]
    source = open_data(
        str(write_fer2013([*rows, (1, np.zeros(16, int), "PublicTest")])), DataOptions()
    )
    with pytest.raises(FertoolError, match=r"fer2013.csv: no training images of disgust") as error:
        source.split("train")
    assert error.value.hint
    assert len(source.split("val")) == 1


def test_an_empty_split_is_an_error_that_lists_the_others(write_fer2013):
    source = open_data(
        str(write_fer2013([(3, [k] * 4, "PublicTest") for k in range(3)])), DataOptions()
    )
    with pytest.raises(FertoolError, match=r"fer2013.csv: no images in the split 'test'") as error:
        source.split("test")
    assert error.value.hint == "its splits are: val"
    with pytest.raises(UsageError, match="unknown split 'vall'"):
        source.split("vall")


def test_held_out_validation_and_training_share_no_image(kaggle, notes):
    source = open_data(str(kaggle), DataOptions(), on_note=notes.append)
    train, val = (set(source.split(name).images[:, 0, 4, 4].tolist()) for name in ("train", "val"))
    assert (len(train), len(val), train & val) == (54, 6, set())
    assert len(notes) == 1
    again = open_data(str(kaggle), DataOptions(seed=5))
    assert set(again.split("val").images[:, 0, 4, 4].tolist()) == val


def test_size_and_channels_are_those_asked_for(kaggle, write_fer2013):
    options = DataOptions(size=6, channels=3)
    for source in (str(kaggle), str(write_fer2013()), "synth:70"):
        assert tuple(open_data(source, options).split("test").images.shape[1:]) == (3, 6, 6)


def test_distinct_from_finds_the_images_that_are_no_copies(write_fer2013):
    rows = [(k % 7, [k] * 16, "Training") for k in range(14)]
    rows += [
        (0, [3] * 16, "PublicTest"),
        (1, [99] * 16, "PublicTest"),
        (2, [13] * 16, "PublicTest"),
    ]
    source = open_data(str(write_fer2013(rows)), DataOptions())
    assert source.distinct_from("val", "train").tolist() == [False, True, False]


def test_images_come_from_the_cache_without_a_warning_and_stay_as_they_are(kaggle):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = open_data(str(kaggle), DataOptions()).split("test")
        assert not data.images.numpy().flags.owndata
        assert sorted(data.images[:, 0, 0, 0].tolist()) == [60, 61, 62, 63, 64, 65]


def test_a_cache_that_cannot_be_written_is_noted_once_and_changes_nothing(
    kaggle, notes, tmp_path, monkeypatch
):
    cached = open_data(str(kaggle), DataOptions())
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FERTOOL_CACHE", str(tmp_path / "file"))
    source = open_data(str(kaggle), DataOptions(), on_note=notes.append)
    for split in ("train", "val", "test"):
        assert torch.equal(source.split(split).images, cached.split(split).images)
    assert source.digest == cached.digest
    assert len([note for note in notes if "not cached" in note]) == 1


def test_what_does_not_fit_in_memory_is_the_same(kaggle, monkeypatch):
    options = DataOptions(classes=("happy", "angry"))
    in_memory = open_data(str(kaggle), options)
    parts = {split: in_memory.split(split) for split in ("train", "val", "test")}
    subset = parts["train"].balanced_subset(11, seed=1)
    monkeypatch.setattr(storage, "IN_MEMORY", 64)
    monkeypatch.setattr(storage, "PIECE", 128)
    in_files = open_data(str(kaggle), options)
    for split, part in parts.items():
        assert torch.equal(in_files.split(split).images, part.images)
        assert torch.equal(in_files.split(split).labels, part.labels)
    assert torch.equal(in_files.split("train").balanced_subset(11, seed=1).images, subset.images)


@pytest.fixture
def ferplus(write_fer2013, tmp_path):
    """Faces of every FER+ expression for training.

    Three to check: certain, torn, and not a face.
    """
    votes = [np.eye(10, dtype=int)[k] * 10 for k in range(8)]
    votes += [
        [0, 6, 4, 0, 0, 0, 0, 0, 0, 0],
        [0, 5, 0, 0, 0, 0, 0, 5, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 10],
    ]
    usages = ["Training"] * 8 + ["PublicTest"] * 3
    path = tmp_path / "votes.csv"
    header = (
        "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    )
    lines = [
        f"{usage},,{','.join(map(str, row))}" for usage, row in zip(usages, votes, strict=True)
    ]
    path.write_text("\n".join([header, *lines]) + "\n")
    return str(write_fer2013([(0, [k] * 16, usage) for k, usage in enumerate(usages)])), path


def test_votes_replace_the_labels_by_the_rule(ferplus):
    csv, votes = ferplus
    majority = open_data(csv, DataOptions(ferplus=votes))
    assert majority.split("train").classes == (*BASIC, "contempt")
    assert majority.split("train").class_counts().tolist() == [1] * 8
    assert (len(majority.split("val")), majority.split("val").soft_labels) == (1, None)
    soft = open_data(csv, DataOptions(ferplus=votes, ferplus_rule="soft")).split("val")
    torch.testing.assert_close(soft.targets()[0], torch.tensor([0, 0, 0, 0.6, 0, 0.4, 0, 0]))
    assert len(soft) == 2


def test_soft_labels_are_renormalised_over_the_models_classes(ferplus):
    csv, votes = ferplus
    options = DataOptions(ferplus=votes, ferplus_rule="soft", classes=("surprise", "happy"))
    targets = open_data(csv, options).split("val").targets()
    torch.testing.assert_close(targets, torch.tensor([[0.4, 0.6], [0.0, 1.0]]))


def test_votes_are_mixed_with_the_labels_of_training_images_alone(write_fer2013, ferplus, notes):
    _, votes = ferplus
    usages = ["Training"] * 8 + ["PublicTest"] * 3
    csv = str(write_fer2013([(k % 7, [k] * 16, usage) for k, usage in enumerate(usages)]))
    options = DataOptions(votes=votes, votes_weight=0.25)
    source = open_data(csv, options, on_note=notes.append)
    train = source.split("train")
    # angry by its label, neutral by all of its votes; the last one's votes are for contempt.
    assert (train.classes, train.labels.tolist()) == (BASIC, [0, 1, 2, 3, 4, 5, 6, 0])
    assert train.targets()[0].tolist() == [0.75, 0, 0, 0, 0, 0, 0.25]
    assert train.targets()[7].tolist() == [1, 0, 0, 0, 0, 0, 0]
    assert (len(source.split("val")), source.split("val").soft_labels) == (3, None)
    assert "they change those of 7 of 8" in notes[-1]
    groups = {"good": ("happy", "surprise"), "bad": ("angry", "sad"), "none": ("neutral",)}
    grouped = open_data(csv, DataOptions(votes=votes, groups=groups)).split("train")
    assert (grouped.labels.tolist(), grouped.targets()[0].tolist()) == (
        [1, 0, 1, 0, 2, 1],
        [0, 0.5, 0.5],
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.csv", "nowhere.csv: no such file"),
        ("synth:5", "synth:5``: COUNT"),
        ("synth:many", "synth:many``: COUNT"),
    ],
)
def test_a_source_that_is_not_there_is_an_error(source, message):
    with pytest.raises(FertoolError, match=message):
        open_data(source, DataOptions())


def test_an_unknown_layout_is_an_error_that_lists_the_known_ones(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(FertoolError, match="not a layout") as error:
            open_data(str(path), DataOptions())
        assert "fer2013.csv" in error.value.hint
    (tmp_path / "happy").mkdir()
    with pytest.raises(FertoolError, match="no images found"):
        open_data(str(tmp_path), DataOptions())


def test_a_format_that_does_not_fit_the_path_is_an_error(kaggle, write_fer2013):
    with pytest.raises(FertoolError, match=r"fer2013.csv: is a file"):
        open_data(str(write_fer2013()), DataOptions(format="folders"))
    with pytest.raises(FertoolError, match=r"fer2013.csv"):
        open_data(str(kaggle), DataOptions(format="fer2013"))


def test_votes_for_anything_but_the_csv_are_a_usage_error(kaggle, tmp_path):
    for name in ("ferplus", "votes"):
        with pytest.raises(UsageError, match=f"``{name}``"):
            open_data(str(kaggle), DataOptions(**{name: tmp_path / "votes.csv"}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "fer"}, "unknown ``format`` 'fer'"),
        ({"ferplus_rule": "most"}, "unknown ``ferplus_rule`` 'most'"),
        ({"size": 0}, "image size 0"),
        ({"channels": 2}, "2 channels"),
    ],
)
def test_bad_options_are_usage_errors(options, message):
    with pytest.raises(UsageError, match=message):
        DataOptions(**options)


def test_one_image_a_class_leaves_nothing_to_hold_out(tmp_path, write_image, notes):
    for level, name in enumerate(("happy", "sad")):
        write_image(tmp_path / name / "1.png", level=level)
    source = open_data(str(tmp_path), DataOptions(), on_note=notes.append)
    assert (len(source.raw("train")), len(source.raw("val"))) == (2, 0)
    assert any("too few images" in note for note in notes)
    with pytest.raises(
        FertoolError, match="no images in the split 'val', and too few training images"
    ):
        source.split("val")


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(levels=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), min_size=1, max_size=12))
def test_sets_of_a_few_images_are_looked_at_whatever_their_classes_and_copies(
    write_fer2013, levels
):
    path = write_fer2013([(label, [level] * 4, "Training") for label, level in levels])
    info = inspect_source(open_data(str(path), DataOptions()))
    assert info.images == len(levels)
    assert sum(sum(counts.values()) for counts in info.counts.values()) == len(levels)


def test_an_empty_split_folder_is_told(kaggle, notes):
    (kaggle / "val" / "happy").mkdir(parents=True)
    source = open_data(str(kaggle), DataOptions(), on_note=notes.append)
    assert notes == [f"{kaggle}: the split 'val' has no images"]
    assert len(source.raw("val")) == 6


def test_folders_beside_the_splits_are_named_in_a_note(kaggle, write_image, notes):
    write_image(kaggle / "vaild" / "happy" / "1.png")
    write_image(kaggle / "sad" / "1.png")
    open_data(str(kaggle), DataOptions(), on_note=notes.append)
    assert any("vaild (1 images)" in note for note in notes)
    assert any("sad (1 images)" in note for note in notes)


def test_folders_of_any_names_are_classes(tmp_path, write_image, notes):
    for name in ("bored", "engaged", "calm"):
        for k in range(20):
            write_image(tmp_path / "mine" / name / f"{k}.png", level=10 * k + len(name))
    source = open_data(str(tmp_path), DataOptions(), on_note=notes.append)
    assert source.classes == ("bored", "calm", "engaged")
    assert source.split("val").class_counts().tolist() == [2, 2, 2]
    assert source.split("train").class_counts().tolist() == [18, 18, 18]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ((), r"there are no images in \S*faces$"),
        (("a/notes.txt", "b/list.csv"), r"no images in the folders of \S*faces \(a, b\)"),
        (("1.png", "2.png"), r"2 images lie directly in \S*faces; .* a folder for each class"),
        (("train/1.png",), r"1 images lie directly in \S*train"),
        (("bored/1.png", "empty/notes.txt"), r"only one folder inside has images \(bored\)"),
        (("1/a.png", "2/a.png"), r"\(1, 2\) are numbers"),
    ],
)
def test_a_folder_that_cannot_be_read_is_named_with_the_reason(
    tmp_path, write_image, files, reason
):
    (tmp_path / "faces").mkdir()
    for place in files:
        path = tmp_path / "faces" / place
        if path.suffix == ".png":
            write_image(path)
        else:
            path.parent.mkdir()
            path.write_text("hello")
    with pytest.raises(FertoolError, match=f"not a layout that fertool knows: .*{reason}"):
        open_data(str(tmp_path / "faces"), DataOptions())


def test_a_folder_that_may_not_be_listed_is_named(tmp_path, write_image, monkeypatch):
    write_image(tmp_path / "bored" / "1.png")

    def forbid(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", forbid)
    with pytest.raises(FertoolError, match=f"{tmp_path}: Permission denied"):
        open_data(str(tmp_path), DataOptions())


def test_wrapper_folders_are_looked_into(tmp_path, kaggle, write_fer2013):
    (tmp_path / "a" / "b").mkdir(parents=True)
    kaggle.rename(tmp_path / "a" / "b" / "faces")
    wrapped = open_data(str(tmp_path / "a"), DataOptions())
    assert wrapped.digest == open_data(str(tmp_path / "a" / "b" / "faces"), DataOptions()).digest
    (tmp_path / "a" / "b" / "faces" / "train").rename(tmp_path / "e")
    (tmp_path / "f" / "g").mkdir(parents=True)
    (tmp_path / "e").rename(tmp_path / "f" / "g" / "classes")
    wrapped = open_data(str(tmp_path / "f"), DataOptions())
    assert wrapped.digest == open_data(str(tmp_path / "f" / "g" / "classes"), DataOptions()).digest
    (tmp_path / "c" / "d").mkdir(parents=True)
    write_fer2013().rename(tmp_path / "c" / "d" / "FER2013.CSV")
    for options in (DataOptions(), DataOptions(format="fer2013")):
        assert len(open_data(str(tmp_path / "c"), options).split("val")) == 14


NAMES = [
    b"\xe9\xa0.png",
    "é.PNG".encode(),
    b"a b\n.png",
    b"x" * 244 + b".png",
    b"[red].png",
    b"-.png",
]


@pytest.mark.parametrize("name", NAMES)
def test_files_of_any_name_are_read_like_others(kaggle, name):
    plain = open_data(str(kaggle), DataOptions()).split("test")
    os.rename(
        kaggle / "test" / "happy" / "0.png", os.fsencode(kaggle / "test" / "happy") + b"/" + name
    )
    named = open_data(str(kaggle), DataOptions()).split("test")
    assert sorted(named.images[:, 0, 0, 0].tolist()) == sorted(plain.images[:, 0, 0, 0].tolist())
    assert named.digest != plain.digest


def test_the_root_may_have_a_name_that_is_not_utf8(kaggle, tmp_path):
    digest = open_data(str(kaggle), DataOptions()).digest
    os.rename(kaggle, os.fsencode(tmp_path) + b"/\xff\xfe")
    assert (
        open_data(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe"), DataOptions()).digest == digest
    )


def test_the_digest_of_names_in_utf8_is_what_it_always_was(tmp_path):
    (tmp_path / "train" / "happy").mkdir(parents=True)
    for name in ("a.pgm", "é.pgm"):
        (tmp_path / "train" / "happy" / name).write_bytes(b"P5 2 2 255\n\1\2\3\4")
    assert open_data(str(tmp_path), DataOptions()).digest.startswith("9fb635dadc6fd02e")


@pytest.mark.parametrize("kind", ["device", "fifo", "folder link", "nowhere", "itself"])
def test_an_image_that_is_no_regular_file_is_named_and_never_read(kaggle, kind):
    path = kaggle / "train" / "happy" / "x.png"
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(
            {
                "device": "/dev/zero",
                "folder link": "/dev",
                "nowhere": "gone.png",
                "itself": "x.png",
            }[kind]
        )
    if kind == "folder link":
        assert len(open_data(str(kaggle), DataOptions()).raw("test")) == 6
        return
    with pytest.raises(FertoolError, match=r"x\.png: ") as error:
        open_data(str(kaggle), DataOptions()).split("test")
    assert error.value.hint


@pytest.mark.parametrize("format", [None, "fer2013", "folders", "raf-db", "affectnet"])
@pytest.mark.parametrize("kind", ["device", "fifo", "text", "folder", "long name", "zero byte"])
def test_anything_else_as_data_is_one_error(tmp_path, format, kind):
    path = tmp_path / "data"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "text":
        path.write_text("hello")
    elif kind == "folder":
        path.mkdir()
    else:
        path = {"device": "/dev/zero", "long name": "x" * 5000, "zero byte": "a\0b"}[kind]
    with pytest.raises(FertoolError) as error:
        open_data(str(path), DataOptions(format=format))
    assert error.value.hint


def test_two_folders_of_one_state_are_two_data_sets(tmp_path, monkeypatch):
    """As on a read-only medium, where every file has the date of the medium."""
    for root, shade in (("a", 1), ("b", 100)):
        (tmp_path / root / "happy").mkdir(parents=True)
        (tmp_path / root / "happy" / "1.pgm").write_bytes(b"P5 2 2 255\n" + bytes([shade] * 4))

    def frozen(path):
        real = list(Path.stat(path))
        real[7:10] = [1, 1, 1]
        extra = dict.fromkeys(("st_atime_ns", "st_mtime_ns", "st_ctime_ns"), 1)
        return os.stat_result(real, extra)

    monkeypatch.setattr(image_tree, "file_state", frozen)
    digests = [open_data(str(tmp_path / root), DataOptions()).digest for root in ("a", "b")]
    assert digests[0] != digests[1]


@pytest.mark.parametrize("second", ["Happiness", " joy", "happy"])
def test_two_names_of_one_class_are_refused(second):
    with pytest.raises(UsageError, match="two of the model's classes mean 'happy'"):
        DataOptions(classes=("happy", "sad", second))


ANOTHER = """
import hashlib

import numpy as np

from fertool.data.data_format import DataFormat
from fertool.data.reader import NO_FINDINGS, RawSplit


class Member(DataFormat):
    \"\"\"A file of pixels behind the word FACES, three classes in turn.\"\"\"

    def has_layout(self, path):
        return path.is_file() and path.read_bytes().startswith(b"FACES")

    def open(self, source, options, on_note):
        return Pixels(source)


class Pixels:
    name, splits, classes, findings = "pixels", ("train",), ("angry", "happy", "sad"), NO_FINDINGS

    def __init__(self, path):
        self.content = open(path, "rb").read()
        self.digest = hashlib.sha256(self.content).hexdigest()

    def read(self, split):
        images = np.frombuffer(self.content[5:], np.uint8).reshape(-1, 1, 2, 2)
        return RawSplit(images, np.arange(len(images)) % 3, self.classes)
"""


def test_a_format_of_another_package_is_detected_and_read(install, tmp_path):
    install("fertool.readers", "pixels", ANOTHER)
    path = tmp_path / "faces.bin"
    path.write_bytes(b"FACES" + bytes(range(240)))
    for options in (DataOptions(), DataOptions(format="pixels")):
        source = open_data(str(path), options)
        images = source.split("train").images
        assert len(images) + len(source.split("val").images) == 60
        assert images[0].flatten().tolist() in [list(range(4 * k, 4 * k + 4)) for k in range(60)]


def test_a_package_that_does_not_load_is_no_hindrance_to_other_formats(kaggle, install):
    install("fertool.readers", "pixels", "import a_package_that_is_not_there")
    assert open_data(str(kaggle), DataOptions()).splits == ("train", "val", "test")


def test_classes_are_merged_in_the_order_asked_for_and_others_left_out(write_fer2013, notes):
    groups = parse_classes("other=anger+fear, Happiness")
    options = DataOptions(groups=groups)
    source = open_data(str(write_fer2013()), options, on_note=notes.append)
    assert source.classes == ("other", "Happiness")
    assert source.split("val").class_counts().tolist() == [4, 2]
    assert notes == [
        "fer2013.csv: 8 val images are left out, of classes that ``classes`` does not name"
    ]
    swapped = DataOptions(groups=groups, classes=("Happiness", "other"))
    assert open_data(str(write_fer2013()), swapped).split("val").class_counts().tolist() == [2, 4]
    with pytest.raises(UsageError, match="unknown class in ``classes`` 'hapy'") as error:
        open_data(str(write_fer2013()), DataOptions(groups=parse_classes("hapy,sad"))).split("val")
    assert "did you mean 'happy'" in error.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("happy", "one class"),
        ("", "an empty name"),
        ("a,,b", "an empty name"),
        ("a,b=", "an empty name"),
        ("a,a", "'a' twice"),
        ("a,b=a+c", "'a' twice"),
        ("a=x,a=y", "'a' twice"),
    ],
)
def test_classes_that_make_no_sense_are_refused(text, message):
    with pytest.raises(UsageError, match=message):
        DataConfig(classes=text)


def test_soft_labels_of_merged_classes_are_added_up():
    soft = np.array([[0.4, 0.3, 0.3, 0], [0.5, 0.5, 0, 0], [0, 0, 0.25, 0.75]], np.float32)
    pixels = np.zeros((3, 1, 2, 2), np.uint8)
    faces = RawSplit(pixels, np.array([0, 0, 3]), ("a", "b", "c", "d"), soft_labels=soft)
    found = relabel(faces, {"a": "a", "b": "other", "c": "other"}, ("a", "other"))
    assert found.labels.tolist() == [1, 0]
    assert np.allclose(found.soft_labels, [[0.4, 0.6], [0.5, 0.5]])


def test_a_test_split_is_held_out_when_asked_for_by_a_seed_that_is_told(
    tmp_path, write_image, notes
):
    for name in ("bored", "engaged"):
        for k in range(40):
            write_image(tmp_path / name / f"{k}.png", level=2 * k + (name == "bored"))

    def levels(split, **options):
        source = open_data(str(tmp_path), DataOptions(**options), on_note=notes.append)
        assert source.splits == ("train", "val", "test")
        return set(source.split(split).images[:, 0, 4, 4].tolist())

    options = {"test_fraction": 0.25, "split_seed": 3}
    train, val, test = (levels(split, **options) for split in ("train", "val", "test"))
    assert [len(train), len(val), len(test)] == [54, 6, 20]
    assert len(train | val | test) == 80
    assert any("no test split; 20 of 80" in note and "``split_seed=3``" in note for note in notes)
    assert levels("test", test_fraction=0.25, split_seed=4) != test
    assert levels("test", **options) == test


def test_training_on_a_single_class_is_an_error_but_looking_is_not(tmp_path, write_image):
    for k in range(5):
        write_image(tmp_path / "train" / "bored" / f"{k}.png", level=k)
    source = open_data(str(tmp_path), DataOptions())
    assert inspect_source(source).classes == ("bored",)
    with pytest.raises(FertoolError, match="all images are of one class, bored"):
        source.split("train")
