import json
from dataclasses import replace

import pytest
import torch

from fertool import models
from fertool.artifact import store
from fertool.artifact.header import read_spec
from fertool.artifact.logits_header import ImageSet, LogitsSpec, is_logits, read_logits_spec
from fertool.config.training import AugmentConfig
from fertool.data.augment import apply_augmentation
from fertool.data.pixels import to_input
from fertool.distillation import KnowledgeDistillation, Teacher
from fertool.distillation.cached_logits import (
    CachedLogits,
    compute_cached_logits,
    load_logits,
    merge_cached_logits,
    plan_cached_logits,
    require_same_images,
    save_logits,
)
from fertool.errors import FertoolError
from fertool.spec import InputSpec, ProvenanceStep

CLASSES = ("happy", "neutral", "sad")
CPU = torch.device("cpu")
STEP = ProvenanceStep("distill", {"logit_views": 2}, {"data": "ab"}, {"torch": "2"}, 5)


@pytest.fixture
def plan():
    def make(
        data,
        views=2,
        augmentation=AugmentConfig(translate=0.1, erasing=0.5),
        seed=5,
        teachers=("one",),
    ):
        return plan_cached_logits(data, views, augmentation, seed, teachers, STEP)

    return make


@pytest.fixture
def record(faces, network, shape, plan):
    def make(views=2, seed=1):
        data = faces(20)
        return compute_cached_logits(
            plan(data, views), [Teacher(network(seed), shape, CLASSES)], data, shape, device=CPU
        )

    return make


