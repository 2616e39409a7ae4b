import pytest
import torch
from torch import nn
from torch.func import functional_call, jvp
from torch.nn import functional as F

from fertool.config.quantization import QuantizeConfig
from fertool.data import DataOptions, open_data
from fertool.data.pixels import to_input
from fertool.graph.folding import fold_for_inference
from fertool.losses import output_factor, output_probes
from fertool.models import create
from fertool.quant import make_problem, weight_divergences
from fertool.quant.weight_errors import candidate_errors
from fertool.spec import InputSpec

INPUT = InputSpec(1, 32)
NEAREST = QuantizeConfig(rounding="nearest")


@pytest.fixture(scope="module")
def train():
    return open_data("synth:300", DataOptions(size=32)).split("train")


@pytest.fixture(scope="module")
def images(train):
    return train.balanced_subset(96, 0).images


def network_of(arch, images, **arguments):
    torch.manual_seed(0)
    classes = tuple("abcdefg")
    spec, module = create(arch, {"width_mult": 0.25, **arguments}, INPUT, classes)
    # Statistics that fit, so that activations are of the size that trained ones have.
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None
    with torch.no_grad():
        module.train()(to_input(images, INPUT))
    return spec, module.eval()


@pytest.mark.parametrize("arch", ["nano_resnet", "mobilenet_v3_small"])
def test_a_channel_costs_what_the_jacobian_says_of_its_error(arch, train, images):
    spec, module = network_of(arch, images)
    few = train.balanced_subset(16, 0)
    found = weight_divergences(spec, module, few, NEAREST)
    # Half of them are kept for the fit.
    images = few.balanced_subset(16, 0).images[8:]
    problem = make_problem(spec, module, None, NEAREST.weight_limit)
    network = fold_for_inference(module)
    errors = candidate_errors(
        network, problem.names, images, INPUT, limit=NEAREST.weight_limit, rounding="nearest"
    )
    pixels = to_input(images, INPUT)
    with torch.no_grad():
        factor = output_factor(network(pixels))
    (direction,) = output_probes(factor, 1, torch.Generator().manual_seed(0))
    for index in (0, len(problem.names) // 2, len(problem.names) - 1):
        name = f"{problem.names[index]}.weight"
        first = int((problem.layers < index).sum())
        expected = []
        for column in (0, 1):
            error = torch.zeros_like(errors[problem.names[index]].weight[column])
            error[1] = errors[problem.names[index]].weight[column, 1]

            def logits(weight, name=name):
                return functional_call(network, {name: weight}, (pixels,))

            weight = network.get_parameter(name).detach()
            _, change = jvp(logits, (weight,), (error,))
            expected.append((direction * change).sum(1).square().mean().item() / 2)
        # On a few images a bit more may look worse, which the costs leave out.
        costs = [expected[0], min(expected)]
        assert found[first + 1, :2].tolist() == pytest.approx(costs, rel=1e-3, abs=1e-12)


@torch.no_grad()
def test_costs_are_the_divergence_that_rounding_one_channel_really_causes(train, images):
    spec, module = network_of("nano_resnet", images)
    found = weight_divergences(spec, module, train, NEAREST)
    images = train.balanced_subset(1000, 0).images[(len(train) + 1) // 2 :]
    problem = make_problem(spec, module, None, NEAREST.weight_limit)
    network = fold_for_inference(module)
    errors = candidate_errors(
        network, problem.names, images, INPUT, limit=NEAREST.weight_limit, rounding="nearest"
    )
    before = network(to_input(images, INPUT)).log_softmax(1)
    for channel in (0, 20, len(problem.layers) - 3):
        layer = int(problem.layers[channel])
        name = problem.names[layer]
        row = channel - int((problem.layers < layer).sum())
        weight = network.get_parameter(f"{name}.weight")
        kept = weight.clone()
        weight[row] += errors[name].weight[1, row]
        after = network(to_input(images, INPUT)).log_softmax(1)
        weight.copy_(kept)
        caused = F.kl_div(after, before, log_target=True, reduction="batchmean")
        # One random direction for each of some 120 images.
        assert float(found[channel, 1]) == pytest.approx(float(caused), rel=0.5)


@torch.no_grad()
@pytest.mark.parametrize("arch", ["nano_resnet", "mobilenet_v3_small"])
def test_gptq_keeps_the_means_and_errs_less_at_the_outputs_of_layers(arch, images):
    _, module = network_of(arch, images)
    network = fold_for_inference(module)
    layers = {}
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layers[name] = layer
    inputs = {}
    for name, layer in layers.items():
        layer.register_forward_pre_hook(lambda _, args, name=name: inputs.update({name: args[0]}))
    gptq = candidate_errors(network, tuple(layers), images, INPUT)
    nearest = candidate_errors(network, tuple(layers), images, INPUT, rounding="nearest")
    better = 0
    for name, layer in layers.items():
        squares = []
        for errors in (gptq[name], nearest[name]):
            parameters = {"weight": errors.weight[1], "bias": errors.bias[1]}
            added = functional_call(layer, parameters, (inputs[name],))
            centered = added - added.mean((0, *range(2, added.dim())), keepdim=True)
            squares.append(float(centered.square().mean()))
            if errors is gptq[name] and added[0, 0].numel() <= 64:
                assert float(added.mean(0).sum()) == pytest.approx(0, abs=1e-2)
        better += squares[0] <= squares[1]
    assert better > 0.9 * len(layers)
