import contextlib
import pickle
import random

import pytest
import torch

from fertool.errors import FertoolError
from fertool.models import create, save_model
from fertool.models.initial import load_initial, transfer_weights
from fertool.models.registry import get_architecture
from fertool.spec import InputSpec

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def small(arch="mobilenet_v3_small", **args):
    return get_architecture(arch)(None, **{"width_mult": 0.25, **args})


def saved(tmp_path, content):
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    return path


def snapshot(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(module, before):
    return all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_a_thousand_class_head_starts_afresh_and_the_rest_is_taken(tmp_path):
    source, module = small(num_classes=1000), small()
    fresh = module.classifier[3].weight.clone()
    notes = load_initial(module, saved(tmp_path, source.state_dict()))
    assert notes == [
        "classifier.3: 256 inputs and 1000 outputs in the file, 256 inputs and 7 outputs here: starts afresh"
    ]
    assert torch.equal(module.classifier[3].weight, fresh)
    assert torch.equal(module.classifier[0].weight, source.classifier[0].weight)
    assert torch.equal(module.features[5].block[1][0].weight, source.features[5].block[1][0].weight)


@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v2", "efficientnet_b0", "shufflenet_v2_x0_5"])
def test_an_rgb_stem_becomes_grayscale_with_the_same_logits(tmp_path, arch):
    torch.manual_seed(0)
    source, module = small(arch, in_channels=3), small(arch)
    source(torch.randn(4, 3, 48, 48))
    notes = load_initial(module, saved(tmp_path, source.state_dict()))
    assert [note.split(": ")[1] for note in notes] == ["RGB summed to grayscale"]
    images = torch.randn(3, 1, 48, 48)
    expected = source.eval()(images.expand(-1, 3, -1, -1))
    torch.testing.assert_close(module.eval()(images), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"epoch": 1, "state_dict": {f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")},
    ],
)
def test_checkpoint_wrappers_prefixes_and_old_files(tmp_path, wrap):
    source, module = small(), small()
    assert load_initial(module, saved(tmp_path, wrap(source.state_dict()))) == []
    assert same(module, snapshot(source))


def test_a_fertool_file_is_taken_too(tmp_path):
    spec, source = create("mobilenet_v3_small", {"width_mult": 0.25}, InputSpec(), CLASSES)
    save_model(tmp_path / "m.pt", spec, source)
    module = small()
    assert load_initial(module, tmp_path / "m.pt") == []
    assert same(module, snapshot(source))


def test_a_part_that_the_file_lacks_starts_afresh(tmp_path):
    source, module = small(num_classes=1000, in_channels=3), small("micro_expnet")
    attention = module.se.fc1.weight.clone()
    notes = load_initial(module, saved(tmp_path, source.state_dict()))
    assert [note.split(":")[0] for note in notes] == ["features.0.0.weight", "classifier.0", "classifier.3", "se"]
    assert torch.equal(module.se.fc1.weight, attention)
    assert torch.equal(module.features[12][0].weight, source.features[12][0].weight)


def test_a_part_that_the_network_lacks_is_dropped_unless_the_file_is_of_another_network(tmp_path):
    source, module = small("micro_expnet", num_classes=8), small()
    notes = load_initial(module, saved(tmp_path, source.state_dict()))
    assert "se: not in this network: dropped" in notes
    assert torch.equal(module.features[12][0].weight, source.features[12][0].weight)
    with pytest.raises(FertoolError, match=r"features.0.0.weight is unknown"):
        load_initial(small("resnet18"), saved(tmp_path, {**source.state_dict(), "fc.weight": torch.zeros(7, 128)}))


def test_every_misfit_outside_the_classifier_is_listed_and_nothing_is_loaded(tmp_path):
    module = small()
    before = snapshot(module)
    state = snapshot(small())
    state["features.3.block.0.0.weight"] = torch.zeros(5, 8, 1, 1)
    state["features.7.extra"] = torch.zeros(1)
    del state["features.12.1.bias"]
    with pytest.raises(FertoolError) as error:
        load_initial(module, saved(tmp_path, state))
    for part in (
        "features.3.block.0.0.weight is [5, 8, 1, 1], the network has [24, 8, 1, 1]",
        "features.7.extra is unknown",
        "features.12.1.bias is missing",
    ):
        assert part in error.value.message
    assert same(module, before)


def test_another_architecture_is_refused(tmp_path):
    with pytest.raises(FertoolError, match=r"and \d+ more"):
        load_initial(small("resnet18"), saved(tmp_path, small().state_dict()))
    with pytest.raises(FertoolError, match="do not fit"):
        load_initial(small(), saved(tmp_path, {}))


class _Marker:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("protocol", ["zip", "pickle"])
def test_code_in_a_pickle_is_not_run(tmp_path, protocol):
    marker, path = tmp_path / "ran", tmp_path / "weights.pth"
    if protocol == "zip":
        torch.save({"state_dict": _Marker(str(marker))}, path)
    else:
        path.write_bytes(pickle.dumps(_Marker(str(marker)), protocol=2))
    with pytest.raises(FertoolError, match="nothing was run"):
        load_initial(small(), path)
    assert not marker.exists()


def test_files_that_hold_no_weights(tmp_path):
    (tmp_path / "text.pth").write_text("pixels,emotion\n")
    (tmp_path / "empty.pth").write_bytes(b"")
    whole = saved(tmp_path, small().state_dict())
    (tmp_path / "cut.pth").write_bytes(whole.read_bytes()[:5000])
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "numbers.pth")
    for name in ("text.pth", "empty.pth", "cut.pth", "list.pth", "numbers.pth", "absent.pth"):
        with pytest.raises(FertoolError, match=name):
            load_initial(small(), tmp_path / name)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_files_fail_with_a_message_and_nothing_else(tmp_path):
    draw, module = random.Random(0), torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.Linear(2, 2))
    path = tmp_path / "weights.pth"
    for zipped in (True, False):
        torch.save(module.state_dict(), path, _use_new_zipfile_serialization=zipped)
        whole = path.read_bytes()
        for _ in range(150):
            damaged = bytearray(whole)
            for _ in range(draw.choice((1, 3, 10))):
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
            path.write_bytes(damaged)
            with contextlib.suppress(FertoolError):
                load_initial(module, path)


