"""PyTorch, which runs fertool's own files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fertool.config.foreign_files import ForeignModel
from fertool.registry import RUNTIMES
from fertool.runtime.operator_times import (
    MICROSECOND,
    Images,
    OperatorTimes,
    profiled_passes,
)
from fertool.runtime.predictor import Forward, Predictor, ProfileRuns
from fertool.runtime.runtime import Runtime
from fertool.spec import Spec


@RUNTIMES.register("torch")
class Torch(Runtime):
    """PyTorch: fertool's own files, float or quantized."""

    package = "torch"
    modules = ("fertool.models", "fertool.data.pixels")

    def open(self, path: Path, threads: int | None, foreign: ForeignModel) -> Predictor:
        """Open a `.pt` file; the threads of torch are a setting of the whole process."""
        from fertool.models import load_model

        spec, module = load_model(path)
        return torch_predictor(path, spec, module)

    def profile(
        self, path: Path, threads: int | None, foreign: ForeignModel, batches: Sequence[Images]
    ) -> OperatorTimes:
        """Return the time in each operator of ATen itself, without those that it calls."""
        import torch
        from torch.profiler import ProfilerActivity, profile

        times = OperatorTimes()
        passes = profiled_passes(self.open(path, threads, foreign), batches)
        with self.limited_threads(threads or torch.get_num_threads()):
            passes.warm_up()
            with profile(activities=[ProfilerActivity.CPU]) as profiler:
                passes.run()
        for event in profiler.key_averages():
            times.add(event.key, event.self_cpu_time_total * MICROSECOND, event.count)
        return times

    @contextmanager
    def limited_threads(self, count: int) -> Iterator[None]:
        """Compute with `count` threads in the block, then with as many as before."""
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def torch_predictor(path: Path, spec: Spec, module: Any) -> Predictor:
    """Return a predictor for a module in PyTorch; messages call it `path`."""
    import torch

    from fertool.data.pixels import to_input

    network: Any = module

    def prepare(images: NDArray[np.uint8]) -> Forward:
        pixels = torch.from_numpy(images)

        def forward() -> Any:
            with torch.inference_mode():
                return module(to_input(pixels, spec.input))

        return forward

    def choose_profile(images: NDArray[np.uint8]) -> NDArray[np.int64]:
        with torch.inference_mode():
            inputs = to_input(torch.from_numpy(images), spec.input)
            profiles: NDArray[np.int64] = network.choose(inputs).numpy()
        return profiles

    return Predictor.of(
        path,
        "torch",
        spec,
        prepare,
        choose_profile=choose_profile,
        profiles=_profile_runs(spec, module),
    )


def _profile_runs(spec: Spec, module: Any) -> ProfileRuns | None:
    """Return the profiles of a dynamic network one by one, None for another network."""
    import torch

    from fertool import cost
    from fertool.data.pixels import to_input

    if spec.gates is None:
        return None

    def logits(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            inputs = to_input(torch.from_numpy(images), spec.input)
            by_profile = torch.stack([network(inputs) for network in module.networks])
        result: NDArray[np.float32] = by_profile.numpy()
        return result

    macs = tuple(cost.count(network, spec.input).macs for network in module.networks)
    return ProfileRuns(logits, macs, module.executed)
