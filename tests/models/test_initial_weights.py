import contextlib
import json
import pickle
import random

import numpy as np
import pytest
import torch
from mutations import mutations

from fertool.errors import FertoolError
from fertool.models import create, save_model
from fertool.models.architecture import get_architecture
from fertool.models.initial_weights import load_initial_weights, transfer_weights
from fertool.spec import InputSpec

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def small(arch="mobilenet_v3_small", **args):
    return get_architecture(arch)(**{"width_mult": 0.25, **args})


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
    notes = load_initial_weights(module, saved(tmp_path, source.state_dict()))
    assert notes == [
        "classifier.3: 256 inputs and 1000 outputs in the file, "
        "256 inputs and 7 outputs here: keeps its initial values"
    ]
    assert torch.equal(module.classifier[3].weight, fresh)
    assert torch.equal(module.classifier[0].weight, source.classifier[0].weight)
    assert torch.equal(module.features[5].block[1][0].weight, source.features[5].block[1][0].weight)


@pytest.mark.parametrize(
    "arch", ["resnet18", "mobilenet_v2", "efficientnet_b0", "shufflenet_v2_x0_5"]
)
def test_an_rgb_stem_becomes_grayscale_with_the_same_logits(tmp_path, arch):
    torch.manual_seed(0)
    source, module = small(arch, in_channels=3), small(arch)
    source(torch.randn(4, 3, 48, 48))
    notes = load_initial_weights(module, saved(tmp_path, source.state_dict()))
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
        lambda state: {
            "epoch": 1,
            "state_dict": {f"module.{name}": tensor for name, tensor in state.items()},
        },
        lambda state: {
            name: t for name, t in state.items() if not name.endswith("num_batches_tracked")
        },
    ],
)
def test_checkpoint_wrappers_prefixes_and_old_files(tmp_path, wrap):
    source, module = small(), small()
    assert load_initial_weights(module, saved(tmp_path, wrap(source.state_dict()))) == []
    assert same(module, snapshot(source))


def test_a_fertool_file_is_taken_too(tmp_path):
    spec, source = create("mobilenet_v3_small", {"width_mult": 0.25}, InputSpec(), CLASSES)
    save_model(tmp_path / "m.pt", spec, source)
    module = small()
    assert load_initial_weights(module, tmp_path / "m.pt") == []
    assert same(module, snapshot(source))


def test_a_part_that_the_file_lacks_starts_afresh(tmp_path):
    source, module = small(num_classes=1000, in_channels=3), small("micro_expnet")
    attention = module.se.fc1.weight.clone()
    notes = load_initial_weights(module, saved(tmp_path, source.state_dict()))
    assert [note.split(":")[0] for note in notes] == [
        "features.0.0.weight",
        "classifier.0",
        "classifier.3",
        "se",
    ]
    assert torch.equal(module.se.fc1.weight, attention)
    assert torch.equal(module.features[12][0].weight, source.features[12][0].weight)


def test_a_part_that_the_network_lacks_is_dropped_unless_the_file_is_of_another_network(tmp_path):
    source, module = small("micro_expnet", num_classes=8), small()
    notes = load_initial_weights(module, saved(tmp_path, source.state_dict()))
    assert "se: not in this network: dropped" in notes
    assert torch.equal(module.features[12][0].weight, source.features[12][0].weight)
    with pytest.raises(FertoolError, match=r"features.0.0.weight is unknown"):
        load_initial_weights(
            small("resnet18"),
            saved(tmp_path, {**source.state_dict(), "fc.weight": torch.zeros(7, 128)}),
        )


def test_every_misfit_outside_the_classifier_is_listed_and_nothing_is_loaded(tmp_path):
    module = small()
    before = snapshot(module)
    state = snapshot(small())
    state["features.3.block.0.0.weight"] = torch.zeros(5, 8, 1, 1)
    state["features.7.extra"] = torch.zeros(1)
    del state["features.12.1.bias"]
    with pytest.raises(FertoolError) as error:
        load_initial_weights(module, saved(tmp_path, state))
    for part in (
        "features.3.block.0.0.weight is [5, 8, 1, 1], the network has [24, 8, 1, 1]",
        "features.7.extra is unknown",
        "features.12.1.bias is missing",
    ):
        assert part in error.value.message
    assert same(module, before)


