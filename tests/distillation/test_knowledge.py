import pytest
import torch
from torch import nn

from fertool.data.dataset import FaceDataset
from fertool.data.pixels import to_input
from fertool.distillation import KnowledgeDistillation, Teacher
from fertool.errors import FertoolError, UsageError
from fertool.losses import ClassificationLoss, cross_entropy, distillation_kl
from fertool.spec import InputSpec
from fertool.training import TrainConfig, fit, predict_logits

CLASSES = ("happy", "neutral", "sad")
GRAY = InputSpec(size=8)
COLOUR = InputSpec(
    channels=3, size=16, mean=(124 / 255, 116 / 255, 104 / 255), std=(0.229, 0.224, 0.225)
)


def linear(input=GRAY, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(input.channels * input.size**2, 3))


def batch(n=6):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (n, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return to_input(pixels, GRAY), torch.rand(n, 3, generator=generator).softmax(1)


def distillation(teachers, **options):
    return KnowledgeDistillation(teachers, input=GRAY, classes=CLASSES, **options)


def test_the_loss_of_one_teacher_is_the_papers():
    inputs, targets = batch()
    student, teacher = linear(), linear(seed=1)
    loss = distillation([Teacher(teacher, GRAY, CLASSES)], temperature=4, alpha=0.7)(
        student, inputs, targets
    )
    soft = distillation_kl(student(inputs), teacher(inputs), 4)
    torch.testing.assert_close(loss, 0.7 * soft + 0.3 * cross_entropy(student(inputs), targets))


def test_the_labels_part_is_the_loss_asked_for():
    inputs, targets = batch()
    student, teacher = linear(), linear(seed=1)
    against_labels = ClassificationLoss(0.1, 2.0, (1.0, 2.0, 3.0))
    loss = distillation([Teacher(teacher, GRAY, CLASSES)], alpha=0.7, loss=against_labels)(
        student, inputs, targets
    )
    soft = distillation_kl(student(inputs), teacher(inputs), 4)
    torch.testing.assert_close(loss, 0.7 * soft + 0.3 * against_labels(student(inputs), targets))


def test_several_teachers_are_averaged_as_probabilities():
    inputs, _ = batch()
    networks = [linear(seed=seed) for seed in range(3)]
    objective = distillation(
        [Teacher(network, GRAY, CLASSES) for network in networks], temperature=2.5
    )
    expected = sum((network(inputs) / 2.5).softmax(1) for network in networks) / 3
    torch.testing.assert_close(objective.teacher_probs(inputs), expected)


def test_a_teacher_computes_in_a_format_of_its_own():
    inputs, _ = batch()
    network = linear(seed=1)
    exact, coarse = (Teacher(network, GRAY, CLASSES, precision) for precision in ("fp32", "bf16"))
    with torch.no_grad():
        expected, rounded = network(inputs), coarse.logits(inputs, GRAY)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(exact.logits(inputs, GRAY), expected)
    assert rounded.dtype == torch.float32
    assert torch.equal(rounded, rounded.bfloat16().float())
    torch.testing.assert_close(rounded, expected, rtol=2**-7, atol=0.02)


def test_classes_are_matched_by_name():
    inputs, _ = batch()
    network = linear()
    objective = distillation([Teacher(network, GRAY, ("sad", "happy", "neutral"))], temperature=1)
    torch.testing.assert_close(
        objective.teacher_probs(inputs), network(inputs).softmax(1)[:, [1, 2, 0]]
    )


def test_a_teacher_gets_the_image_in_its_own_channels_size_and_scale():
    pixels = torch.full((1, 1, 8, 8), 60, dtype=torch.uint8)
    pixels[..., 4:] = 200
    seen = []
    network = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(3 * 16 * 16, 3))
    network[0].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    distillation([Teacher(network, COLOUR, CLASSES)]).teacher_probs(to_input(pixels, GRAY))
    enlarged = nn.functional.interpolate(pixels.float(), scale_factor=2, mode="bilinear")
    torch.testing.assert_close(
        seen[0], to_input(enlarged.expand(1, 3, 16, 16), COLOUR), atol=1e-4, rtol=1e-4
    )


def test_teachers_are_frozen_in_eval_mode():
    teacher = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 3)).train()
    before = teacher[1].running_mean.clone()
    inputs, targets = batch()
    distillation([Teacher(teacher, GRAY, CLASSES)])(linear(), inputs, targets).backward()
    assert torch.equal(teacher[1].running_mean, before)
    assert teacher[2].weight.grad is None


def test_a_student_follows_its_teacher_rather_than_wrong_labels():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (200, 1, 8, 8), generator=generator, dtype=torch.uint8)
    teacher, student = linear(seed=1), linear()
    # Labels without information: every image is 'happy'.
    data = FaceDataset(images, torch.zeros(200, dtype=torch.int64), CLASSES, "train", "source")
    objective = distillation([Teacher(teacher, GRAY, CLASSES)], alpha=1.0)
    fit(
        student,
        data,
        data,
        GRAY,
        TrainConfig(
            epochs=20, lr=0.02, lr_schedule="constant", weight_decay=0, warmup_epochs=0, patience=0
        ),
        objective=objective,
    )
    inputs = to_input(images, GRAY)
    gap = distillation_kl(student(inputs), teacher(inputs), 4.0)
    assert gap < 0.1 * distillation_kl(linear()(inputs), teacher(inputs), 4.0)
    assert predict_logits(student, data, GRAY).argmax(1).unique().numel() == 3


def test_the_fingerprint_knows_the_numbers_and_the_teachers():
    def fingerprint(seed=1, **options):
        return distillation([Teacher(linear(seed=seed), GRAY, CLASSES)], **options).fingerprint

    assert fingerprint() == fingerprint()
    weighted = fingerprint(loss=ClassificationLoss(class_weights=(1.0, 2.0, 3.0)))
    focal = fingerprint(loss=ClassificationLoss(focal_gamma=2.0))
    others = {
        fingerprint(seed=2),
        fingerprint(alpha=0.5),
        fingerprint(temperature=2),
        weighted,
        focal,
    }
    assert len({fingerprint(), *others}) == 6


@pytest.mark.parametrize(
    ("options", "flag"),
    [({"temperature": 0}, "``temperature=0``"), ({"alpha": 1.5}, "``alpha=1.5``")],
)
def test_a_bad_number_is_an_error_that_names_the_option(options, flag):
    with pytest.raises(UsageError, match=flag):
        distillation([Teacher(linear(), GRAY, CLASSES)], **options)


def test_a_teacher_of_other_classes_is_refused_by_name():
    with pytest.raises(FertoolError, match="contempt, sad"):
        distillation([Teacher(linear(), GRAY, ("happy", "neutral", "contempt"))])


def test_no_teacher_is_an_error():
    with pytest.raises(UsageError, match="no teacher"):
        distillation([])
