import csv
import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fertool.data import DataOptions, open_data
from fertool.data.label_list import find_list_form, list_labeled_images
from fertool.errors import FertoolError


def listed(path):
    """The rows of a list as (split, path within the folder, label, box), sorted."""
    _, listing = list_labeled_images(path)
    rows = []
    for split, entries in listing.items():
        for entry in entries:
            name = entry.path.relative_to(path.parent).as_posix()
            rows.append((split, name, entry.label, entry.box))
    return sorted(rows, key=str)


FORMS = {
    "header": "path,label\na/1.png,bored\na/2.png,engaged\n",
    "no header": "a/1.png,bored\na/2.png,engaged\n",
    "label first": "bored,a/1.png\nengaged,a/2.png\n",
    "semicolons": "Image;Class\na/1.png;bored\na/2.png;engaged\n",
    "tabs": "a/1.png\tbored\na/2.png\tengaged\n",
    "bars": "file name|emotion\na/1.png|bored\na/2.png|engaged\n",
    "spaces": "a/1.png bored\na/2.png engaged\n",
    "quoted": '"path", "label"\n"a/1.png", "bored"\n"a/2.png", "engaged"\n',
    "further columns": "id,age,img_path,Label,\n1,30,a/1.png,bored,\n2,,a/2.png,engaged,,\n",
    "blank lines": "\n\npath,label\n\na/1.png,bored\n  \na/2.png,engaged",
    "Windows": "path,label\r\na\\1.png,bored\r\n.\\a\\2.png,engaged\r\n",
    "old Mac": "path,label\ra/1.png,bored\ra/2.png,engaged\r",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("form", FORMS)
def test_a_list_is_read_in_whatever_form_people_write_it(tmp_path, form, encoding):
    path = tmp_path / "mine.csv"
    path.write_bytes(FORMS[form].encode(encoding))
    assert listed(path) == [
        ("train", "a/1.png", "bored", None),
        ("train", "a/2.png", "engaged", None),
    ]


def test_splits_and_boxes_are_read_with_and_without_a_header(tmp_path):
    expected = [("test", "b.jpg", "y", None), ("train", "a.jpg", "x", (1, 2, 11, 22))]
    rows = {
        "plain.csv": "a.jpg,x,train,1,2,10,20\nb.jpg,y,Test,,,,\n",
        "corners.csv": (
            "path,label,xmin,ymin,xmax,ymax,Set\na.jpg,x,1,2,11,22,training\nb.jpg,y,,,,,test\n"
        ),
        "commas.csv": (
            'path;label;split;x;y;w;h\na.jpg;x;Train;1,0;2,0;10,0;"20,0"\nb.jpg;y;test;;;;\n'
        ),
    }
    for name, text in rows.items():
        (tmp_path / name).write_text(text)
        assert listed(tmp_path / name) == expected


def test_an_absolute_path_counts_from_the_lists_folder(tmp_path):
    folder = tmp_path / "faces"
    folder.mkdir()
    path = folder / "mine.csv"
    path.write_text(f"C:\\Users\\me\\faces\\x\\1.png,bored\n{folder}/x/2.png,engaged\n")
    assert [row[1] for row in listed(path)] == ["x/1.png", "x/2.png"]
    path.write_text("C:\\Users\\me\\other\\1.png,bored\n")
    with pytest.raises(FertoolError, match=r"mine\.csv:1: .* is not inside") as error:
        listed(path)
    assert "list's folder" in error.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.png,x\nb.png\n", r":3: 1 fields, expected 2"),
        ("a.png,x,train\nb.png,y,odd\n", r":2: 'odd' is not a split"),
        ("a.png,x,1,2,3,4\nb.png,y,1,2,no,4\n", r":2: .*is not a box of four numbers"),
        ("a.png,x,1,2,3,4\nb.png,y,1,2,-3,4\n", r":2: a box from 1,2 to -2,6 lies in no photo"),
        ("a.png,x,1,2,3,4\nb.png,y,1,2,inf,4\n", r":2: .*is not a box"),
        ("path,label\n../a.png,x\n", r":2: '../a.png' is not the path of a file inside"),
        ("path,label\na.png,\n", r":2: '' cannot be the name of a class"),
        ("path,label\na.png,b\u00e9\n".encode("latin-1"), r":2: .*cannot be the name of a class"),
        ("a.png,x\n" * 30 + 'b.png,"x\n' + "y" * 200_000, r":31: not a readable row"),
        ("time,value\n1,2\n", r"its first lines are not paths and labels"),
        ("", r"its first lines are not paths and labels"),
    ],
)
def test_a_wrong_row_is_named_with_its_line(tmp_path, text, message):
    path = tmp_path / "mine.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FertoolError, match=message):
        list_labeled_images(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 9000, b"\x89PNG\r\n\x1a\n" + bytes(range(256)), b"x" * 100_000, b"a,b\n1,2\n"],
)
def test_what_is_no_list_has_no_form(tmp_path, content):
    (tmp_path / "mine.csv").write_bytes(content)
    assert find_list_form(tmp_path / "mine.csv") is None


NAME = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters="/\\:\"'|;,"),
    min_size=1,
    max_size=8,
)
FILE = st.builds("{} x/{}.{}".format, NAME, NAME, st.sampled_from(["png", "JPG", "v2.jpeg"]))
LABEL = st.sampled_from(["bored", "very engaged", "müde", "x.y"])
ROW = st.tuples(FILE, LABEL, st.sampled_from(["train", "Validation", "TEST"]))
ENCODING = st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])
QUOTING = st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL])


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    st.lists(ROW, min_size=1, max_size=8),
    st.sampled_from(",;\t|"),
    st.booleans(),
    QUOTING,
    ENCODING,
)
def test_any_names_come_back_as_they_were_written(
    tmp_path, rows, delimiter, has_header, quoting, encoding
):
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting)
    if has_header:
        writer.writerow(("Path", "Label", "Split"))
    writer.writerows(rows)
    (tmp_path / "mine.csv").write_bytes(text.getvalue().encode(encoding))
    splits = {"train": "train", "Validation": "val", "TEST": "test"}
    expected = [(splits[split], name, label, None) for name, label, split in rows]
    assert listed(tmp_path / "mine.csv") == sorted(expected, key=str)


def test_a_list_of_files_is_a_data_set_by_itself_and_in_a_folder(tmp_path, write_image):
    lines = ["path,label"]
    for name in ("bored", "engaged"):
        for k in range(20):
            write_image(tmp_path / "photos" / f"{name} {k}.png", level=10 * k + len(name))
            lines.append(f"photos\\{name} {k}.png,{name}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    source = open_data(str(tmp_path / "labels.csv"), DataOptions())
    assert source.classes == ("bored", "engaged")
    assert source.split("train").class_counts().tolist() == [18, 18]
    assert open_data(str(tmp_path), DataOptions()).digest == source.digest
    (tmp_path / "photos" / "bored 3.png").unlink()
    with pytest.raises(FertoolError, match=r"bored 3\.png: no such image"):
        open_data(str(tmp_path), DataOptions()).split("train")
