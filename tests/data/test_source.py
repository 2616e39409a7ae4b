import warnings

import numpy as np
import pytest
import torch

from fertool.data import DataOptions, open_data, storage
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
    assert open_data(str(path.parent), DataOptions()).digest == open_data(str(path), DataOptions()).digest


def test_labels_follow_the_models_order_by_name(kaggle):
    data = open_data(str(kaggle), DataOptions(classes=("neutral", "happy", "angry"))).split("test")
    by_name = {data.classes[k]: data.images[data.labels == k][:, 0, 4, 4].tolist() for k in range(3)}
    assert by_name == {"happy": [60, 61], "neutral": [62, 63], "angry": [64, 65]}
    assert data.class_counts().tolist() == [2, 2, 2]


def test_classes_that_the_model_lacks_are_dropped_with_a_note(kaggle, notes):
    data = open_data(str(kaggle), DataOptions(classes=("happy", "angry")), on_note=notes.append).split("test")
    assert (len(data), data.classes) == (4, ("happy", "angry"))
    assert notes == [f"{kaggle}: 2 test images of classes that the model lacks are left out"]


def test_no_image_of_the_models_classes_is_an_error(kaggle):
    with pytest.raises(FertoolError, match="no images in the split 'test' show fear, sad"):
        open_data(str(kaggle), DataOptions(classes=("fear", "sad"))).split("test")


def test_a_class_that_the_source_never_has_is_noted_only(kaggle, notes):
    source = open_data(str(kaggle), DataOptions(classes=("happy", "neutral", "angry", "sad")), on_note=notes.append)
    assert source.split("train").class_counts().tolist() == [18, 18, 18, 0]
    assert any("has no class sad" in note for note in notes)


def test_a_class_missing_in_training_is_an_error_that_names_it_and_the_file(write_fer2013):
    rows = [(k % 7, np.full(16, k), "Training") for k in range(28) if k % 7 != 1]
    source = open_data(str(write_fer2013([*rows, (1, np.zeros(16, int), "PublicTest")])), DataOptions())
    with pytest.raises(FertoolError, match=r"fer2013.csv: no training images of disgust") as error:
        source.split("train")
    assert error.value.hint
    assert len(source.split("val")) == 1


def test_an_empty_split_is_an_error_that_lists_the_others(write_fer2013):
    source = open_data(str(write_fer2013([(3, [k] * 4, "PublicTest") for k in range(3)])), DataOptions())
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
    rows += [(0, [3] * 16, "PublicTest"), (1, [99] * 16, "PublicTest"), (2, [13] * 16, "PublicTest")]
    source = open_data(str(write_fer2013(rows)), DataOptions())
    assert source.distinct_from("val", "train").tolist() == [False, True, False]


def test_images_come_from_the_cache_without_a_warning_and_stay_as_they_are(kaggle):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = open_data(str(kaggle), DataOptions()).split("test")
        assert not data.images.numpy().flags.owndata
        assert sorted(data.images[:, 0, 0, 0].tolist()) == [60, 61, 62, 63, 64, 65]


def test_a_cache_that_cannot_be_written_is_noted_once_and_changes_nothing(kaggle, notes, tmp_path, monkeypatch):
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
    """Faces of every FER+ expression for training; three to check: certain, torn, and not a face."""
    votes = [np.eye(10, dtype=int)[k] * 10 for k in range(8)]
    votes += [[0, 6, 4, 0, 0, 0, 0, 0, 0, 0], [0, 5, 0, 0, 0, 0, 0, 5, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0, 0, 10]]
    usages = ["Training"] * 8 + ["PublicTest"] * 3
    path = tmp_path / "votes.csv"
    header = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    lines = [f"{usage},,{','.join(map(str, row))}" for usage, row in zip(usages, votes, strict=True)]
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


@pytest.mark.parametrize(
    ("source", "message"),
    [("nowhere.csv", "nowhere.csv: no such file"), ("synth:5", "synth:5: COUNT"), ("synth:many", "synth:many: COUNT")],
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
    with pytest.raises(UsageError, match="--ferplus"):
        open_data(str(kaggle), DataOptions(ferplus=tmp_path / "votes.csv"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "fer"}, "unknown --format 'fer'"),
        ({"ferplus_rule": "most"}, "unknown --ferplus-rule 'most'"),
        ({"size": 0}, "image size 0"),
        ({"channels": 2}, "2 channels"),
    ],
)
def test_bad_options_are_usage_errors(options, message):
    with pytest.raises(UsageError, match=message):
        DataOptions(**options)
