from dataclasses import replace

import pytest
import torch

from fertool.config.training import AugmentConfig
from fertool.data.augment import apply_augmentation
from fertool.data.pixels import to_input
from fertool.distillation import CachedTeacher, KnowledgeDistillation, Teacher
from fertool.distillation.cached_teachers import Views
from fertool.errors import FertoolError
from fertool.losses import ClassificationLoss
from fertool.training import TrainConfig, fit

CLASSES = ("happy", "neutral", "sad")


class OnViews(KnowledgeDistillation):
    """Living teachers, with images that are changed as recorded ones were."""

    def __init__(self, views, *arguments, **options):
        super().__init__(*arguments, **options)
        self.views = views

    def plan_epoch(self, epoch, targets):
        return targets, self.views.augment_params(len(targets), (epoch - 1) % self.views.count)


def cache_logits(module, data, views, shape, half=True):
    """Cache the logits of a network on every view, one after the other."""
    logits = []
    for view in range(views.count):
        pixels = apply_augmentation(data.images, views.augment_params(len(data), view))
        with torch.no_grad():
            logits.append(module.eval()(to_input(pixels, shape)))
    return CachedTeacher(
        torch.stack(logits).to(torch.float16 if half else torch.float32), CLASSES, views, "record"
    )


def state(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def trained(module, data, shape, objective, **changes):
    # Adam would blow up the rounding of gradients that are 0 but for it.
    plain = {
        "epochs": 4,
        "batch_size": 16,
        "lr": 0.05,
        "optimizer": "sgd",
        "augmentation": AugmentConfig(mixup=0),
    }
    config = TrainConfig(precision="fp32", **{**plain, **changes})
    result = fit(module, data, data, shape, config, objective=objective)
    return state(module), [record.train_loss for record in result.history]


@pytest.mark.parametrize("half", [False, True])
def test_cached_logits_train_as_the_live_teacher_does_on_the_same_views(
    faces, network, shape, views, half
):
    data, teachers = faces(48), [network(seed=1), network(seed=2)]
    records = [cache_logits(teacher, data, views, shape, half) for teacher in teachers]
    live = [Teacher(teacher, shape, CLASSES) for teacher in teachers]
    options = {"input": shape, "classes": CLASSES, "temperature": 3.0, "alpha": 0.6}
    expected, losses = trained(network(), data, shape, OnViews(views, live, **options))
    rounding = 2e-3 if half else 1e-5
    for listed in (records, [records[0], live[1]], [live[0], records[1]]):
        found, theirs = trained(network(), data, shape, KnowledgeDistillation(listed, **options))
        assert theirs == pytest.approx(losses, rel=rounding)
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=0, atol=rounding)
    without, _ = trained(network(), data, shape, KnowledgeDistillation(records[:1], **options))
    assert (without["5.weight"] - expected["5.weight"]).abs().max() > 0.01


def test_epochs_take_the_views_in_turn(faces, network, shape, views):
    data = faces(6)
    record = cache_logits(network(seed=1), data, views, shape)
    objective = KnowledgeDistillation([record], input=shape, classes=CLASSES, temperature=2)
    for epoch in range(1, 8):
        targets, changes = objective.plan_epoch(epoch, data.targets())
        view = (epoch - 1) % 3
        assert torch.equal(targets[:, :3], data.targets())
        torch.testing.assert_close(targets[:, 3:], (record.logits[view].float() / 2).softmax(1))
        for name in ("mirror", "move", "color", "erase"):
            assert torch.equal(getattr(changes, name), getattr(views.augment_params(6, view), name))


def test_teachers_that_saw_plain_images_leave_the_changes_open(faces, network, shape, views):
    data = faces(6)
    plain = CachedTeacher(torch.zeros(1, 6, 3), CLASSES, None, "plain")
    objective = KnowledgeDistillation([plain], input=shape, classes=CLASSES)
    assert objective.plan_epoch(5, data.targets())[1] is None
    with_views = KnowledgeDistillation(
        [plain, cache_logits(network(), data, views, shape)], input=shape, classes=CLASSES
    )
    assert with_views.plan_epoch(5, data.targets())[1] is not None


