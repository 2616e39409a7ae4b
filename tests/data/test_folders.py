import pytest
from hypothesis import given
from hypothesis import strategies as st

from fertool.data.folders import (
    SkippedFiles,
    find_file,
    is_expression_tree,
    list_class_folders,
    list_numbered_folders,
    unwrap_folders,
)
from fertool.data.labels import MOST_CLASSES
from fertool.data.split_names import split_of
from fertool.errors import FertoolError


def test_split_and_class_folders_become_splits_and_names(write_image, tmp_path):
    for place in (
        "train/anger/1.png",
        "train/happiness/2.png",
        "Test/surprised/3.png",
        "__MACOSX/odd/4.png",
    ):
        write_image(tmp_path / place)
    classes, listing = list_class_folders(tmp_path)
    assert classes == ("angry", "happy", "surprise")
    assert {split: [(e.path.name, e.label) for e in part] for split, part in listing.items()} == {
        "train": [("1.png", "angry"), ("2.png", "happy")],
        "test": [("3.png", "surprise")],
    }


def test_class_folders_alone_are_for_training(write_image, tmp_path):
    write_image(tmp_path / "contempt" / "1.png")
    assert list_class_folders(tmp_path)[1].keys() == {"train"}


def test_other_names_than_expressions_are_classes_as_they_stand(write_image, tmp_path):
    for place in (
        "train/calm/1.png",
        "train/Bored/1.png",
        "val/anger/1.png",
        "test/v1.5 (é)/1.png",
    ):
        write_image(tmp_path / place)
    classes, listing = list_class_folders(tmp_path)
    assert classes == ("Bored", "anger", "calm", "v1.5 (é)")
    assert [entry.label for entry in listing["train"]] == ["Bored", "calm"]


def test_names_that_differ_in_case_only_are_an_error_unless_they_are_expressions(
    write_image, tmp_path
):
    write_image(tmp_path / "train" / "Happy" / "1.png")
    write_image(tmp_path / "train" / "happy" / "1.png")
    assert list_class_folders(tmp_path)[0] == ("happy",)
    write_image(tmp_path / "mine" / "train" / "Bored" / "1.png")
    write_image(tmp_path / "mine" / "val" / "bored" / "1.png")
    with pytest.raises(FertoolError, match="val/bored: the classes 'Bored' and 'bored' differ"):
        list_class_folders(tmp_path / "mine")


def test_thousands_of_folders_are_refused_with_words(tmp_path):
    for number in range(MOST_CLASSES + 1):
        (tmp_path / f"person {number}").mkdir()
    with pytest.raises(FertoolError, match=r"1,001 classes, the first is 'person 0'") as error:
        list_class_folders(tmp_path)
    assert "persons" in error.value.hint


def test_the_only_class_of_a_split_is_no_wrapper_around_others(write_image, tmp_path):
    for place in ("train/a/x/1.png", "train/b/1.png", "val/b/x/1.png", "test/test/b/1.png"):
        write_image(tmp_path / place)
    classes, listing = list_class_folders(tmp_path)
    assert classes == ("a", "b")
    assert [entry.label for entry in listing["val"] + listing["test"]] == ["b", "b"]


def test_two_folders_for_one_split_are_an_error(write_image, tmp_path):
    write_image(tmp_path / "val" / "happy" / "1.png")
    write_image(tmp_path / "valid" / "happy" / "1.png")
    with pytest.raises(FertoolError, match="both val and valid"):
        list_class_folders(tmp_path)


def test_numbers_count_from_the_first_one(write_image, tmp_path):
    for place in ("1/a.png", "2/b.png", "3/c.png"):
        write_image(tmp_path / place)
    listing = list_numbered_folders(tmp_path, ("sad", "fear"), first=1, ignored=1)
    assert [(e.path.name, e.label) for e in listing["train"]] == [
        ("a.png", "sad"),
        ("b.png", "fear"),
    ]
    with pytest.raises(FertoolError, match="3: not a class folder"):
        list_numbered_folders(tmp_path, ("sad", "fear"), first=1)
    assert not is_expression_tree(tmp_path)


SPELLINGS = {
    "train": [
        "train",
        "Training",
        "train_set",
        "train-set",
        "TRAIN SET",
        "training_data",
        "FER2013Train",
    ],
    "val": [
        "val",
        "valid",
        "Validation",
        "val_set",
        "dev",
        "Dev-Set",
        "eval",
        "PublicTest",
        "public_test",
        "FER2013Valid",
    ],
    "test": ["test", "Testing", "test set", "PrivateTest", "private-test", "test_images"],
}


@pytest.mark.parametrize(
    ("split", "name"), [(split, name) for split, names in SPELLINGS.items() for name in names]
)
def test_a_split_is_known_by_its_usual_names(write_image, tmp_path, split, name):
    write_image(tmp_path / name / "happy" / "1.png")
    assert [entry.path.name for entry in list_class_folders(tmp_path)[1][split]] == ["1.png"]


@pytest.mark.parametrize(
    "name", ["trains", "vaild", "tests1", "images", "happy", "", "set", "ainset"]
)
def test_no_other_name_is_a_split(name):
    assert split_of(name) is None


