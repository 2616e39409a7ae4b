import pytest

from fertool.data.folders import is_class_tree, list_class_folders, list_numbered_folders
from fertool.errors import FertoolError


def test_split_and_class_folders_become_splits_and_names(write_image, tmp_path):
    for place in ("train/anger/1.png", "train/happiness/2.png", "Test/surprised/3.png", "__MACOSX/odd/4.png"):
        write_image(tmp_path / place)
    classes, listing = list_class_folders(tmp_path)
    assert classes == ("angry", "happy", "surprise")
    assert {split: [(e.path.name, e.expression) for e in part] for split, part in listing.items()} == {
        "train": [("1.png", "angry"), ("2.png", "happy")],
        "test": [("3.png", "surprise")],
    }


def test_class_folders_alone_are_for_training(write_image, tmp_path):
    write_image(tmp_path / "contempt" / "1.png")
    assert list_class_folders(tmp_path)[1].keys() == {"train"}


def test_an_unknown_class_folder_is_an_error_that_names_it(write_image, tmp_path):
    write_image(tmp_path / "train" / "happy" / "1.png")
    write_image(tmp_path / "train" / "bored" / "1.png")
    with pytest.raises(FertoolError, match="train/bored: 'bored'"):
        list_class_folders(tmp_path)


def test_two_folders_for_one_split_are_an_error(write_image, tmp_path):
    write_image(tmp_path / "val" / "happy" / "1.png")
    write_image(tmp_path / "valid" / "happy" / "1.png")
    with pytest.raises(FertoolError, match="both val and valid"):
        list_class_folders(tmp_path)


def test_numbers_count_from_the_first_one(write_image, tmp_path):
    for place in ("1/a.png", "2/b.png", "3/c.png"):
        write_image(tmp_path / place)
    listing = list_numbered_folders(tmp_path, ("sad", "fear"), first=1, ignored=1)
    assert [(e.path.name, e.expression) for e in listing["train"]] == [("a.png", "sad"), ("b.png", "fear")]
    with pytest.raises(FertoolError, match="3: not a class folder"):
        list_numbered_folders(tmp_path, ("sad", "fear"), first=1)
    assert not is_class_tree(tmp_path)
