"""`train`, `distill` and `record_logits` in Python, with the files of the commands."""

import json
import os

import pytest
import torch

from fertool.config.train_teacher import TrainTeacherConfig
from fertool.distillation.cached_logits import load_logits
from fertool.errors import FertoolError, UsageError
from fertool.workflows.data import open_data
from fertool.workflows.distill import distill
from fertool.workflows.model import load
from fertool.workflows.teacher_logits import record_logits
from fertool.workflows.train import train

DATA = "synth:140"
SMALL = {"arch": "micro_expnet", "arch_args": {"width_mult": 0.25}, "epochs": 1, "device": "cpu"}
FLAGS = ("--data", DATA, "--arch", "micro_expnet", "--arch-arg", "width_mult=0.25")
FLAGS += ("--epochs", 1, "--device", "cpu")


@pytest.fixture(scope="module")
def data():
    return open_data(DATA)


@pytest.fixture(scope="module")
def teacher(data):
    return train(data, **SMALL)


def succeed(fertool, *arguments):
    code, _, err = fertool(*arguments)
    assert code == 0, err


def test_training_gives_the_bytes_of_the_command(fertool, data, tmp_path):
    succeed(fertool, "train-teacher", *FLAGS, "--lr", 1, "-o", tmp_path / "a.pt")
    found = train(data, lr=1, output=tmp_path / "b.pt", **SMALL)
    assert (tmp_path / "b.pt").read_bytes() == (tmp_path / "a.pt").read_bytes()
    assert sorted(os.listdir(tmp_path)) == [
        *("a.pt", "a.pt.history.json", "b.pt", "b.pt.history.json"),
    ]
    written = json.loads((tmp_path / "b.pt.history.json").read_text())
    assert written == {"file": "b.pt", "history": [epoch.as_dict() for epoch in found.history]}
    summary = found.summary
    assert summary.digest == load(tmp_path / "a.pt").spec.digest
    assert (summary.file, summary.history) == (str(tmp_path / "b.pt"), tuple(found.history))


def test_nothing_is_written_without_an_output_and_nothing_printed(
    data, teacher, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    student = distill(teacher, data, alpha=0.5, **SMALL)
    assert student.path is None
    assert os.listdir() == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("options", [{}, {"method": "iterative", "rounds": 2}], ids=str)
def test_a_student_of_a_model_is_that_of_its_file_and_of_the_command(
    fertool, data, teacher, tmp_path, options
):
    file = tmp_path / "teacher.pt"
    teacher.save(file)
    before = {name: value.clone() for name, value in teacher.module.state_dict().items()}
    chained = distill(teacher, data, output=tmp_path / "chained.pt", **options, **SMALL)
    distill([file], data, output=tmp_path / "file.pt", **options, **SMALL)
    flags = [f"--{name}={value}" for name, value in options.items()]
    succeed(fertool, "distill", file, *FLAGS, *flags, "-o", tmp_path / "command.pt")
    contents = {(tmp_path / f"{name}.pt").read_bytes() for name in ("chained", "file", "command")}
    assert len(contents) == 1
    assert chained.lineage[-1].inputs["teacher.0"] == teacher.spec.digest
    torch.testing.assert_close(dict(teacher.module.state_dict()), before, atol=0, rtol=0)
    assert all(parameter.requires_grad for parameter in teacher.module.parameters())


def test_logits_are_those_of_the_commands_and_teach_like_them(fertool, data, teacher, tmp_path):
    file = tmp_path / "teacher.pt"
    teacher.save(file)
    options = {"views": 2, "rotation": 10, "device": "cpu"}
    recorded = record_logits(teacher, data, output=tmp_path / "a.logits", **options)
    flags = ("--logit-views", 2, "--rotation", 10, "--epochs", 0)
    command = ("distill", file, *FLAGS, *flags, "--save-logits", tmp_path / "b.logits")
    succeed(fertool, *command)
    assert (tmp_path / "a.logits").read_bytes() == (tmp_path / "b.logits").read_bytes()
    one = distill(recorded, data, **SMALL)
    other = distill(tmp_path / "b.logits", data, **SMALL)
    assert one.spec == other.spec
    assert one.lineage[-1].options["rotation"] == 10


def test_a_trained_teacher_records_itself_as_a_later_recording_does(data, tmp_path):
    options = {**SMALL, "logit_views": 1}
    found = train(data, save_logits=str(tmp_path / "a.logits"), **options)
    later = record_logits(found, data, output=tmp_path / "b.logits", views=1, device="cpu")
    first = load_logits(tmp_path / "a.logits")
    assert later.spec.teachers == first.spec.teachers == (found.spec.digest,)
    torch.testing.assert_close(later.cached.logits, first.logits, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epoch": 3}, "unknown option 'epoch'"),
        ({"rounds": 2}, "``rounds=2``: ``method=kd`` has none"),
        ({"epochs": 0}, "``epochs=0``: nothing to do"),
        ({"logit_views": 2}, "``logit_views=2``: nothing is recorded"),
    ],
    ids=str,
)
def test_a_wrong_option_is_named_as_in_python(data, teacher, options, message):
    with pytest.raises(UsageError) as error:
        distill(teacher, data, **options)
    assert error.value.message.startswith(message)
    assert "--" not in error.value.message + error.value.hint


def test_an_output_that_is_a_teacher_is_refused(data, teacher, tmp_path):
    saved = teacher.save(tmp_path / "t.pt")
    with pytest.raises(FertoolError, match="also an input"):
        distill(saved, data, output=tmp_path / "t.pt", **SMALL)


def test_views_without_a_file_are_refused():
    with pytest.raises(UsageError, match="nothing is recorded"):
        train(open_data(DATA), TrainTeacherConfig(), logit_views=3)


ANOTHER = """
from dataclasses import dataclass

from fertool.distillation import DistillationMethod


@dataclass(frozen=True)
class Member(DistillationMethod):
    \"\"\"Learn from the last teacher alone, twice.\"\"\"

    rounds: int = 2

    def train(self, student, teachers, trainer):
        for number in range(1, self.rounds + 1):
            trainer.train(trainer.knowledge(teachers[-1:]), number=number, count=self.rounds)
        return self.rounds
"""


def test_a_method_of_another_package_trains_the_student(data, teacher, install):
    install("fertool.distillation_methods", "last", ANOTHER)
    student = distill([teacher, teacher], data, method="last", **SMALL)
    assert [record.round for record in student.history] == [1, 2]
    with pytest.raises(UsageError, match=r"``beta=1\.0``: ``method=last`` has none"):
        distill(teacher, data, method="last", beta=1, **SMALL)
