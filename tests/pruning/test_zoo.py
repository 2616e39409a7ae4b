"""Every architecture of the zoo, pruned to half of its multiply-accumulates."""

import copy
from functools import cache

import pytest
import torch
from masking import randomise_norms

from fertool import cost
from fertool.config.pruning import SelectionConfig
from fertool.data.dataset import FaceDataset
from fertool.data.synth import draw_faces
from fertool.graph.channels import trace_channels
from fertool.graph.groups import find_groups
from fertool.graph.network import Network
from fertool.models import architecture_names, create
from fertool.pruning import Constraints, PruneResult, Targets, channel_counts, plan_step, prune
from fertool.spec import InputSpec, Spec
from fertool.training import predict_logits

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
ZOO = architecture_names()


@cache
def pruned_to_half(arch: str) -> tuple[Spec, Network, PruneResult]:
    torch.manual_seed(0)
    spec, module = create(arch, {}, InputSpec(), CLASSES)
    randomise_norms(module)
    return spec, module.eval(), prune(spec, module, Constraints(Targets(macs=0.5)))


@pytest.mark.parametrize("arch", ZOO)
def test_removing_channels_equals_zeroing_them(arch, zero_removed):
    _, module, result = pruned_to_half(arch)
    images = torch.randn(
        1, 1, 48, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    zeroed = zero_removed(module, result.plan).double()
    smaller = copy.deepcopy(result.module).double()
    with torch.no_grad():
        expected = zeroed(images)
        torch.testing.assert_close(smaller(images), expected, atol=1e-5, rtol=1e-9)
        assert not torch.allclose(module(images.float()).double(), expected, atol=1e-3)


@pytest.mark.parametrize("arch", ZOO)
def test_half_the_macs_are_gone_and_the_plan_knows_the_cost(arch):
    spec, module, result = pruned_to_half(arch)
    before, after = cost.count(module, spec.input), cost.count(result.module, spec.input)
    assert 0.45 <= after.macs / before.macs <= 0.50
    assert after.params < 0.85 * before.params
    assert (result.plan.macs_before, result.plan.params_before) == (before.macs, before.params)
    assert (result.plan.macs, result.plan.params) == (after.macs, after.params)
    assert sum(p.numel() for p in result.module.parameters()) == after.params


@pytest.mark.parametrize("arch", ZOO)
def test_the_plan_describes_the_pruned_network(arch):
    _, module, result = pruned_to_half(arch)
    widths, kept, made = result.plan.widths, result.plan.kept, result.module.graph.channels
    assert result.plan.widths_before == channel_counts(find_groups(trace_channels(module)))
    assert {name: made[name] for name in kept} == {name: len(rows) for name, rows in kept.items()}
    lowered = {
        key: width for key, width in widths.items() if width != result.plan.widths_before[key]
    }
    assert lowered
    assert all(width % result.plan.round_to == 0 for width in lowered.values())
    assert all(width >= 0.1 * result.plan.widths_before[key] for key, width in lowered.items())


@pytest.mark.parametrize("arch", ZOO)
def test_reconstruction_brings_the_logits_nearer_to_the_original(arch, randomise_norms):
    torch.manual_seed(0)
    spec, module = create(arch, {"width_mult": 0.5}, InputSpec(size=32), CLASSES)
    randomise_norms(module).eval()
    images = torch.from_numpy(draw_faces(192, 0, 32)[0])
    faces = FaceDataset(images, torch.zeros(192, dtype=torch.int64), CLASSES, "train", "")
    shown, fresh = faces.subset(torch.arange(128)), faces.subset(torch.arange(128, 192))
    plain, reconstructed = (
        plan_step(
            spec,
            module,
            Constraints(Targets(macs=0.5)),
            SelectionConfig(criterion="l1", round_to=4, reconstruct=reconstruct),
            shown,
        ).apply(module)
        for reconstruct in (False, True)
    )
    wanted, without, with_repair = (
        predict_logits(network, fresh, spec.input) for network in (module, plain, reconstructed)
    )
    assert (with_repair - wanted).square().mean() < 0.5 * (without - wanted).square().mean()