def test_another_architecture_is_refused(tmp_path):
    with pytest.raises(FertoolError, match=r"and \d+ more"):
        load_initial_weights(small("resnet18"), saved(tmp_path, small().state_dict()))
    with pytest.raises(FertoolError, match="do not fit"):
        load_initial_weights(small(), saved(tmp_path, {}))


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
        load_initial_weights(small(), path)
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
            load_initial_weights(small(), tmp_path / name)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_files_fail_with_a_message_and_nothing_else(tmp_path):
    draw, module = (
        random.Random(0),
        torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.Linear(2, 2)),
    )
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
                load_initial_weights(module, path)


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
    taken = {
        name
        for name, tensor in module.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    assert {name.split(".")[0] for name in taken} <= {"conv1", "bn1", "layer1", "layer2"}
    assert {"conv1.weight", "layer2.1.conv2.weight"} <= taken
    assert copied == sum(
        bool(part.state_dict()) and not list(part.children()) for part in _shared(module)
    )
    assert copied < layers
    assert all(
        torch.equal(tensor, source.state_dict()[name])
        for name, tensor in snapshot(module).items()
        if name in taken
    )


def _shared(module):
    return [
        part
        for name in ("conv1", "bn1", "layer1", "layer2")
        for part in module.get_submodule(name).modules()
    ]


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


def _safetensors(state):
    kinds = {torch.float32: "F32", torch.int64: "I64"}
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, tensor in state.items():
        raw = tensor.numpy().tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {
            "dtype": kinds[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": offsets,
        }
        data += raw
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


PREFIXES = (
    "module.",
    "_orig_mod.",
    "model.",
    "backbone.",
    "net.",
    "encoder.",
    "module._orig_mod.",
    "model.backbone.",
)
KEYS = ("model_state_dict", "net", "ema", "model_ema", "weights", "params", "state_dict")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_of_wrappers_are_taken_off(tmp_path, prefix):
    source, module = small(), small()
    state = {f"{prefix}{name}": tensor for name, tensor in source.state_dict().items()}
    notes = load_initial_weights(module, saved(tmp_path, {"state_dict": state, "epoch": 1}))
    assert same(module, snapshot(source))
    assert prefix == "module." or notes == [
        f"prefix {prefix} removed: {len(state)} of {len(state)} tensors are the network's"
    ]


def test_a_prefix_of_all_but_the_head_is_taken_off(tmp_path):
    source, module = small(), small()
    state = {
        name if name.startswith("classifier") else f"backbone.{name}": tensor
        for name, tensor in source.state_dict().items()
    }
    load_initial_weights(module, saved(tmp_path, state))
    assert same(module, snapshot(source))


@pytest.mark.parametrize("key", KEYS)
def test_state_dicts_are_found_under_the_usual_keys(tmp_path, key):
    source, module = small(), small()
    load_initial_weights(
        module, saved(tmp_path, {"epoch": 3, key: source.state_dict(), "best_acc": 71.0})
    )
    assert same(module, snapshot(source))


def test_what_holds_other_things_says_which(tmp_path):
    with pytest.raises(FertoolError, match="it holds weights_of_mine, epoch"):
        load_initial_weights(
            small(), saved(tmp_path, {"weights_of_mine": {"a": torch.zeros(1)}, "epoch": 1})
        )


def test_a_safetensors_file_is_read_whatever_its_name(tmp_path):
    source, module = small(), small()
    path = tmp_path / "weights.bin"
    path.write_bytes(_safetensors(source.state_dict()))
    assert load_initial_weights(module, path) == []
    assert same(module, snapshot(source))


def test_every_wrong_header_of_a_safetensors_file_is_refused_or_fits(tmp_path):
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.Linear(2, 2))
    path, content = tmp_path / "w.safetensors", _safetensors(module.state_dict())
    length = 8 + int.from_bytes(content[:8], "little")
    before = snapshot(module)
    for what, header in mutations(json.loads(content[8:length])):
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + content[length:])
        with contextlib.suppress(FertoolError):
            load_initial_weights(module, path)
        assert same(module, before), what


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("0.weight", lambda t: t * torch.nan, "0.weight holds NaN or infinity"),
        ("0.weight", lambda t: t + torch.inf, "0.weight holds NaN or infinity"),
        ("0.weight", lambda t: t.double() + 1e300, "0.weight holds NaN or infinity"),
        ("0.weight", lambda t: t.to(torch.int32), "0.weight holds integers"),
        ("0.weight", lambda t: t > 0, "0.weight holds integers"),
        ("0.weight", lambda t: t.to(torch.complex64), "0.weight is complex"),
        ("0.weight", lambda t: t[:1].clone().expand(2, 1, 1, 1), "0.weight is expanded"),
        ("0.weight", lambda t: t.to_sparse(), "0.weight is sparse"),
        ("1.running_var", lambda t: -t, "1.running_var holds a negative variance"),
        ("1.running_mean", lambda t: t / 0, "1.running_mean holds NaN"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_weights_that_no_network_can_start_from_are_refused_by_name(tmp_path, name, change, said):
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2), torch.nn.Linear(2, 2)
    )
    state, before = snapshot(module), snapshot(module)
    path = saved(tmp_path, {**state, name: change(state[name])})
    with pytest.raises(FertoolError, match=said):
        load_initial_weights(module, path)
    assert same(module, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_taken(tmp_path, dtype):
    source, module = small(), small()
    state = {
        name: t.to(dtype) if t.is_floating_point() else t for name, t in source.state_dict().items()
    }
    load_initial_weights(module, saved(tmp_path, state))
    torch.testing.assert_close(
        module.classifier[0].weight, source.classifier[0].weight, rtol=0.01, atol=0.01
    )


def other_kinds(folder):
    """Files of weights that are no state dicts, by the words that name them."""
    np.savez(folder / "a.npz", weight=np.ones(3))
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), folder / "a.pt")
    (folder / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99))
    (folder / "a.tflite").write_bytes(b"\x1c\0\0\0TFL3" + bytes(99))
    (folder / "a.ONNX").write_bytes(b"\x08\x09\x12\x07pytorch")
    return {
        "a.npz": "NumPy",
        "a.pt": "TorchScript",
        "a.h5": "HDF5",
        "a.tflite": "TensorFlow Lite",
        "a.ONNX": "ONNX",
    }


def test_weights_in_files_of_other_kinds_are_named_by_their_kind(tmp_path):
    for name, kind in other_kinds(tmp_path).items():
        with pytest.raises(FertoolError, match=kind):
            load_initial_weights(small(), tmp_path / name)
