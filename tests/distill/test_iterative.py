import torch
from torch import nn

from fertool.distill import Teacher, distill_iteratively
from fertool.spec import InputSpec

CLASSES = ("happy", "sad")
GRAY = InputSpec(size=2)


def teach(scores):
    """Teach a network that counts: each round adds 1 to its weight; returns the round chosen, weights and teachers."""
    student, seen = nn.Linear(1, 1, bias=False), []
    nn.init.zeros_(student.weight)
    first = Teacher(nn.Linear(1, 1), GRAY, CLASSES)

    def learn(number, teachers):
        seen.append((number, student.weight.item(), teachers))
        with torch.no_grad():
            student.weight += 1
        return scores[number - 1]

    best = distill_iteratively(student, [first], len(scores), learn, input=GRAY, classes=CLASSES)
    return best, student, seen, first


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
