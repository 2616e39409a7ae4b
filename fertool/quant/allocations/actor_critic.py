"""Bits learned by trial: recipe 5's allocation (Sun, thesis, section 4.2.3), by DDPG.

The channels are sorted by their mean traces. An episode goes through the bits: the actor gives a
fraction of the remaining channels 2 bits, then 3, and so on; the rest gets the most there are. The
reward is what is then measured: accuracy, less a penalty for bits over the budget. The actor sees
`[k, n_re, s, e, a_{k-1}]` (4-10): the bits, the remaining weights, where the present range starts
and ends among the channels, and its last action, all within 0 and 1. The critic learns the value of
an action (Lillicrap et al. 2016, arXiv 1509.02971, algorithm 1), with the source's rates, buffer,
batches, episodes and noise; it does not name the size of the networks: two layers of 300, as in
HAQ's.
"""

from __future__ import annotations

import copy
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fertool.quant.allocation import Allocation, BitEvaluator
from fertool.quant.allocation_problem import AllocationProblem
from fertool.quant.knapsack import spend_remaining_bits
from fertool.registry import ALLOCATIONS
from fertool.spec import WEIGHT_BITS

_HIDDEN = 300
# The fraction by which the target networks follow at each step (the paper's letter).
TAU = 0.01
# What the reward loses at twice the budget: as much as all accuracy is worth.
_PENALTY = 1.0


@dataclass(frozen=True)
class DDPGConfig:
    """The source's numbers: learning rates, batch, replay buffer, episodes, course of the noise.

    `decay` multiplies the noise after each episode behind the first `explore` ones.
    """

    actor_lr: float = 1e-4
    critic_lr: float = 1e-3
    batch: int = 128
    buffer: int = 600
    explore: int = 50
    episodes: int = 600
    noise: float = 0.5
    decay: float = 0.99


@ALLOCATIONS.register("actor-critic")
class ActorCritic(Allocation):
    """Learned fractions of the channels sorted by trace, tried on validation images."""

    needs_images: ClassVar[bool] = True

    def __init__(self, config: DDPGConfig = DDPGConfig()) -> None:
        self._config = config

    def allocate(
        self, problem: AllocationProblem, average_bits: float, evaluator: BitEvaluator | None
    ) -> Tensor:
        """Return the bits with the highest reward, the budget used up; evaluations are episodes."""
        if evaluator is None:
            raise AssertionError("the reward is an accuracy")
        bits = self._search(problem, average_bits, evaluator)
        items = problem.items
        return spend_remaining_bits(items, bits, items.budget(average_bits))

    def _search(
        self, problem: AllocationProblem, average_bits: float, evaluator: BitEvaluator
    ) -> Tensor:
        """Return the bits of the best episode, which may be over the budget."""
        config = self._config
        generator = torch.Generator().manual_seed(evaluator.seed)
        sampler = random.Random(evaluator.seed)
        # The initial weights depend on the seed alone, and nothing outside on them.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(evaluator.seed)
            agent = _Agent(config)
        # The first to be given bits, and so the fewest, are the channels that matter least.
        order = problem.traces.argsort(stable=True)
        best_reward = -torch.inf
        best = torch.full_like(problem.weight_counts, WEIGHT_BITS[0])
        total = config.explore + config.episodes
        for episode in range(total):
            noise = config.noise * config.decay ** max(0, episode - config.explore)
            act = partial(agent.act, noise=noise, generator=generator)
            bits, steps = _episode(problem, order, act)
            over = max(0.0, problem.average_bits(bits) / average_bits - 1)
            reward = evaluator.accuracy(bits) - _PENALTY * over
            agent.remember(steps, reward)
            if episode >= config.explore:
                for _ in steps:
                    agent.learn(sampler)
            if reward > best_reward:
                best_reward = reward
                best = bits
            evaluator.on_progress(episode + 1, total)
        return best


@dataclass(frozen=True)
class _Transition:
    """One action of an episode; `next` is the state that it leads to, None at the end."""

    state: Tensor
    action: Tensor
    next: Tensor | None


