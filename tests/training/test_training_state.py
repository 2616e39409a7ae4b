import contextlib

import pytest
import torch
from mutations import mutations

from fertool.artifact.store import pack, unpack
from fertool.config.training import AugmentConfig
from fertool.errors import FertoolError
from fertool.losses import ClassificationLoss
from fertool.precision import grad_scaler
from fertool.training import Supervised, TrainConfig, discard_resume, fit, resume_path
from fertool.training.optimizer import WeightAverage, make_optimizer
from fertool.training.training_state import (
    EpochRecord,
    TrainingState,
    load_training_state,
    save_training_state,
)


class Killed(BaseException):
    pass


def kill_at(count):
    """A callback that dies at its n-th call."""
    calls = []

    def callback(*_):
        calls.append(1)
        if len(calls) == count:
            raise Killed

    return callback


def state(module):
    return {name: tensor.numpy().tobytes() for name, tensor in module.state_dict().items()}


def records(result):
    return [(r.epoch, r.lr, r.train_loss, r.val_loss, r.val_accuracy) for r in result.history]


@pytest.fixture
def run(faces, network, quick, shape, tmp_path):
    """Run to the end or to the kill, from the same start each time."""

    def start(config, resume=tmp_path / "model.pt.resume", **callbacks):
        module = network()
        result = fit(
            module, faces(70), faces(30, "val", 1), shape, config, resume=resume, **callbacks
        )
        return state(module), records(result)

    return start


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adam"},
        {"optimizer": "adamw", "ema_decay": 0.8, "weight_decay": 0.05, "lr_schedule": "onecycle"},
        {"optimizer": "sgd", "ema_decay": 0.8, "max_grad_norm": 1.0},
    ],
    ids=lambda options: options["optimizer"],
)
@pytest.mark.parametrize("where", ["after an epoch", "within an epoch", "twice"])
def test_a_killed_run_ends_with_the_bytes_of_an_undisturbed_one(run, quick, options, where):
    config = quick(**options)
    undisturbed = run(config, resume=None)
    if where == "twice":
        with pytest.raises(Killed):
            run(config, on_epoch=kill_at(1))
    with pytest.raises(Killed):
        run(
            config,
            **(
                {"on_batch": kill_at(13)}
                if where == "within an epoch"
                else {"on_epoch": kill_at(3)}
            ),
        )
    assert run(config) == undisturbed


@pytest.mark.parametrize(
    "options",
    [
        {
            "sam_rho": 0.05,
            "grad_accumulation": 2,
            "batch_size": 8,
            "augmentation": AugmentConfig(mixup=0.2, cutmix=1.0),
        },
        {"lr_schedule": "plateau", "plateau_patience": 0, "optimizer": "sgd", "freeze_epochs": 2},
        {"precision": "bf16", "freeze_epochs": 1, "ema_decay": 0.8},
        {
            "precision": "fp16",
            "max_grad_norm": 1.0,
            "augmentation": AugmentConfig(noise=0.5, blur=0.5, downscale=0.5, jpeg=0.5),
        },
    ],
    ids=lambda options: "+".join(options),
)
def test_what_else_a_run_has_to_keep_is_kept(run, quick, options):
    config = quick(epochs=3, **options)
    undisturbed = run(config, resume=None)
    for kill in ({"on_epoch": kill_at(1)}, {"on_batch": kill_at(6)}):
        with pytest.raises(Killed):
            run(config, **kill)
    assert run(config) == undisturbed


@pytest.mark.parametrize(
    "options",
    [{"optimizer": "sgd", "sam_rho": 0.05}, {"ema_decay": 0.8, "max_grad_norm": 1.0}],
    ids=str,
)
def test_the_layers_of_the_objective_are_kept_too(run, quick, adapted, options):
    def start(**more):
        objective = adapted()
        return run(quick(epochs=3, **options), objective=objective, **more), state(
            objective.adapters
        )

    undisturbed = start(resume=None)
    for kill in ({"on_epoch": kill_at(1)}, {"on_batch": kill_at(8)}):
        with pytest.raises(Killed):
            start(**kill)
    assert start() == undisturbed
    assert undisturbed[1] != state(adapted().adapters)


def test_a_finished_run_returns_its_result_from_the_state_until_that_is_discarded(
    run, quick, tmp_path
):
    steps = []
    first = run(quick(epochs=2))
    assert run(quick(epochs=2), on_batch=lambda *_: steps.append(1)) == first
    assert not steps
    discard_resume(tmp_path / "model.pt.resume")
    discard_resume(tmp_path / "model.pt.resume")
    assert run(quick(epochs=2), on_batch=lambda *_: steps.append(1)) == first
    assert steps
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt.resume"]


def test_a_run_that_patience_ended_is_not_prolonged_by_resuming(run, quick):
    config = quick(epochs=40, patience=2)
    assert run(config) == run(config)


def test_a_run_killed_before_its_first_epoch_leaves_no_file(run, quick, tmp_path):
    with pytest.raises(Killed):
        run(quick(), on_batch=kill_at(2))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change", [{"lr": 0.01}, {"seed": 1}, {"epochs": 6}, {"augmentation": None}]
)
def test_the_state_of_a_run_with_other_options_is_refused(run, quick, change):
    with pytest.raises(Killed):
        run(quick(), on_epoch=kill_at(1))
    if "augmentation" in change:
        change = {"augmentation": quick(batch_size=16).augmentation.__class__(rotation=6)}
    with pytest.raises(
        FertoolError, match=r"model.pt.resume: .* other options, data or weights"
    ) as error:
        run(quick(**change))
    assert "``resume=False``" in error.value.hint


