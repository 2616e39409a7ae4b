import numpy as np
import pytest
from PIL import Image, ImageEnhance

import fertool
from fertool.data.near_duplicates import near_duplicate_pairs, perceptual_hashes


def photo(seed, side=120):
    """A colored picture of smooth patches."""
    patches = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize((side, side), Image.Resampling.BICUBIC)


@pytest.fixture
def messy(tmp_path):
    """Two classes in two splits, with one of each problem."""
    for split, first in (("train", 0), ("val", 100)):
        for k, name in enumerate(["bored", "engaged"]):
            (tmp_path / split / name).mkdir(parents=True)
            for seed in range(first + 20 * k, first + 20 * k + 12):
                photo(seed).save(tmp_path / split / name / f"{seed}.png")
    train = tmp_path / "train" / "bored"
    photo(1).save(train / "same.png")
    photo(2).save(tmp_path / "train" / "engaged" / "other label.png")
    photo(3).save(tmp_path / "val" / "bored" / "leak.png")
    photo(4).resize((90, 90)).save(train / "smaller.jpg", quality=80)
    ImageEnhance.Brightness(photo(5)).enhance(0.8).save(tmp_path / "val" / "bored" / "darker.png")
    photo(20, 200).resize((120, 120)).save(train / "near other label.png")
    Image.new("L", (120, 120), 7).save(train / "black.png")
    photo(60).resize((40, 40)).save(train / "tiny.png")
    photo(61).resize((300, 120)).save(train / "wide.png")
    photo(62).convert("CMYK").save(train / "cmyk.jpg")
    (train / "bad.png").write_text("hello")
    (train / "Thumbs.db").write_text("hello")
    return tmp_path


def test_all_problems_of_a_folder_are_in_one_list(messy):
    info = fertool.inspect_data(fertool.open_data(messy))
    found = {problem.kind: problem.groups for problem in info.problems}
    assert found == {
        "unreadable": (("train/bored/bad.png", "not a readable image"),),
        "duplicates_across_splits": (("train/bored/3.png", "val/bored/leak.png"),),
        "conflicting_labels": (("train/bored/2.png", "train/engaged/other label.png"),),
        "duplicates": (("train/bored/1.png", "train/bored/same.png"),),
        "near_duplicates_across_splits": (("train/bored/5.png", "val/bored/darker.png"),),
        "near_duplicates_with_other_labels": (
            ("train/bored/near other label.png", "train/engaged/20.png"),
        ),
        "near_duplicates": (("train/bored/4.png", "train/bored/smaller.jpg"),),
        "constant": (("train/bored/black.png",),),
        "odd_size": (("train/bored/tiny.png", "40x40"), ("train/bored/wide.png", "300x120")),
        "converted": (("CMYK", "1"),),
        "not_images": ((".db", "1"),),
    }


def test_a_clean_folder_has_no_problems(tmp_path, capsys):
    for k, name in enumerate(["bored", "engaged"]):
        (tmp_path / name).mkdir()
        for seed in range(20 * k, 20 * k + 15):
            photo(seed).save(tmp_path / name / f"{seed}.png")
    assert fertool.inspect_data(fertool.open_data(tmp_path)).problems == ()


def test_hashes_stand_small_changes_and_tell_images_apart():
    pictures = [photo(seed) for seed in range(30)]
    pictures += [photo(seed).resize((64, 64)).resize((120, 120)) for seed in range(10)]
    images = np.stack([np.asarray(picture).transpose(2, 0, 1) for picture in pictures])
    pairs = near_duplicate_pairs(*perceptual_hashes(images))
    assert pairs.tolist() == [[seed, 30 + seed] for seed in range(10)]
    assert near_duplicate_pairs(*perceptual_hashes(images[:0])).shape == (0, 2)
