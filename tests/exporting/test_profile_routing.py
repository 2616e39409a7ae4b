import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from dynamic_networks import cascade_network, dynamic_network
from torch import nn

from fertool.config.exporting import ExportConfig
from fertool.data.pixels import to_input
from fertool.exporting import export_model
from fertool.spec import InputSpec

INPUT = InputSpec(size=48)


@pytest.fixture(scope="module")
def dynamic():
    return dynamic_network(INPUT)


@pytest.fixture(scope="module")
def cascade():
    return cascade_network(INPUT)


@pytest.fixture(scope="module")
def images():
    scales = np.random.default_rng(0).uniform(0, 1, (64, 1, 1, 1))
    return (np.random.default_rng(1).integers(0, 256, (64, 1, 48, 48)) * scales).astype(np.uint8)


def session_of(content, **config):
    options = onnxruntime.SessionOptions()
    for key, value in config.items():
        setattr(options, key, value)
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("kind", ["dynamic", "cascade"])
def test_batches_of_any_mix_get_torchs_answers_in_their_order(kind, images, request):
    spec, module = request.getfixturevalue(kind)
    session = session_of(export_model(spec, module, ExportConfig()))
    with torch.inference_mode():
        inputs = to_input(torch.from_numpy(images), INPUT)
        wanted, profiles = module(inputs).numpy(), module.choose(inputs).numpy()
    assert len(set(profiles)) == 3
    for size in (1, 5, 64):
        for start in range(0, 60, size):
            part = slice(start, start + size)
            logits, chosen = session.run(["logits", "profile"], {"images": images[part]})
            np.testing.assert_allclose(logits, wanted[part], atol=1e-4)
            assert chosen.tolist() == profiles[part].tolist()


def test_only_the_chosen_network_runs(dynamic, images, tmp_path):
    spec, module = dynamic
    content = export_model(spec, module, ExportConfig())
    session = session_of(
        content, enable_profiling=True, profile_file_prefix=str(tmp_path / "trace")
    )
    session.run(["logits"], {"images": images[:1]})
    with open(session.end_profiling()) as file:
        ran = [
            event["args"]["op_name"]
            for event in json.load(file)
            if event["name"].endswith("kernel_time")
        ]
    (one,) = {
        sum(isinstance(layer, nn.Conv2d) for layer in network.modules())
        for network in module.networks
    }
    assert 1 <= ran.count("If") < len(module.networks)
    assert ran.count("Conv") == one + 1


def test_the_file_is_what_it_says(dynamic):
    spec, module = dynamic
    content = export_model(spec, module, ExportConfig())
    model = onnx.load_from_string(content)
    assert [output.name for output in model.graph.output] == ["logits", "profile"]
    assert export_model(spec, module, ExportConfig()) == content


def test_a_cascade_runs_wider_networks_for_unsure_images_only(cascade, images, tmp_path):
    spec, module = cascade
    with torch.inference_mode():
        profiles = module.choose(to_input(torch.from_numpy(images), INPUT))
    content = export_model(spec, module, ExportConfig())
    assert export_model(spec, module, ExportConfig()) == content
    (convolutions,) = {
        sum(isinstance(layer, nn.Conv2d) for layer in network.modules())
        for network in module.networks
    }
    for profile in range(3):
        chosen = int((profiles == profile).nonzero()[0])
        session = session_of(
            content, enable_profiling=True, profile_file_prefix=str(tmp_path / f"{profile}")
        )
        session.run(["logits"], {"images": images[chosen : chosen + 1]})
        with open(session.end_profiling()) as file:
            events = json.load(file)
        ran = [each["args"]["op_name"] for each in events if each["name"].endswith("kernel_time")]
        assert ran.count("Conv") == convolutions * (3 - profile)
