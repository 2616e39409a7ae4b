"""Shares of bits learned by trying them out: recipe 5's allocation (Sun, section 4.2.3), in the manner of DDPG.

The channels stand in the order of their mean traces. An episode goes through the widths: of the channels that are
left, the actor gives a share to 2 bits, then to 3, and so on; the rest gets the most there are. The reward is what is
then measured: accuracy, less a penalty for bits over the budget. The actor sees `[k, n_re, s, e, a_{k-1}]` (4-10): the
width, the weights that are left, where the present range starts and ends among the channels, and its last action, all
within 0 and 1. The critic learns what an action is worth (Lillicrap et al. 2016, arXiv 1509.02971, algorithm 1), with
the source's rates, buffer, batches, episodes and noise; it does not say how large the networks are: two layers of 300,
as in HAQ's.
"""

from __future__ import annotations

import copy
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fertool.data.dataset import FaceDataset
from fertool.data.pixels import to_input
from fertool.graph.folding import fold_for_inference
from fertool.graph.network import Network
from fertool.models.build import static
from fertool.models.quantized import dequantize, per_channel
from fertool.quant.allocation import Problem
from fertool.quant.knapsack import filled
from fertool.quant.observers import integer_weight, weight_scales
from fertool.spec import WEIGHT_BITS, Spec, WeightQuant

_HIDDEN = 300
_FOLLOW = 0.01
"""How fast the target networks follow."""
_PENALTY = 1.0
"""What the reward loses at twice the budget."""


@dataclass(frozen=True)
class Search:
    """The source's numbers: learning rates of actor and critic, batch, replay buffer, episodes, and the noise's course.

    `decay` multiplies the noise after each episode behind the `explore` first ones.
    """

    actor_lr: float = 1e-4
    critic_lr: float = 1e-3
    batch: int = 128
    buffer: int = 600
    explore: int = 50
    episodes: int = 600
    noise: float = 0.5
    decay: float = 0.99
    seed: int = 0