@given(st.text(max_size=20))
def test_any_name_is_a_split_or_none(name):
    assert split_of(name) in (None, *SPELLINGS)


def test_what_lies_beside_the_splits_is_counted(write_image, tmp_path):
    for place in (
        "train/happy/1.png",
        "vaild/happy/1.png",
        "vaild/sad/2.png",
        "happy/3.png",
        "4.png",
        "train/5.png",
    ):
        write_image(tmp_path / place)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "read.me").write_text("hello")
    skipped = SkippedFiles()
    assert len(list_class_folders(tmp_path, skipped)[1]["train"]) == 1
    assert skipped.folders == {"vaild": 2, "happy": 1, "*": 1, "train/*": 1, "docs": 0}


def test_files_that_are_no_images_are_counted_by_suffix(write_image, tmp_path):
    write_image(tmp_path / "train" / "happy" / "1.png")
    for name in ("a.txt", "b.TXT", "c.psd", "d", ".DS_Store", "._1.png"):
        (tmp_path / "train" / "happy" / name).write_text("x")
    (tmp_path / "train" / "readme.txt").write_text("x")
    skipped = SkippedFiles()
    list_class_folders(tmp_path, skipped)
    assert skipped.not_images == {".txt": 3, ".psd": 1, "no suffix": 1, "hidden": 2}


@pytest.mark.parametrize(
    "suffix", ["jfif", "jpe", "JPEG", "tif", "TIFF", "Png", "pgm", "pnm", "bmp", "gif"]
)
def test_images_are_known_by_any_usual_suffix(tmp_path, suffix):
    (tmp_path / "happy").mkdir()
    (tmp_path / "happy" / f"a.{suffix}").write_bytes(b"")
    assert len(list_class_folders(tmp_path)[1]["train"]) == 1


def test_images_at_any_depth_belong_to_their_class(write_image, tmp_path):
    for place in ("train/happy/a/b/1.png", "train/happy/2.png", "train/happy/a/3.png"):
        write_image(tmp_path / place)
    found = {entry.path.name for entry in list_class_folders(tmp_path)[1]["train"]}
    assert found == {"1.png", "2.png", "3.png"}


def test_splits_inside_of_class_folders_are_splits(write_image, tmp_path):
    for place in ("happy/train/1.png", "happy/test/2.png", "happy/3.png", "sad/Validation/x/4.png"):
        write_image(tmp_path / place)
    listing = list_class_folders(tmp_path)[1]
    assert {split: sorted(e.path.name for e in part) for split, part in listing.items()} == {
        "train": ["1.png", "3.png"],
        "test": ["2.png"],
        "val": ["4.png"],
    }


def test_empty_class_folders_are_classes(write_image, tmp_path):
    write_image(tmp_path / "train" / "happy" / "1.png")
    (tmp_path / "train" / "sad").mkdir()
    assert list_class_folders(tmp_path)[0] == ("happy", "sad")


def test_links_that_lead_in_circles_are_followed_once(write_image, tmp_path):
    write_image(tmp_path / "train" / "happy" / "1.png")
    (tmp_path / "train" / "happy" / "up").symlink_to(tmp_path / "train")
    (tmp_path / "train" / "happy" / "here").symlink_to(".")
    (tmp_path / "train" / "happy" / "self").symlink_to("self")
    names = [entry.path.name for entry in list_class_folders(tmp_path)[1]["train"]]
    assert names.count("1.png") == 1


def test_a_wrapper_around_classes_or_splits_is_looked_into(write_image, tmp_path):
    write_image(tmp_path / "archive" / "images" / "train" / "train" / "happy" / "1.png")
    assert [folder.name for folder in unwrap_folders(tmp_path)][1:3] == ["archive", "images"]
    assert len(list_class_folders(tmp_path / "archive" / "images")[1]["train"]) == 1


def test_wrappers_that_lead_in_circles_end(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path)
    assert len(list(unwrap_folders(tmp_path))) < 20


def test_a_file_is_found_whatever_the_case_of_its_name(tmp_path):
    (tmp_path / "FER2013.CSV").write_text("x")
    assert find_file(tmp_path, "fer2013.csv") == tmp_path / "FER2013.CSV"
    (tmp_path / "fer2013.csv").write_text("x")
    assert find_file(tmp_path, "fer2013.csv") == tmp_path / "fer2013.csv"
    assert find_file(tmp_path / "nowhere", "fer2013.csv") is None


@pytest.mark.parametrize(
    "form", ["fer2013_{}", "{}_2019", "FERPlus-{}", "RAF-DB {} set", "CK+_{}", "data_{}"]
)
def test_a_data_set_or_a_year_beside_a_split_hides_none(form):
    names = {"train": "train", "validation": "val", "Test": "test", "dev": "val"}
    assert {name: split_of(form.format(name)) for name in names} == names


@pytest.mark.parametrize(
    "name", ["train1", "untrained", "holdout", "fer2013", "2019", "evaluations", "contest"]
)
def test_a_name_with_more_than_that_beside_a_split_is_none(name):
    assert split_of(name) is None
