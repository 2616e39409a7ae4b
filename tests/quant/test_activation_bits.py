from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from fertool.config.quantization import QuantizeConfig
from fertool.data import DataOptions, open_data
from fertool.data.pixels import to_input
from fertool.errors import UsageError
from fertool.graph.folding import fold_for_inference
from fertool.models import create
from fertool.models.quantized import insert_at_quantizer_points
from fertool.models.quantizer_points import find_quantizer_points
from fertool.quant import quantize_model
from fertool.quant.activation_bits import ACTIVATION_BITS, allocate_activation_bits, rounding_losses
from fertool.quant.knapsack import KnapsackItems
from fertool.quant.observers import HistogramObserver, RangeObserver, activation_qparams
from fertool.spec import InputSpec

INPUT = InputSpec(1, 32)


class Rounded(torch.nn.Module):
    def __init__(self, grid, bits):
        super().__init__()
        self.grid, self.high = grid, 2**bits - 1

    def forward(self, values):
        integers = (torch.round(values / self.grid.scale) + self.grid.zero_point).clamp(
            0, self.high
        )
        return (integers - self.grid.zero_point) * self.grid.scale


@pytest.fixture(scope="module")
def shown():
    return open_data("synth:700", DataOptions(size=32)).split("train")


@pytest.fixture(scope="module")
def network(shown):
    torch.manual_seed(0)
    spec, module = create("nano_resnet", {"width_mult": 0.25}, INPUT, shown.classes)
    # Statistics that fit, so that activations are of the size that trained ones have.
    module.train()
    for _ in range(30):
        module(to_input(shown.images[:128], INPUT))
    return spec, module.eval()


@torch.no_grad()
def test_losses_are_the_divergence_that_rounding_one_site_really_causes(network, shown):
    _, module = network
    float_network, images = fold_for_inference(module), shown.images[:512]
    plan = find_quantizer_points(float_network.graph, INPUT)
    grids = {}
    for point in plan.points:
        ends = RangeObserver()
        insert_at_quantizer_points(float_network, plan, {point.name: ends})(to_input(images, INPUT))
        seen = HistogramObserver(ends.low, ends.high)
        insert_at_quantizer_points(float_network, plan, {point.name: seen})(to_input(images, INPUT))
        grids[point.name] = [activation_qparams(seen, "mse", bits) for bits in ACTIVATION_BITS]
    with torch.enable_grad():
        items = rounding_losses(float_network, plan, grids, images, INPUT)
    logits = module(to_input(images, INPUT))
    before = logits.log_softmax(1)
    for index in (0, 3, 9, len(plan.points) - 1):
        name = plan.points[index].name
        for column, bits in ((2, 6), (4, 8)):
            rounded = insert_at_quantizer_points(
                float_network, plan, {name: Rounded(grids[name][column], bits)}
            )
            after = rounded(to_input(images, INPUT)).log_softmax(1)
            caused = F.kl_div(after, before, log_target=True, reduction="batchmean")
            # One random direction for each image: the mean over 512 of them is within a tenth.
            assert float(items.losses[index, column]) == pytest.approx(float(caused), rel=0.4)


def test_the_mean_is_met_and_loses_less_than_bits_alike():
    torch.manual_seed(0)
    errors = torch.rand(40, 1, dtype=torch.float64).exp() * torch.tensor(
        [4.0**-k for k in range(5)]
    )
    items = KnapsackItems(errors.double(), torch.randint(100, 3000, (40,)), ACTIVATION_BITS, 8)
    for mean in (4.0, 5.0, 6.3, 8.0):
        widths = torch.tensor(allocate_activation_bits(items, mean))
        reached = items.total_bits(widths) / int(items.sizes.sum())
        assert 0.99 * mean <= reached <= mean + 1e-9
        assert set(widths.tolist()) <= set(ACTIVATION_BITS)
    alike = items.losses[:, 1].sum()
    shared = items.losses.gather(
        1, torch.tensor(allocate_activation_bits(items, 5.0))[:, None] - 4
    ).sum()
    assert shared < alike


def test_a_network_with_fewer_bits_where_they_matter_least_is_nearer_to_the_float_one(
    network, shown
):
    spec, module = network
    pixels = to_input(shown.images[:256], INPUT)
    with torch.no_grad():
        before = module(pixels).log_softmax(1)

        def divergence(**bits):
            quant, net = quantize_model(
                spec, module, shown, QuantizeConfig(calibration_images=128, **bits)
            )
            assert net.grids.bits == quant.activations
            return quant, float(
                F.kl_div(net(pixels).log_softmax(1), before, log_target=True, reduction="batchmean")
            )

        alike, lost_alike = divergence(activation_bits=5)
        shared, lost_shared = divergence(average_activation_bits=5.0)
    assert set(alike.activations.values()) == {5}
    assert len(set(shared.activations.values())) > 1
    assert lost_shared < lost_alike


@pytest.mark.parametrize("mean", [3.9, 8.1, 0.0])
def test_means_that_no_activation_can_have(mean):
    with pytest.raises(UsageError, match="must be 4 or more and at most 8"):
        QuantizeConfig(average_activation_bits=mean)


def test_two_budgets_for_activations():
    config = QuantizeConfig(average_activation_bits=5.5)
    with pytest.raises(UsageError, match="more than one budget"):
        replace(config, activation_bits=6)
