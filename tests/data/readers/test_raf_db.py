import pytest

from fertool.data import DataOptions, open_data
from fertool.errors import FertoolError

ORDER = ("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral")


@pytest.fixture
def rafdb(tmp_path, write_image):
    rows = [
        (f"{split}_{k:05}.jpg", k % 7 + 1)
        for split, count in (("train", 140), ("test", 7))
        for k in range(count)
    ]
    for k, (name, _) in enumerate(rows):
        write_image(tmp_path / "Image" / "aligned" / name.replace(".jpg", "_aligned.jpg"), level=k)
    labels = tmp_path / "EmoLabel" / "list_patition_label.txt"
    labels.parent.mkdir()
    labels.write_text("".join(f"{name} {label}\n" for name, label in rows))
    return tmp_path


def test_labels_count_from_one_in_the_order_of_rafdb(rafdb, notes):
    source = open_data(str(rafdb), DataOptions(), on_note=notes.append)
    test = source.split("test")
    assert [test.classes[k] for k in test.labels] == list(ORDER)
    assert test.images[:, 0, 4, 4].tolist() == list(range(140, 147))


def test_validation_is_held_out_of_training(rafdb, notes):
    source = open_data(str(rafdb), DataOptions(), on_note=notes.append)
    assert (len(source.split("train")), len(source.split("val"))) == (126, 14)
    assert source.split("val").class_counts().tolist() == [2] * 7
    assert "14 of 140" in notes[0]


@pytest.mark.parametrize(
    "row", ["train_00001.jpg 8", "train_00001.jpg 0", "valid_1.jpg 3", "train_00001.jpg", "x"]
)
def test_a_bad_line_is_named(rafdb, row):
    labels = rafdb / "EmoLabel" / "list_patition_label.txt"
    labels.write_text(f"train_00001.jpg 5\n{row}\n")
    with pytest.raises(FertoolError, match=r"list_patition_label.txt:2: "):
        open_data(str(rafdb), DataOptions())


def test_numbered_folders_are_read_when_the_format_is_named(tmp_path, write_image):
    for k in range(7):
        write_image(tmp_path / "train" / str(k + 1) / "a.png", level=k)
        write_image(tmp_path / "valid" / str(k + 1) / "a.png", level=k)
    with pytest.raises(FertoolError, match=r"numbers, which stand for other classes") as error:
        open_data(str(tmp_path), DataOptions())
    assert "``format``" in error.value.hint
    data = open_data(str(tmp_path), DataOptions(format="raf-db")).split("val")
    assert [data.classes[k] for k in data.labels] == list(ORDER)


BAD_ROWS = ["train_/../../a.jpg 3", "train_\0.jpg 3", f"train_{'x' * 2000}.jpg 3", "x" * 6_000_000]


@pytest.mark.parametrize("row", BAD_ROWS)
def test_a_name_that_leads_out_or_a_huge_line_is_named(rafdb, row):
    (rafdb / "EmoLabel" / "list_patition_label.txt").write_text(f"train_00001.jpg 5\n{row}\n")
    with pytest.raises(FertoolError, match=r"list_patition_label\.txt:2: ") as error:
        open_data(str(rafdb), DataOptions())
    assert len(error.value.message) < 400


def test_the_release_may_lie_in_a_wrapper(rafdb):
    digest = open_data(str(rafdb), DataOptions()).digest
    wrapper = rafdb.parent / "wrapper"
    wrapper.mkdir()
    rafdb.rename(wrapper / "basic")
    for options in (DataOptions(), DataOptions(format="raf-db")):
        assert open_data(str(wrapper), options).digest == digest


@pytest.mark.parametrize("blank", ["\t", "  ", " \t "])
def test_any_blanks_part_a_name_from_its_label(rafdb, blank):
    labels = rafdb / "EmoLabel" / "list_patition_label.txt"
    before = open_data(str(rafdb), DataOptions()).split("test").labels
    labels.write_text(labels.read_text().replace(" ", blank))
    assert open_data(str(rafdb), DataOptions()).split("test").labels.equal(before)