def test_cached_logits_are_those_of_the_teacher_on_each_view(
    faces, network, shape, plan, monkeypatch
):
    monkeypatch.setattr("fertool.distillation.cached_logits._BATCH", 7)
    data, teacher, seen = faces(20), network(1).train(), []
    spec = plan(data, views=3)
    recording = compute_cached_logits(
        spec,
        [Teacher(teacher, shape, CLASSES)],
        data,
        shape,
        device=CPU,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert recording.logits.shape == (1, 3, 20, 3)
    assert recording.logits.dtype == torch.float16
    for view in range(3):
        pixels = apply_augmentation(data.images, recording.views.augment_params(20, view))
        expected = teacher.eval()(to_input(pixels, shape)).detach()
        torch.testing.assert_close(
            recording.logits[0, view].float(), expected, rtol=1e-3, atol=1e-3
        )
    assert (recording.logits[0, 0] != recording.logits[0, 1]).any()
    assert seen == [(done, 60) for view in (0, 20, 40) for done in (view + 7, view + 14, view + 20)]


def test_without_views_the_teacher_runs_once_on_the_plain_images(faces, network, shape, plan):
    data, teacher = faces(20), network(1).eval()
    recording = compute_cached_logits(
        plan(data, views=0), [Teacher(teacher, shape, CLASSES)], data, shape, device=CPU
    )
    assert recording.views is None
    expected = teacher(to_input(data.images, shape)).detach()
    torch.testing.assert_close(recording.logits[0, 0].float(), expected, rtol=1e-3, atol=1e-3)
    assert recording.teachers[0].views is None


def test_cached_logits_of_teachers_with_other_inputs_and_class_orders_equal_the_live_ones(
    faces, network, shape, plan
):
    data = faces(20)
    colour = InputSpec(
        channels=3, size=16, mean=(124 / 255, 116 / 255, 104 / 255), std=(0.229, 0.224, 0.225)
    )
    teachers = [
        Teacher(network(1, channels=3), colour, ("sad", "happy", "neutral")),
        Teacher(network(2), shape, CLASSES),
    ]
    recording = compute_cached_logits(
        plan(data, 2, teachers=("a", "b")), teachers, data, shape, device=CPU
    )
    live = KnowledgeDistillation(teachers, input=shape, classes=CLASSES, temperature=2)
    recorded = KnowledgeDistillation(
        recording.teachers, input=shape, classes=CLASSES, temperature=2
    )
    for epoch in (1, 2):
        targets, changes = recorded.plan_epoch(epoch, data.targets())
        inputs = to_input(apply_augmentation(data.images, changes), shape)
        found = recorded.teacher_probs(inputs, targets[:, 3:])
        torch.testing.assert_close(found, live.teacher_probs(inputs), rtol=0, atol=1e-3)


def test_a_file_comes_back_and_is_the_same_under_any_name(record, tmp_path):
    saved = save_logits(tmp_path / "t.logits", record())
    loaded = load_logits(tmp_path / "t.logits")
    assert loaded.spec.to_json() == saved.spec.to_json()
    assert torch.equal(loaded.logits, saved.logits)
    assert loaded.views == saved.views
    save_logits(tmp_path / "other", replace(loaded, spec=replace(loaded.spec, digest="")))
    assert (tmp_path / "other").read_bytes() == (tmp_path / "t.logits").read_bytes()
    save_logits(tmp_path / "again", record())
    assert (tmp_path / "again").read_bytes() == (tmp_path / "t.logits").read_bytes()
    digests = {teacher.digest for teacher in (*loaded.teachers, *record(seed=2).teachers)}
    assert len(digests) == 2


def test_the_logits_of_fer2013_in_two_views_take_less_than_a_megabyte(tmp_path):
    classes = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    images = ImageSet(28_709, 1, 48, "0" * 64)
    spec = LogitsSpec(classes, images, ("1" * 64,), 2, {"rotation": 15.0}, 0, "", (STEP,))
    save_logits(tmp_path / "t", CachedLogits(spec, torch.randn(1, 2, 28_709, 7).to(torch.float16)))
    assert (tmp_path / "t").stat().st_size < 1_000_000


def test_any_torch_opens_it_and_the_header_tells_what_it_is(record, tmp_path):
    path = tmp_path / "named.pt"
    saved = save_logits(path, record())
    content = torch.load(path, weights_only=True)
    assert torch.equal(content["state_dict"]["logits"], saved.logits)
    assert json.loads(content["spec"])["kind"] == "logits"
    assert is_logits(path)
    assert read_logits_spec(path).images.count == 20
    with pytest.raises(FertoolError, match=r"named\.pt: a logits file, not a model"):
        read_spec(path)
    with pytest.raises(FertoolError, match="a logits file, not a model"):
        models.load_model(path)


def test_a_model_is_no_logits_file(tmp_path):
    spec, module = models.create("micro_expnet", {"width_mult": 0.25}, InputSpec(), CLASSES)
    models.save_model(tmp_path / "m.logits", spec, module)
    assert not is_logits(tmp_path / "m.logits")
    with pytest.raises(FertoolError, match=r"m\.logits: a model file, not a logits file"):
        load_logits(tmp_path / "m.logits")
    with pytest.raises(FertoolError, match="not a logits file"):
        read_logits_spec(tmp_path / "m.logits")


@pytest.mark.parametrize("damage", ["a bit", "the end", "text"])
def test_a_damaged_file_is_refused(record, tmp_path, damage):
    path = tmp_path / "t.logits"
    saved = save_logits(path, record())
    content = bytearray(path.read_bytes())
    if damage == "a bit":
        content[content.index(saved.logits.numpy().tobytes()) + 5] ^= 1
    path.write_bytes({"the end": content[:-500], "text": b"hello"}.get(damage, bytes(content)))
    with pytest.raises(FertoolError, match=r"t\.logits: (damaged|not a fertool)"):
        load_logits(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "logits of format 2, this fertool reads format 1"),
        ({"surprise": 1}, "unknown: surprise"),
        ({"images": {"count": 20}}, "the fertool header is damaged"),
        ({"augmentation": {"vortex": 1.0}}, "the fertool header is damaged"),
        ({"views": 3}, r"do not fit the header, which says \[1, 3, 20, 3\]"),
        ({"draws": "0" * 64}, "augmentation that this fertool or PyTorch does not reproduce"),
    ],
)
def test_a_header_that_this_version_does_not_understand_is_refused(
    record, tmp_path, changes, message
):
    recording = record()
    header = {**json.loads(recording.spec.to_json()), **changes}
    (tmp_path / "t.logits").write_bytes(store.pack(header, {"logits": recording.logits})[1])
    with pytest.raises(FertoolError, match=message) as error:
        load_logits(tmp_path / "t.logits")
    assert error.value.hint


