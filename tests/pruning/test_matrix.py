"""Every architecture of the zoo by every criterion."""

import copy
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from fertool import cost
from fertool.config.exporting import ExportConfig
from fertool.config.pruning import SelectionConfig
from fertool.data import DataOptions, open_data
from fertool.data.pixels import to_input
from fertool.exporting import export_model
from fertool.models import architecture_names, create
from fertool.pruning import Constraints, Targets, plan_step, score_channels
from fertool.registry import CRITERIA
from fertool.spec import InputSpec

INPUT = InputSpec(size=32)


@pytest.fixture(scope="module")
def faces():
    return open_data("synth:140", DataOptions(size=32)).split("train").subset(torch.arange(48))


@pytest.mark.parametrize("arch", architecture_names())
def test_budget_removal_and_runtime(arch, faces, randomise_norms, zero_removed):
    torch.manual_seed(0)
    args = {} if arch == "eff_resnet18" else {"width_mult": 0.25}
    spec, module = create(arch, args, INPUT, faces.classes)
    randomise_norms(module).eval()
    whole = cost.count(module, INPUT).macs
    pixels = faces.images[:2]
    inputs = to_input(pixels, INPUT)
    for criterion in CRITERIA.names():
        # Channel by channel takes long, and is the same search: for one criterion.
        round_to = 1 if criterion == "kl" else 4
        selection = SelectionConfig(criterion=criterion, round_to=round_to, reconstruct=False)
        scored = score_channels(spec, module, selection, faces)
        # Extreme budgets for one criterion of each kind: their limits do not depend on the scores.
        for target in (0.7, 0.5, 0.3) if criterion in ("l1", "kl") else (0.5,):
            cut = plan_step(
                spec,
                module,
                Constraints(Targets(macs=target)),
                replace(selection, round_to=1),
                faces,
                scored=scored,
            )
            smaller = cut.apply(module)
            assert 0.95 * target <= cost.count(smaller, INPUT).macs / whole <= target, (
                criterion,
                target,
            )
            zeroed = zero_removed(module, cut.plan)
            with torch.no_grad():
                wanted = zeroed.double()(inputs.double())
                found = copy.deepcopy(smaller).double()(inputs.double())
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-7)
            if criterion == "kl":
                content = export_model(spec, smaller, ExportConfig(simplify=False))
                session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
                logits = session.run(["logits"], {"images": pixels.numpy()})[0]
                scale = max(1.0, float(wanted.abs().max()))
                np.testing.assert_allclose(logits / scale, wanted.numpy() / scale, atol=1e-4)