def _episode(
    problem: AllocationProblem, order: Tensor, act: Callable[[Tensor], float]
) -> tuple[Tensor, list[_Transition]]:
    """Allocate all bits once; returns them, and what the actor saw and did."""
    count = len(order)
    total = float(problem.weight_counts.sum())
    bits = torch.full_like(problem.weight_counts, problem.max_bits)
    states = []
    actions = []
    start = 0
    last = 0.0
    for k, next_bits in enumerate(range(WEIGHT_BITS[0], problem.max_bits)):
        remaining = float(problem.weight_counts[order[start:]].sum()) / total
        state = torch.tensor([k / len(WEIGHT_BITS), remaining, start / count, 1.0, last])
        last = act(state)
        states.append(state)
        actions.append(torch.tensor([last]))
        end = start + round(last * (count - start))
        bits[order[start:end]] = next_bits
        start = end

    transitions = []
    following = [*states[1:], None]
    for state, action, after in zip(states, actions, following, strict=True):
        transitions.append(_Transition(state, action, after))
    return bits, transitions


def _perceptron(inputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, _HIDDEN),
        nn.ReLU(),
        nn.Linear(_HIDDEN, _HIDDEN),
        nn.ReLU(),
        nn.Linear(_HIDDEN, 1),
    )


class _Agent:
    """Actor and critic, their target networks, and the replay buffer."""

    def __init__(self, config: DDPGConfig) -> None:
        self._config = config
        # A state has five numbers, to which the critic's input adds the action.
        self._actor = nn.Sequential(_perceptron(5), nn.Sigmoid())
        self._critic = _perceptron(6)
        self._target_actor = copy.deepcopy(self._actor)
        self._target_critic = copy.deepcopy(self._critic)
        self._buffer: deque[tuple[_Transition, float]] = deque(maxlen=config.buffer)
        self._actor_optimizer = torch.optim.Adam(self._actor.parameters(), lr=config.actor_lr)
        self._critic_optimizer = torch.optim.Adam(self._critic.parameters(), lr=config.critic_lr)

    @torch.no_grad()
    def act(self, state: Tensor, *, noise: float, generator: torch.Generator) -> float:
        """Return the fraction of the remaining channels that get the present bits, with noise."""
        drawn = noise * torch.randn(1, generator=generator)
        return float((self._actor(state) + drawn).clamp(0, 1))

    def remember(self, steps: list[_Transition], reward: float) -> None:
        """Keep an episode: its reward comes with the last step."""
        for step in steps:
            self._buffer.append((step, reward if step.next is None else 0.0))

    def learn(self, sampler: random.Random) -> None:
        """Take one step of both networks, on a batch from the replay buffer."""
        size = min(self._config.batch, len(self._buffer))
        batch = sampler.sample(self._buffer, size)
        states = torch.stack([step.state for step, _ in batch])
        actions = torch.stack([step.action for step, _ in batch])
        values = self._target_values(batch)
        predicted = self._critic(torch.cat([states, actions], 1))
        _minimize(self._critic_optimizer, F.mse_loss(predicted, values))
        chosen = self._actor(states)
        _minimize(self._actor_optimizer, -self._critic(torch.cat([states, chosen], 1)).mean())
        for target, source in self._parameter_pairs():
            target.data.lerp_(source.data, TAU)

    @torch.no_grad()
    def _target_values(self, batch: list[tuple[_Transition, float]]) -> Tensor:
        """Return what the critic should predict, [N, 1]: reward and value of the next state."""
        values = torch.tensor([[reward] for _, reward in batch])
        following, continues = [], []
        for step, _ in batch:
            continues.append(step.next is not None)
            if step.next is not None:
                following.append(step.next)
        if following:
            states = torch.stack(following)
            actions = self._target_actor(states)
            # Undiscounted: episodes are short, and their reward comes at the end.
            values[torch.tensor(continues)] += self._target_critic(torch.cat([states, actions], 1))
        return values

    def _parameter_pairs(self) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
        """Yield each parameter of the target networks with the learned one."""
        yield from zip(self._target_actor.parameters(), self._actor.parameters(), strict=True)
        yield from zip(self._target_critic.parameters(), self._critic.parameters(), strict=True)


def _minimize(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