def test_images_and_their_order_must_be_those_of_the_cache_but_not_the_labels(record, faces):
    spec, data = record().spec, faces(20)
    require_same_images(spec, data, "t.logits")
    require_same_images(spec, replace(data, labels=data.labels.flip(0), digest="other"), "t.logits")
    with pytest.raises(FertoolError, match=r"^t.logits: .*differ in their classes: contempt, sad"):
        require_same_images(
            spec, replace(data, classes=("happy", "neutral", "contempt")), "t.logits"
        )
    with pytest.raises(
        FertoolError, match=r"t\.logits: logits of 20 training images, the data has 19"
    ):
        require_same_images(spec, data.subset(torch.arange(19)), "t.logits")
    for other in (faces(20, seed=3), data.subset(torch.arange(20).flip(0))):
        with pytest.raises(FertoolError, match="not those of the data, or not in their order"):
            require_same_images(spec, other, "t.logits")


def test_logits_that_half_precision_cannot_hold_are_refused(faces, network, shape, plan):
    data, teacher = faces(20), network(1)
    with torch.no_grad():
        teacher[5].bias.fill_(1e6)
    with pytest.raises(FertoolError, match="beyond the range of float16"):
        compute_cached_logits(
            plan(data), [Teacher(teacher, shape, CLASSES)], data, shape, device=CPU
        )


def test_the_draw_of_mixup_is_no_part_of_a_view(record, faces, plan):
    spec = plan(faces(20), augmentation=AugmentConfig(mixup=0.7, cutmix=0.3))
    assert not {"mixup", "cutmix"} & set(spec.augmentation)
    assert spec == plan(faces(20), augmentation=AugmentConfig(mixup=0.1))
    assert CachedLogits(spec, torch.zeros(1, 2, 20, 3)).views.config.mixup == 0


def renamed(part, **changes):
    return replace(part, spec=replace(part.spec, **changes))


def test_merged_recordings_teach_as_the_files_do_at_every_temperature(record, tmp_path, shape):
    first = renamed(record(seed=1), teachers=("one",))
    second = renamed(record(seed=2), teachers=("two",))
    order = torch.tensor([2, 0, 1])
    turned = CachedLogits(
        replace(second.spec, classes=("sad", "happy", "neutral")), second.logits[..., order]
    )
    merged = save_logits(
        tmp_path / "m", merge_cached_logits({"a.logits": first, "b.logits": turned}, STEP)
    )
    read = load_logits(tmp_path / "m")
    assert read.spec.teachers == merged.spec.teachers == ("one", "two")
    assert read.spec.provenance == (*first.spec.provenance, STEP)
    targets = torch.zeros(20, 3)
    for temperature in (1.0, 6.0):
        ways = ([*first.teachers, *turned.teachers], read.teachers)
        plans = []
        for teachers in ways:
            learning = KnowledgeDistillation(
                teachers, input=shape, classes=CLASSES, temperature=temperature
            )
            plans.append(learning.plan_epoch(2, targets)[0])
        torch.testing.assert_close(*plans, rtol=0, atol=1e-6)
        mean = sum((part.logits[0, 1].float() / temperature).softmax(1) for part in (first, second))
        torch.testing.assert_close(plans[0][:, 3:], mean, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "b: has a teacher that another file has too"),
        ({"teachers": ("two",), "draws": "ab"}, "b and a: recorded under different views"),
        ({"teachers": ("two",), "images": ImageSet(20, 1, 16, "cd")}, "of other training images"),
        (
            {"teachers": ("two",), "classes": ("happy", "neutral", "fear")},
            "b: differs from a in its classes: fear, sad",
        ),
    ],
)
def test_recordings_that_do_not_fit_are_not_merged(record, changes, message):
    first = record()
    with pytest.raises(FertoolError, match=message) as error:
        merge_cached_logits({"a": first, "b": renamed(first, **changes)}, STEP)
    assert error.value.hint