def search(
    problem: Problem,
    average_bits: float,
    accuracy: Callable[[Tensor], float],
    options: Search = Search(),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """Return the width of each channel, int64 [C], that had the highest reward, its budget then used to the last bit.

    `accuracy` measures a network with some widths [C], from 0 to 1. `on_progress` counts episodes.
    """
    generator, chance = torch.Generator().manual_seed(options.seed), random.Random(options.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        agent = _Agent(options)
    order = problem.traces.argsort(stable=True)
    best: tuple[float, Tensor] = (-torch.inf, torch.full_like(problem.weights, WEIGHT_BITS[0]))
    total = options.explore + options.episodes
    for episode in range(total):
        noise = options.noise * options.decay ** max(0, episode - options.explore)
        widths, steps = _episode(
            problem, order, partial(agent.act, noise=noise, generator=generator)
        )
        over = max(0.0, problem.average_bits(widths) / average_bits - 1)
        reward = accuracy(widths) - _PENALTY * over
        agent.remember(steps, reward)
        if episode >= options.explore:
            for _ in steps:
                agent.learn(chance)
        if reward > best[0]:
            best = (reward, widths)
        on_progress(episode + 1, total)
    return filled(problem.items, best[1], problem.items.budget(average_bits))


class RoundedAccuracy:
    """The accuracy on some images of a float network whose weights are rounded to other widths each time."""

    def __init__(
        self, spec: Spec, module: nn.Module, problem: Problem, images: FaceDataset, limit: int
    ) -> None:
        self._problem, self._labels, self._batches = (
            problem,
            images.labels,
            torch.split(images.images, 256),
        )
        self._input, self._network = spec.input, _parametrised(fold_for_inference(static(module)))
        self._integers: dict[str, Tensor] = {}
        self._scales: dict[str, Tensor] = {}
        for name in problem.names:
            weight = self._network.get_parameter(f"{name}.weight").detach()
            limits = [
                torch.tensor(WeightQuant((width,), limit).limits(len(weight)))
                for width in WEIGHT_BITS
            ]
            scales = [weight_scales(weight, bound, "mse") for bound in limits]
            pairs = zip(scales, limits, strict=True)
            integers = [
                integer_weight(weight, scale, bound).to(torch.int8) for scale, bound in pairs
            ]
            self._integers[name], self._scales[name] = torch.stack(integers), torch.stack(scales)

    @torch.no_grad()
    def __call__(self, widths: Tensor) -> float:
        """Return the accuracy with these widths [C]."""
        for index, name in enumerate(self._problem.names):
            chosen = widths[self._problem.layers == index] - WEIGHT_BITS[0]
            channels = torch.arange(len(chosen))
            rounded, scale = (
                self._integers[name][chosen, channels],
                self._scales[name][chosen, channels],
            )
            self._network.get_parameter(f"{name}.weight").copy_(
                dequantize(rounded, per_channel(scale, rounded))
            )
        answers = torch.cat(
            [self._network(to_input(batch, self._input)).argmax(1) for batch in self._batches]
        )
        return float((answers == self._labels).float().mean())


def _parametrised(network: Network) -> Network:
    return copy.deepcopy(network).requires_grad_(False).cpu()


@dataclass(frozen=True)
class _Step:
    state: Tensor
    action: Tensor
    next: Tensor | None


def _episode(
    problem: Problem, order: Tensor, act: Callable[[Tensor], float]
) -> tuple[Tensor, list[_Step]]:
    """Give out all widths once; returns them, and what the actor saw and did."""
    count, total = len(order), float(problem.weights.sum())
    widths = torch.full_like(problem.weights, problem.largest)
    states, actions = [], []
    start, last = 0, 0.0
    for k, width in enumerate(range(WEIGHT_BITS[0], problem.largest)):
        left = float(problem.weights[order[start:]].sum()) / total
        states.append(torch.tensor([k / len(WEIGHT_BITS), left, start / count, 1.0, last]))
        last = act(states[-1])
        actions.append(torch.tensor([last]))
        end = start + round(last * (count - start))
        widths[order[start:end]] = width
        start = end
    after = [*states[1:], None]
    return widths, [_Step(*step) for step in zip(states, actions, after, strict=True)]


def _network(inputs: int) -> nn.Sequential:
    return nn.Sequential(
        *(
            nn.Linear(inputs, _HIDDEN),
            nn.ReLU(),
            nn.Linear(_HIDDEN, _HIDDEN),
            nn.ReLU(),
            nn.Linear(_HIDDEN, 1),
        )
    )


class _Agent:
    """Actor and critic, the slow copies that they learn towards, and what they remember."""

    def __init__(self, options: Search) -> None:
        self._options = options
        self._actor = nn.Sequential(_network(5), nn.Sigmoid())
        self._critic = _network(6)
        self._slow_actor, self._slow_critic = (
            copy.deepcopy(self._actor),
            copy.deepcopy(self._critic),
        )
        self._memory: deque[tuple[_Step, float]] = deque(maxlen=options.buffer)
        self._actor_step = torch.optim.Adam(self._actor.parameters(), lr=options.actor_lr)
        self._critic_step = torch.optim.Adam(self._critic.parameters(), lr=options.critic_lr)

    @torch.no_grad()
    def act(self, state: Tensor, *, noise: float, generator: torch.Generator) -> float:
        """Return a share of the channels that are left, with noise on it."""
        drawn = noise * torch.randn(1, generator=generator)
        return float((self._actor(state) + drawn).clamp(0, 1))

    def remember(self, steps: list[_Step], reward: float) -> None:
        """Keep an episode: its reward comes with the last step."""
        rewards = itertools.chain(itertools.repeat(0.0, len(steps) - 1), [reward])
        self._memory.extend(zip(steps, rewards, strict=True))

    def learn(self, chance: random.Random) -> None:
        """Take one step of both networks, on a batch out of the memory."""
        drawn = chance.sample(self._memory, min(self._options.batch, len(self._memory)))
        states, actions = (
            torch.stack([getattr(step, key) for step, _ in drawn]) for key in ("state", "action")
        )
        worth = torch.tensor([[reward] for _, reward in drawn])
        goes_on = torch.tensor([step.next is not None for step, _ in drawn])
        with torch.no_grad():
            if bool(goes_on.any()):
                after = torch.stack([step.next for step, _ in drawn if step.next is not None])
                worth[goes_on] += self._slow_critic(torch.cat([after, self._slow_actor(after)], 1))
        _descend(
            self._critic_step, F.mse_loss(self._critic(torch.cat([states, actions], 1)), worth)
        )
        _descend(
            self._actor_step, -self._critic(torch.cat([states, self._actor(states)], 1)).mean()
        )
        for slow, fast in ((self._slow_actor, self._actor), (self._slow_critic, self._critic)):
            for target, source in zip(slow.parameters(), fast.parameters(), strict=True):
                target.data.lerp_(source.data, _FOLLOW)


def _descend(step: torch.optim.Optimizer, loss: Tensor) -> Any:
    step.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    step.step()
