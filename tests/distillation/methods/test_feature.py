import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fertool import models
from fertool.data.dataset import FaceDataset
from fertool.data.pixels import to_input
from fertool.distillation import KnowledgeDistillation, Teacher
from fertool.distillation.methods.feature import FeatureDistillation
from fertool.errors import FertoolError, UsageError
from fertool.graph.capture import capture
from fertool.losses import attention_transfer, cross_entropy, distillation_kl, guided_feature_loss
from fertool.spec import InputSpec
from fertool.training import TrainConfig, fit

CLASSES = ("happy", "neutral", "sad")
GRAY = InputSpec(size=16)
COLOUR = InputSpec(
    channels=3, size=32, mean=(124 / 255, 116 / 255, 104 / 255), std=(0.229, 0.224, 0.225)
)


def network(widths=(4, 6), input=GRAY, seed=0):
    """Two blocks that halve the map, and a linear head."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        counts = (input.channels, *widths)
        blocks = [
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in zip(counts, widths, strict=False)
        ]
        return captured(
            nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 3)),
            input,
        )


def captured(module, input=GRAY):
    image = (input.channels, input.size, input.size)
    return capture(module, image).network(image).train()


def after(block, net, x):
    """Return what one of the blocks of `network` makes of `x`."""
    conv, norm = (net.get_submodule(f"{block}.{part}") for part in (0, 1))
    return F.relu(norm(conv(x)))


def batch(n=8):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (n, 1, 16, 16), generator=generator, dtype=torch.uint8)
    return to_input(pixels, GRAY), torch.rand(n, 3, generator=generator).softmax(1)


def feature(student, teachers, input=GRAY, temperature=4, alpha=0.7, gamma=None, **options):
    knowledge = KnowledgeDistillation(
        teachers, input=input, classes=CLASSES, temperature=temperature, alpha=alpha, gamma=gamma
    )
    options = {"beta": 1.0, "depths": 4, **options}
    return FeatureDistillation(knowledge, student, input, teachers, **options)


def test_the_loss_is_the_sum_of_its_three_parts():
    inputs, targets = batch()
    student, teacher = network(), network((5, 6), seed=1)
    objective = feature(
        student, [Teacher(teacher, GRAY, CLASSES)], temperature=4, alpha=0.3, beta=2.5, gamma=0.6
    )
    loss = objective(student, inputs, targets)
    assert objective.matched_stages == [("0.2", 0, "0.2"), ("1.2", 0, "1.2")]
    first, second = objective.adapters
    s1, t1 = after(0, student, inputs), after(0, teacher, inputs)
    s2, t2 = after(1, student, s1), after(1, teacher, t1)
    pairs = ((s1, t1, first), (s2, t2, second))
    depths = [
        attention_transfer(s, t) + guided_feature_loss(F.conv2d(s, adapter.weight), t)
        for s, t, adapter in pairs
    ]
    soft = distillation_kl(student(inputs), teacher(inputs), 4)
    hard = cross_entropy(student(inputs), targets)
    torch.testing.assert_close(loss, 0.3 * soft + 2.5 * sum(depths) / 2 + 0.6 * hard)


def test_without_weight_on_the_features_it_is_plain_distillation():
    inputs, targets = batch()
    student, teachers = network(), [Teacher(network(seed=1), GRAY, CLASSES)]
    plain = KnowledgeDistillation(teachers, input=GRAY, classes=CLASSES)
    torch.testing.assert_close(
        feature(student, teachers, beta=0)(student, inputs, targets),
        plain(student, inputs, targets),
    )


def test_several_teachers_are_all_matched_and_averaged():
    inputs, targets = batch()
    student = network()
    teachers = [Teacher(network((5, 6), seed=seed), GRAY, CLASSES) for seed in (1, 2)]
    both = feature(student, teachers, alpha=0, gamma=0)
    assert [index for _, index, _ in both.matched_stages] == [0, 0, 1, 1]
    alone = []
    for index, teacher in enumerate(teachers):
        one = feature(student, [teacher], alpha=0, gamma=0)
        one.adapters = both.adapters[2 * index : 2 * index + 2]
        alone.append(one(student, inputs, targets))
    torch.testing.assert_close(both(student, inputs, targets), sum(alone) / 2)


@pytest.mark.parametrize(
    ("depths", "matched"), [(1, [("1.2", 0, "2.2")]), (4, [("0.2", 0, "1.2"), ("1.2", 0, "2.2")])]
)
def test_the_deepest_maps_are_matched_first_and_sizes_need_not_agree(depths, matched):
    inputs, targets = batch()
    student, teacher = network(), network((4, 5, 6), COLOUR, seed=1)
    objective = feature(
        student, [Teacher(teacher, COLOUR, CLASSES)], depths=depths, alpha=0, gamma=0
    )
    assert objective.matched_stages == matched
    loss = objective(student, inputs, targets)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(adapter.weight.grad.abs().sum() > 0 for adapter in objective.adapters)


def test_larger_maps_are_pooled_to_the_smaller_size():
    inputs, targets = batch()
    student = network()
    double = InputSpec(size=32)
    teacher = network((5, 6), double, seed=1)
    objective = feature(student, [Teacher(teacher, double, CLASSES)], depths=1, alpha=0, gamma=0)
    deep = after(1, student, after(0, student, inputs))
    enlarged = F.interpolate(inputs, size=32, mode="bilinear", antialias=True)
    theirs = F.avg_pool2d(after(1, teacher, after(0, teacher, enlarged)), 2)
    expected = attention_transfer(deep, theirs) + guided_feature_loss(
        objective.adapters[0](deep), theirs
    )
    torch.testing.assert_close(objective(student, inputs, targets), expected)


def test_a_student_that_is_its_teacher_has_nothing_left_to_match():
    inputs, targets = batch()
    student, teacher = network().eval(), network()
    loss = feature(student, [Teacher(teacher, GRAY, CLASSES)], alpha=0, gamma=0)(
        student, inputs, targets
    )
    assert loss.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("teacher", "student"), [("resnet50", "micro_expnet"), ("eff_resnet18", "shufflenet_v2_x0_5")]
)
def test_pairs_of_the_zoo_can_be_matched_at_another_size_too(teacher, student):
    small, large = InputSpec(size=32), InputSpec(3, 64, COLOUR.mean, COLOUR.std)
    _, pupil = models.create(student, {"width_mult": 0.25}, small, CLASSES)
    _, judge = models.create(teacher, {"width_mult": 0.125}, large, CLASSES)
    objective = feature(pupil, [Teacher(judge, large, CLASSES)], input=small)
    assert len(objective.matched_stages) >= 3
    loss = objective(pupil, torch.randn(4, 1, 32, 32), torch.eye(3)[[0, 1, 2, 0]])
    loss.backward()
    assert torch.isfinite(loss)
    assert all(parameter.grad is None for parameter in judge.parameters())


def bars(n, split):
    generator = torch.Generator().manual_seed(len(split))
    images = torch.randint(0, 120, (n, 1, 16, 16), generator=generator)
    labels = torch.arange(n) % 3
    for position in range(3):
        images[labels == position, :, 5 * position : 5 * position + 5] += 120
    return FaceDataset(images.to(torch.uint8), labels, CLASSES, split, "source")


@pytest.mark.parametrize(
    "options",
    [{}, {"sam_rho": 0.05}, {"grad_accumulation": 2, "max_grad_norm": 1.0}, {"freeze_epochs": 2}],
    ids=str,
)
def test_adapters_are_trained_with_the_network_and_dropped(options):
    student, teacher = network(), network((5, 6), seed=1)
    names = set(student.state_dict())
    objective = feature(student, [Teacher(teacher, GRAY, CLASSES)], alpha=0, gamma=0)
    train = bars(48, "train")
    inputs, targets = to_input(train.images, GRAY), train.targets()
    untrained = [adapter.weight.clone() for adapter in objective.adapters]
    before = objective(student.train(), inputs, targets)
    config = TrainConfig(
        epochs=6, precision="fp32", batch_size=16, lr=0.01, lr_schedule="constant", **options
    )
    fit(student, train, bars(12, "val"), GRAY, config, objective=objective)
    assert objective(student.train(), inputs, targets) < 0.8 * before
    for adapter, weight in zip(objective.adapters, untrained, strict=True):
        assert not torch.equal(adapter.weight, weight)
    assert set(student.state_dict()) == names


def test_the_fingerprint_knows_what_is_matched_and_how():
    def fingerprint(seed=1, **options):
        return feature(
            network(), [Teacher(network((5, 6), seed=seed), GRAY, CLASSES)], **options
        ).fingerprint

    assert fingerprint() == fingerprint()
    others = {
        fingerprint(seed=2),
        fingerprint(beta=2),
        fingerprint(gamma=2),
        fingerprint(depths=1),
        fingerprint(alpha=0),
    }
    assert len({fingerprint(), *others}) == 6
    torch.manual_seed(7)
    other_start = feature(
        network(), [Teacher(network((5, 6), seed=1), GRAY, CLASSES)], seed=3
    ).fingerprint
    assert other_start not in {fingerprint(), *others}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": -1}, "``beta=-1``"),
        ({"depths": 0}, "``match_depths=0``"),
        ({"gamma": -0.5}, "``gamma=-0.5``"),
    ],
)
def test_a_bad_number_is_an_error_that_names_the_option(options, message):
    with pytest.raises(UsageError, match=message):
        feature(network(), [Teacher(network(), GRAY, CLASSES)], **options)


def test_networks_without_inner_maps_are_one_clear_error():
    flat = captured(nn.Sequential(nn.Flatten(), nn.Linear(256, 3)))
    with pytest.raises(FertoolError, match="teacher 2 has no inner feature maps") as error:
        feature(network(), [Teacher(each, GRAY, CLASSES) for each in (network(), flat)])
    assert "``method=kd``" in error.value.hint
    with pytest.raises(FertoolError, match="the student has no inner feature maps"):
        feature(flat, [Teacher(network(), GRAY, CLASSES)])
    knowledge = KnowledgeDistillation(
        [Teacher(network(), GRAY, CLASSES)], input=GRAY, classes=CLASSES
    )
    with pytest.raises(FertoolError, match="cached logits have no feature maps"):
        FeatureDistillation(knowledge, network(), GRAY, [], beta=1.0, depths=4)
