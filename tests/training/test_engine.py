import math
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

from fertool.config.training import NO_AUGMENTATION
from fertool.data.pixels import to_input
from fertool.errors import FertoolError
from fertool.losses import ClassificationLoss, cross_entropy
from fertool.training import Supervised, fit, predict_logits


def state(module):
    return {name: tensor.numpy().tobytes() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_a_run_learns_and_keeps_the_epoch_with_the_best_accuracy(
    faces, network, quick, shape, optimizer, ema_decay
):
    module, val = network(), faces(45, "val", seed=1)
    result = fit(
        module,
        faces(150),
        val,
        shape,
        quick(optimizer=optimizer, ema_decay=ema_decay, max_grad_norm=5),
    )
    best = result.history[result.kept_epoch - 1]
    assert best.val_accuracy == max(record.val_accuracy for record in result.history)
    assert result.evaluation.accuracy == pytest.approx(best.val_accuracy)
    assert result.evaluation.accuracy > 0.9
    assert not module.training
    logits = module(to_input(val.images, shape))
    assert cross_entropy(logits, val.targets()).item() == pytest.approx(best.val_loss, rel=1e-4)
    assert [record.epoch for record in result.history] == [1, 2, 3, 4, 5]


def test_the_same_seed_gives_the_same_bytes_whatever_the_global_generator_holds(
    faces, network, quick, shape
):
    runs = []
    for seed in (0, 0, 1):
        module = network()
        torch.manual_seed(len(runs))
        before = torch.get_rng_state()
        result = fit(module, faces(64), faces(30, "val", 1), shape, quick(seed=seed, epochs=2))
        assert torch.equal(torch.get_rng_state(), before)
        records = [{**asdict(record), "seconds": 0} for record in result.history]
        runs.append((state(module), records))
    assert runs[0] == runs[1]
    assert runs[0][0] != runs[2][0]


def test_one_plain_step_is_the_textbook_update(faces, network, quick, shape):
    data, module, twin = faces(32), network(), network()
    for each in (module, twin):
        each[8].p = 0.0
    config = quick(
        epochs=1,
        batch_size=32,
        optimizer="sgd",
        momentum=0,
        lr_schedule="constant",
        augmentation=NO_AUGMENTATION,
    )
    config = replace(config, weight_decay=0.01)
    result = fit(module, data, data, shape, config, objective=Supervised(ClassificationLoss(0.1)))
    loss = nn.functional.cross_entropy(
        twin(to_input(data.images, shape)), data.labels, label_smoothing=0.1
    )
    loss.backward()
    assert result.history[0].train_loss == pytest.approx(loss.item(), rel=1e-5)
    for name, parameter in twin.named_parameters():
        decayed = 0.01 * parameter if parameter.ndim > 1 else 0
        expected = parameter - config.lr * (parameter.grad + decayed)
        torch.testing.assert_close(module.get_parameter(name), expected, atol=1e-6, rtol=1e-4)


def test_a_network_learns_the_soft_labels(faces, network, quick, shape):
    data = faces(96)
    turned = torch.eye(3)[(data.labels + 1) % 3]
    soft = replace(data, soft_labels=0.9 * turned + 0.1 / 3)
    module = network()
    fit(module, soft, replace(soft, labels=(data.labels + 1) % 3), shape, quick())
    predictions = predict_logits(module, data, shape).argmax(1)
    assert (predictions == (data.labels + 1) % 3).float().mean() > 0.9


@pytest.mark.parametrize(("images", "steps"), [(33, 2), (34, 3), (32, 2), (5, 1)])
def test_a_last_batch_of_one_image_is_left_out(faces, network, quick, shape, images, steps):
    seen = []
    config = quick(epochs=1)
    fit(
        network(),
        faces(images),
        faces(6, "val"),
        shape,
        config,
        on_batch=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(step + 1, steps) for step in range(steps)]


def test_patience_ends_a_run_that_no_longer_improves(faces, network, quick, shape):
    result = fit(
        network(),
        faces(48),
        faces(30, "val", 1),
        shape,
        quick(epochs=40, patience=2, optimizer="adam"),
    )
    assert len(result.history) == result.kept_epoch + 2 < 40


def test_the_last_epoch_stays_where_it_is_wanted(faces, network, quick, shape):
    data = faces(48), faces(30, "val", 1), shape
    module, through = network(), network()
    result = fit(module, *data, quick(epochs=20, patience=1, keep="last", optimizer="adam"))
    best = fit(through, *data, quick(epochs=20, optimizer="adam"))
    assert best.kept_epoch < result.kept_epoch == len(result.history) == 20
    assert result.evaluation.accuracy == result.history[-1].val_accuracy
    assert any(
        not torch.equal(a, b)
        for a, b in zip(module.parameters(), through.parameters(), strict=True)
    )


def test_of_two_epochs_alike_in_accuracy_the_lower_loss_wins(faces, network, quick, shape):
    result = fit(network(), faces(96), faces(30, "val", 1), shape, quick(epochs=8))
    top = max(record.val_accuracy for record in result.history)
    rivals = [record for record in result.history if record.val_accuracy == top]
    assert len(rivals) > 1
    assert result.kept_epoch == min(rivals, key=lambda record: record.val_loss).epoch


def test_a_loss_that_is_not_finite_is_an_error_that_names_the_epoch(faces, network, quick, shape):
    config = quick(optimizer="sgd", lr=1e30)
    with pytest.raises(FertoolError, match=r"^epoch 1: the loss is nan") as error:
        fit(network(), faces(64), faces(6, "val"), shape, config)
    assert "lower ``lr`` than 1e+30" in error.value.hint


@pytest.mark.parametrize(("n_train", "n_val", "split"), [(1, 5, "train"), (5, 0, "val")])
def test_a_split_with_too_few_images_is_an_error(
    faces, network, quick, shape, n_train, n_val, split
):
    with pytest.raises(FertoolError, match=f"the {split} split has"):
        fit(network(), faces(n_train), faces(n_val, "val"), shape, quick())


def test_frozen_parameters_stay(faces, network, quick, shape):
    module = network()
    module[0].weight.requires_grad_(False)
    before = module[0].weight.clone()
    fit(module, faces(32), faces(6, "val"), shape, quick(epochs=1, weight_decay=0.1))
    assert torch.equal(module[0].weight, before)


def test_an_objective_of_ones_own_drives_the_same_loop(faces, network, quick, shape):
    class TowardsZero:
        fingerprint = "towards zero"

        def __call__(self, module, inputs, targets):
            return module(inputs).square().mean()

    module, data = network(), faces(32)
    fit(module, data, data, shape, quick(epochs=8, lr=0.05), objective=TowardsZero())
    assert predict_logits(module, data, shape).square().mean() < 0.05


def test_predictions_do_not_depend_on_the_size_of_batches_and_leave_the_mode(faces, network, shape):
    module, data = network().train(), faces(10)
    by_three = predict_logits(module, data, shape, batch_size=3)
    assert module.training
    torch.testing.assert_close(by_three, predict_logits(module, data, shape))
    torch.testing.assert_close(by_three, module.eval()(to_input(data.images, shape)).detach())
    assert predict_logits(module, faces(0), shape).shape == (0, 3)
    assert math.isfinite(by_three.sum())