@pytest.mark.parametrize("mixing", [{"mixup": 1.0}, {"cutmix": 1.0}, {"mixup": 0.5, "cutmix": 0.5}])
def test_cached_distributions_are_mixed_with_the_weights_of_the_labels(
    faces, network, shape, mixing
):
    data, seen = faces(48), []
    logits = 3 * torch.randn(1, 48, 3, generator=torch.Generator().manual_seed(0))
    record = CachedTeacher(logits, CLASSES, None, "record")

    class Watching(KnowledgeDistillation):
        def __call__(self, module, inputs, targets):
            seen.append(targets)
            return super().__call__(module, inputs, targets)

    # Soft labels that are all different tell which two images were mixed, and by which fraction.
    own = torch.rand(48, 3, generator=torch.Generator().manual_seed(1)).double().softmax(1)
    augmentation = AugmentConfig(**{"mixup": 0.0, **mixing})
    trained(
        network(),
        replace(data, soft_labels=own.float()),
        shape,
        Watching([record], input=shape, classes=CLASSES, temperature=1),
        epochs=1,
        augmentation=augmentation,
    )
    rows, probs = torch.cat(seen).double(), logits[0].softmax(1).double()
    gaps = own[:, None] - own[None]
    # By brute force: the fraction of image i in the mixture with image j nearest to each row.
    shares = ((rows[:, None, None, :3] - own[None, None]) * gaps).sum(3) / (
        gaps.square().sum(2) + 1e-12
    )
    shares = shares.clamp(0, 1)
    errors = (own[None, None] + shares[..., None] * gaps - rows[:, None, None, :3]).abs().amax(3)
    i, j = errors.view(48, -1).argmin(1) // 48, errors.view(48, -1).argmin(1) % 48
    fraction = shares[torch.arange(48), i, j]
    assert ((fraction > 0.01) & (fraction < 0.99)).sum() > 10
    torch.testing.assert_close(
        rows[:, 3:], torch.lerp(probs[j], probs[i], fraction[:, None]), atol=1e-4, rtol=0
    )


def test_classes_are_matched_by_name(faces, shape):
    logits = torch.randn(1, 6, 3, generator=torch.Generator().manual_seed(0))
    record = CachedTeacher(logits, ("sad", "happy", "neutral"), None, "record")
    objective = KnowledgeDistillation([record], input=shape, classes=CLASSES, temperature=1)
    targets, _ = objective.plan_epoch(1, faces(6).targets())
    torch.testing.assert_close(targets[:, 3:], logits[0].softmax(1)[:, [1, 2, 0]])
    with pytest.raises(FertoolError, match="differ in their classes: happy, neutral"):
        KnowledgeDistillation([replace(record, classes=("sad",))], input=shape, classes=CLASSES)


def test_caches_of_other_images_or_views_are_refused(faces, shape):
    logits = torch.zeros(2, 6, 3)

    def record(**changes):
        return replace(
            CachedTeacher(logits, CLASSES, Views(2, AugmentConfig(), 0), "record"), **changes
        )

    def objective(*records):
        return KnowledgeDistillation(list(records), input=shape, classes=CLASSES)

    objective(record(), record())
    for other in (
        Views(2, AugmentConfig(), 1),
        Views(2, AugmentConfig(rotation=10), 0),
        Views(3, AugmentConfig(), 0),
    ):
        with pytest.raises(FertoolError, match="different augmentations"):
            objective(record(), record(views=other))
    with pytest.raises(FertoolError, match="logits of 5 training images, where there are 6"):
        objective(record(), record(logits=logits[:, :5]))
    with pytest.raises(FertoolError, match="logits of 6 training images, where there are 9"):
        objective(record()).plan_epoch(1, faces(9).targets())


def test_a_resumed_run_on_cached_logits_ends_with_the_same_bytes(
    faces, network, shape, views, tmp_path
):
    data = faces(48)
    record = cache_logits(network(seed=1), data, views, shape)
    config = TrainConfig(epochs=5, precision="fp32", batch_size=16, lr=0.01)

    def run(record, **options):
        module = network()
        objective = KnowledgeDistillation([record], input=shape, classes=CLASSES)
        fit(module, data, data, shape, config, objective=objective, **options)
        return {name: tensor.numpy().tobytes() for name, tensor in module.state_dict().items()}

    def die(epoch):
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    resume = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        run(record, resume=resume, on_epoch=die)
    with pytest.raises(FertoolError, match="other options, data or weights"):
        run(replace(record, digest="another"), resume=resume)
    assert run(record, resume=resume) == run(record)


def test_the_loss_on_the_labels_ignores_the_cached_logits(faces, network, shape, views):
    data = faces(12)
    record = cache_logits(network(seed=1), data, views, shape)
    loss = ClassificationLoss(0.1, 2.0, (1.0, 2.0, 3.0))
    objective = KnowledgeDistillation([record], input=shape, classes=CLASSES, alpha=0.0, loss=loss)
    module, inputs = network().eval(), to_input(data.images, shape)
    targets, _ = objective.plan_epoch(1, data.targets())
    torch.testing.assert_close(
        objective(module, inputs, targets), loss(module(inputs), data.targets())
    )