def test_all_layers_go_over_between_networks_alike():
    source, module = small(), small()
    copied, layers = transfer_weights(module, source)
    assert copied == layers > 50
    assert same(module, source.state_dict())


def test_layers_go_over_whole_where_names_and_shapes_agree():
    # ResNet-18's stem and first stages are EFF-ResNet18's; its head has the name but not the shape.
    source, module = small("resnet18"), small("eff_resnet18")
    before = snapshot(module)
    copied, layers = transfer_weights(module, source)
    taken = {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.split(".")[0] for name in taken} <= {"conv1", "bn1", "layer1", "layer2"}
    assert {"conv1.weight", "layer2.1.conv2.weight"} <= taken
    assert copied == sum(bool(part.state_dict()) and not list(part.children()) for part in _shared(module))
    assert copied < layers
    assert all(
        torch.equal(tensor, source.state_dict()[name]) for name, tensor in snapshot(module).items() if name in taken
    )


def _shared(module):
    return [part for name in ("conv1", "bn1", "layer1", "layer2") for part in module.get_submodule(name).modules()]


def test_the_head_can_be_left_out_and_strangers_have_nothing_in_common():
    source, module = small(), small()
    before = snapshot(module)
    copied, layers = transfer_weights(module, source, head=False)
    assert copied == layers - 2
    assert torch.equal(module.classifier[3].weight, before["classifier.3.weight"])
    assert torch.equal(module.features[0][0].weight, source.features[0][0].weight)
    other = small("resnet18")
    before = snapshot(other)
    assert transfer_weights(other, source)[0] == 0
    assert same(other, before)
