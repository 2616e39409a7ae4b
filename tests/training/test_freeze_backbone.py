import pytest
import torch
from dynamic_networks import cascade_network
from torch import nn

from fertool.errors import UsageError
from fertool.models.architecture import architecture_names, get_architecture
from fertool.training import fit
from fertool.training.freeze_backbone import BackboneFreezer


@pytest.mark.parametrize("arch", architecture_names())
def test_layers_shaped_by_the_number_of_classes_are_in_the_head_of_every_architecture(arch):
    shapes = []
    for classes in (7, 8):
        with torch.device("meta"):
            module = get_architecture(arch)(num_classes=classes)
        shapes.append({name: p.shape for name, p in module.named_parameters()})
    BackboneFreezer(module.train(), 1).start_epoch(1)
    trained = {name for name, p in module.named_parameters() if p.requires_grad}
    assert {name for name in shapes[0] if shapes[0][name] != shapes[1][name]} <= trained
    assert sum(module.get_parameter(name).numel() for name in trained) < 0.5 * sum(
        p.numel() for p in module.parameters()
    )
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)


def snapshots(module):
    taken = [{name: t.clone() for name, t in module.state_dict().items()}]
    return taken, lambda record: taken.append(
        {name: t.clone() for name, t in module.state_dict().items()}
    )


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_at_first_the_head_alone_moves_then_everything(faces, network, quick, shape, optimizer):
    module = network()
    taken, take = snapshots(module)
    config = quick(
        optimizer=optimizer, freeze_epochs=2, epochs=3, weight_decay=0.1, lr_schedule="constant"
    )
    fit(module, faces(64), faces(30, "val", 1), shape, config, on_epoch=take)
    for before, after, everything in zip(taken, taken[1:], (False, False, True), strict=False):
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved == (set(before) if everything else {"9.weight", "9.bias"})
    assert all(p.requires_grad for p in module.parameters())


def test_what_came_frozen_stays_frozen(faces, network, quick, shape):
    module = network()
    module[0].weight.requires_grad_(False)
    before = module[0].weight.clone()
    fit(module, faces(32), faces(6, "val"), shape, quick(epochs=3, freeze_epochs=1))
    assert torch.equal(module[0].weight, before)
    assert not module[0].weight.requires_grad


def test_patience_waits_for_the_whole_network(faces, network, quick, shape):
    config = quick(epochs=9, freeze_epochs=6, patience=1, lr=1e-9, lr_schedule="constant")
    assert len(fit(network(), faces(48), faces(30, "val", 1), shape, config).history) >= 7


def test_a_network_without_a_head_has_nothing_to_train_first(faces, quick, shape):
    module = nn.Sequential(nn.Conv2d(1, 3, 12), nn.Flatten())
    with pytest.raises(UsageError, match="``freeze_epochs=1``"):
        fit(module, faces(32), faces(6, "val"), shape, quick(freeze_epochs=1))


def test_each_profile_of_a_dynamic_network_has_a_head_of_its_own():
    _, module = cascade_network()
    BackboneFreezer(module, epochs=1).start_epoch(1)
    trainable = {name.split(".")[1] for name, p in module.named_parameters() if p.requires_grad}
    assert trainable == {"0", "1", "2"}
    assert not module.networks[0].get_parameter("features.0.0.weight").requires_grad
