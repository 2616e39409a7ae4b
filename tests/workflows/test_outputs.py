"""The names of files that a command is not told."""

from pathlib import Path

import pytest

from fertool.errors import FertoolError
from fertool.workflows.outputs import default_output


@pytest.mark.parametrize(
    ("model", "stage", "suffix", "expected"),
    [
        ("models/student.pt", "pruned", ".pt", "models/student.pruned.pt"),
        ("models/student.int8.pt", "", ".onnx", "models/student.int8.onnx"),
        ("student.pt", "", "-app", "student-app"),
        ("student", "", ".html", "student.html"),
    ],
)
def test_name_follows_the_model(model, stage, suffix, expected):
    assert default_output(Path(model), stage, suffix) == Path(expected)


def test_folder_without_a_name_is_no_model():
    with pytest.raises(FertoolError, match="is a folder"):
        default_output(Path("."), "pruned")
