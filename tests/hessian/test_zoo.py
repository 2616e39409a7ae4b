"""Every architecture of the zoo has traces, and they are the right ones."""

import numpy as np
import pytest
import torch

from fertool import models
from fertool.config.sensitivity import TraceConfig
from fertool.hessian import estimate_traces, weighted_layers
from fertool.losses import output_factor
from fertool.spec import InputSpec

LABELS = torch.tensor([0, 2])
CLASSES = ("happy", "sad", "neutral")


def fresh(arch):
    torch.manual_seed(0)
    _, module = models.create(arch, {}, InputSpec(), CLASSES)
    return module.eval(), torch.randn(2, 1, 48, 48)


@pytest.mark.parametrize("arch", models.architecture_names())
def test_every_channel_of_every_layer_has_a_trace(arch):
    module, images = fresh(arch)
    layers = estimate_traces(module, images, LABELS, TraceConfig("probe", probes=2)).layers
    weighted = weighted_layers(module)
    assert [layer.name for layer in layers] == list(weighted)
    for layer in layers:
        weight = weighted[layer.name].weight
        for kind in ("weight", "activation"):
            assert (
                len(getattr(layer, f"{kind}_trace"))
                == len(getattr(layer, f"{kind}_trace_sem"))
                == len(weight)
            )
            assert min(getattr(layer, f"{kind}_trace")) >= 0
        assert layer.weight_params * len(weight) == weight.numel()
    assert min(layers[-1].weight_trace) > 0
    assert max(layers[0].weight_trace) > 0


@pytest.mark.parametrize("arch", ["mobilenet_v3_small", "shufflenet_v2_x0_5", "ean"])
def test_exact_traces_equal_one_backward_pass_per_image_and_class(arch):
    module, images = (part.double() for part in fresh(arch))
    weights = [layer.weight for layer in weighted_layers(module).values()]
    expected = [torch.zeros(len(weight), dtype=torch.float64) for weight in weights]
    for image in images:
        logits = module(image[None])
        for column in output_factor(logits.detach())[0].T:
            gradients = torch.autograd.grad(logits, weights, column[None], retain_graph=True)
            for total, gradient in zip(expected, gradients, strict=True):
                total += gradient.flatten(1).square().sum(1) / len(images)
    for layer, traces in zip(estimate_traces(module, images, LABELS).layers, expected, strict=True):
        np.testing.assert_allclose(
            layer.weight_trace, traces, rtol=1e-9, atol=1e-12 * float(traces.max())
        )


@pytest.mark.parametrize(
    "arch", ["mobilenet_v3_small", "efficientnet_b0", "shufflenet_v2_x0_5", "ean", "eff_resnet18"]
)
def test_every_kind_of_operator_has_second_derivatives(arch):
    module, images = fresh(arch)
    found = estimate_traces(module, images, LABELS, TraceConfig("hutchinson", probes=2))
    assert [layer.name for layer in found.layers] == list(weighted_layers(module))
    assert np.abs(found.layers[0].weight_trace).max() > 0
    assert np.abs(found.layers[0].activation_trace).max() > 0
