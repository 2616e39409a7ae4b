import torch
from torch import nn

from fertool.distillation import Student, Teacher, load_method
from fertool.spec import InputSpec

CLASSES = ("happy", "sad")
GRAY = InputSpec(size=2)


class Trainer:
    """A trainer whose trainings have given scores and add 1 to the weight of the student."""

    seed, precision, start_from = 0, "fp32", None

    def __init__(self, student, scores):
        self.student, self.scores, self.seen, self.notes = student, scores, [], []

    def knowledge(self, teachers, gamma=None):
        return teachers

    def train(self, objective, *, number, count):
        self.seen.append((number, self.student.weight.item(), objective))
        with torch.no_grad():
            self.student.weight += 1
        return self.scores[number - 1]

    def note(self, text):
        self.notes.append(text)


def teach(scores):
    """Teach a network in rounds; returns the round chosen, its weights and the teachers."""
    student = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(student.weight)
    first = Teacher(nn.Linear(1, 1), GRAY, CLASSES)
    trainer = Trainer(student, scores)
    method = load_method("iterative", rounds=len(scores))
    best = method.train(Student(student, GRAY, CLASSES), [first], trainer)
    assert trainer.notes == [f"round {best} of {len(scores)} is the best"]
    return best, student, trainer.seen, first


def test_the_student_of_a_round_teaches_the_next_which_goes_on_from_its_weights():
    best, student, seen, first = teach([1, 2, 3])
    assert [(number, start) for number, start, _ in seen] == [(1, 0), (2, 1), (3, 2)]
    assert seen[0][2] == [first]
    for round, (_, start, teachers) in enumerate(seen[1:], start=1):
        (teacher,) = teachers
        assert teacher.module.weight.item() == start == round
        assert teacher.module is not student
        assert (teacher.input, teacher.classes) == (GRAY, CLASSES)
    assert (best, student.weight.item()) == (3, 3)


def test_the_best_round_is_handed_over_the_earlier_one_of_two_alike():
    for scores, best in (((5, 9, 7), 2), ((4, 4), 1), (((0.5, -1.0), (0.5, -0.8)), 2), ((1,), 1)):
        found, student, _, _ = teach(scores)
        assert (found, student.weight.item()) == (best, best)