def test_the_state_of_a_run_from_other_weights_data_or_objective_is_refused(
    run, quick, faces, network, shape, tmp_path
):
    resume = tmp_path / "model.pt.resume"
    with pytest.raises(Killed):
        run(quick(), on_epoch=kill_at(1))

    class Other:
        fingerprint = "another loss"

        def __call__(self, module, inputs, targets):
            return module(inputs).square().mean()

    val = faces(30, "val", 1)
    for module, train, objective in (
        (network(seed=1), faces(70), None),
        (network(), faces(71), None),
        (network(), faces(70), Other()),
        (network(), faces(70), Supervised(ClassificationLoss(focal_gamma=2))),
        (network(), faces(70), Supervised(ClassificationLoss(class_weights=(1, 2, 1)))),
    ):
        with pytest.raises(FertoolError, match="other options, data or weights"):
            fit(module, train, val, shape, quick(), resume=resume, objective=objective)


def test_the_scale_of_float16_is_kept(network, tmp_path):
    def progress():
        module = network()
        scaler = grad_scaler(torch.float16, torch.device("cpu"))
        return TrainingState(
            module, None, make_optimizer(module, TrainConfig()), scaler, {"w": torch.zeros(1)}, []
        )

    ended, begun = progress(), progress()
    ended.scaler.load_state_dict(
        {**ended.scaler.state_dict(), "scale": 128.0, "_growth_tracker": 7}
    )
    save_training_state(tmp_path / "resume", "same", ended)
    load_training_state(tmp_path / "resume", "same", begun)
    assert begun.scaler.state_dict() == ended.scaler.state_dict()
    assert begun.scaler.get_scale() == 128


@pytest.mark.parametrize("damage", ["truncated", "text", "bit", "another kind"])
def test_a_file_that_is_not_the_state_of_a_run_is_refused(run, quick, tmp_path, damage):
    path = tmp_path / "model.pt.resume"
    with pytest.raises(Killed):
        run(quick(), on_epoch=kill_at(1))
    weight = torch.load(path, weights_only=True)["state_dict"]["module/0.weight"]
    content = bytearray(path.read_bytes())
    content[content.index(weight.numpy().tobytes())] ^= 1
    path.write_bytes(
        {
            "truncated": bytes(content[: len(content) // 2]),
            "text": b"hello",
            "bit": bytes(content),
            "another kind": pack({}, {"weight": torch.zeros(1)})[1],
        }[damage]
    )
    with pytest.raises(FertoolError, match="the state of a killed run, but") as error:
        run(quick())
    assert "delete it" in error.value.hint


def test_the_state_lies_beside_the_output(tmp_path):
    assert resume_path(tmp_path / "student.pt") == tmp_path / "student.pt.resume"


@pytest.fixture
def progress(network):
    """Make what a run of one epoch has to keep, with all sections in it."""

    def make():
        module = network()
        optimizer = make_optimizer(module, TrainConfig(optimizer="adam"))
        module(torch.zeros(2, 1, 12, 12)).sum().backward()
        optimizer.step()
        scaler = grad_scaler(torch.float16, torch.device("cpu"))
        record = EpochRecord(1, 0.1, 2.0, 2.1, 0.5, 1.0)
        return TrainingState(
            module,
            WeightAverage(module, 0.9),
            optimizer,
            scaler,
            dict(module.state_dict()),
            [record],
        )

    return make


def test_every_wrong_value_in_the_header_of_a_state_is_refused_or_harmless(progress, tmp_path):
    path, begun, refused = tmp_path / "resume", progress(), 0
    save_training_state(path, "same", begun)
    header, tensors = unpack(path)
    for what, changed in list(
        mutations({"history": header["history"], "scaler": header["scaler"]})
    )[::2]:
        with contextlib.suppress(
            ValueError, UnicodeEncodeError
        ):  # NaN and halves of pairs cannot be written
            path.write_bytes(pack({**changed, "fingerprint": "same"}, tensors)[1])
        message = message_of(path, begun)
        refused += bool(message)
        assert not message or message.startswith(f"{path}: the state of a killed run, but "), what
    assert refused > 80


@pytest.mark.parametrize("section", ["module", "average", "optimizer", "best"])
@pytest.mark.parametrize("change", ["missing", "unknown", "shape", "type", "scalar"])
def test_other_tensors_than_those_of_the_run_are_refused(progress, tmp_path, section, change):
    path = tmp_path / "resume"
    save_training_state(path, "same", progress())
    header, tensors = unpack(path)
    name = next(
        name for name in tensors if name.startswith(f"{section}/") and tensors[name].dim() > 1
    )
    tensor = tensors.pop(name)
    kept = {"shape": tensor.reshape(-1)[:1], "type": tensor.to(torch.int64), "scalar": tensor.sum()}
    if change in kept:
        tensors[name] = kept[change].clone()
    if change == "unknown":
        tensors |= {name: tensor, f"{name}.more": tensor}
    path.write_bytes(pack(header, tensors)[1])
    assert section in message_of(path, progress())


def test_a_state_of_another_optimizer_or_section_is_refused(progress, tmp_path):
    path = tmp_path / "resume"
    save_training_state(path, "same", progress())
    header, tensors = unpack(path)
    for odd in (
        "optimizer/99.step",
        "optimizer/x.step",
        "optimizer/-1.step",
        "another/w",
        "w",
        "optimizer/0.more",
    ):
        path.write_bytes(pack(header, {**tensors, odd: torch.tensor(1.0)})[1])
        assert message_of(path, progress()), odd


def message_of(path, begun):
    try:
        load_training_state(path, "same", begun)
    except FertoolError as error:
        return error.message
    return ""
