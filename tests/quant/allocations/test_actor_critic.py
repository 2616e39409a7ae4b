import torch

from fertool.config.quantization import QuantizeConfig
from fertool.data.dataset import FaceDataset
from fertool.models import create
from fertool.quant import (
    AllocationProblem,
    BitEvaluator,
    RoundedAccuracy,
    make_problem,
    quantize_model,
)
from fertool.quant.allocations.actor_critic import ActorCritic, DDPGConfig
from fertool.spec import InputSpec
from fertool.training import predict_logits

SMALL = DDPGConfig(explore=20, episodes=60, batch=32, actor_lr=1e-3)


def toy(count=40):
    generator = torch.Generator().manual_seed(0)
    traces = torch.rand(count, generator=generator, dtype=torch.float64).exp()
    errors = (0.25 ** torch.arange(7, dtype=torch.float64)).expand(count, 7).contiguous()
    return AllocationProblem(
        ("layer",), torch.zeros(count, dtype=torch.int64), torch.full((count,), 16), traces, errors
    )


def test_it_learns_to_spend_the_budget_on_accuracy():
    problem, calls, seen = toy(), [], []

    def accuracy(widths):
        calls.append(problem.average_bits(widths))
        return 1 - problem.loss(widths) / problem.loss(torch.full_like(widths, 2))

    evaluator = BitEvaluator(accuracy, on_progress=lambda done, total: seen.append((done, total)))
    widths = ActorCritic(SMALL).allocate(problem, 4.0, evaluator)
    assert seen[-1] == (80, 80)
    assert 0.99 * 4 <= problem.average_bits(widths) <= 4
    assert accuracy(widths) > 0.9
    # Channels are served in the order of their traces.
    assert (
        torch.sort(widths[problem.traces.argsort()]).values == widths[problem.traces.argsort()]
    ).float().mean() > 0.8
    again = ActorCritic(SMALL).allocate(problem, 4.0, evaluator)
    assert torch.equal(widths, again)


def test_the_reward_is_the_accuracy_of_rounded_weights():
    torch.manual_seed(0)
    spec, module = create("nano_resnet", {"width_mult": 0.25}, InputSpec(1, 32), ("a", "b", "c"))
    images = torch.randint(0, 256, (30, 1, 32, 32), dtype=torch.uint8)
    data = FaceDataset(images, torch.arange(30) % 3, spec.classes, "train", "0" * 64)
    problem = make_problem(spec, module.eval(), None)
    measured = RoundedAccuracy(spec, module, problem, data, 127)
    exact = (predict_logits(module, data, spec.input).argmax(1) == data.labels).float().mean()
    assert measured(torch.full_like(problem.weight_counts, 8)) == exact
    for bits in (2, 3):
        config = QuantizeConfig(rounding="nearest", weight_observer="mse", weight_range="full")
        widths = torch.full_like(problem.weight_counts, bits)
        _, integer = quantize_model(spec, module, data, config, bits=problem.by_layer(widths))
        accuracy_of_network = (
            (predict_logits(integer, data, spec.input).argmax(1) == data.labels).float().mean()
        )
        assert abs(measured(widths) - accuracy_of_network) <= 0.1
