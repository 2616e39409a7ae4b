"""Which layers of a network compute on integers: decided by kernel times, or by the clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fertool.config.quantization import QuantizeConfig
from fertool.errors import UsageError
from fertool.reporter import SILENT, Reporter
from fertool.spec import ComputeSpec
from fertool.workflows.network_latency import bench_networks

if TYPE_CHECKING:
    from fertool.data.dataset import FaceDataset
    from fertool.graph.network import Network
    from fertool.quant import ComputeChoice, KernelTimes
    from fertool.spec import InputSpec, Spec
    from fertool.workflows.model import Model

_TRIAL_IMAGES = 16
"""Images that calibrate a network whose speed alone is asked for."""
_KEPT = 4
"""Digits of a speedup in a header."""


def choose_compute(
    network: Model, config: QuantizeConfig, images: FaceDataset, reporter: Reporter = SILENT
) -> ComputeChoice | None:
    """Return what computes with floats; None where everything is to compute on integers.

    By the option `auto` the table of kernel times decides, or with `measure` the kernel times of
    this machine, and then the clock: of a file with the chosen regions, one of integers and one of
    floats, all timed against the float network interleaved, the fastest one is taken. Floats, whose
    file is the float network again once it is loaded, are taken unless another is faster beyond the
    error of the measurement. Raises UsageError for a dynamic network that should be measured.
    """
    from fertool.quant import ALL_FLOAT, shipped_times

    if config.compute == "int8":
        return None
    if config.compute == "float":
        return ALL_FLOAT
    if not config.measure:
        return _choose_by_times(network, config, shipped_times(), "table")
    if network.spec.gates is not None:
        raise UsageError(
            "``measure=True``: the time of a dynamic network depends on its images",
            "leave ``measure`` out: the table of kernel times decides for each profile",
        )
    return _Measurement(network, config, images, reporter).choose()


def _networks_of(network: Model) -> dict[str, tuple[Network, InputSpec]]:
    """Return the folded networks by the prefix of their names: one, or one for each profile."""
    from fertool.gate_spec import profile_prefix
    from fertool.graph.folding import fold_for_inference
    from fertool.models import require_static
    from fertool.models.profile_network import ProfileNetwork

    modules = {"": network.module}
    if isinstance(network.module, ProfileNetwork):
        modules = {}
        for index, profile in enumerate(network.module.networks):
            modules[profile_prefix(index)] = profile
    found = {}
    for prefix, module in modules.items():
        found[prefix] = (fold_for_inference(require_static(module)), network.spec.input)
    return found


def _choose_by_times(
    network: Model, config: QuantizeConfig, times: KernelTimes, origin: str
) -> ComputeChoice:
    """Return the assignment of the least expected time."""
    from fertool.quant import ComputeChoice, choose_regions

    float_nodes: set[str] = set()
    seconds = 0.0
    floats_s = 0.0
    for prefix, (module, input) in _networks_of(network).items():
        regions = choose_regions(module, input, times, config.keep_float)
        float_nodes.update(f"{prefix}{name}" for name in regions.float_nodes)
        seconds += regions.seconds
        floats_s += regions.floats_s
    expected = round(floats_s / seconds, _KEPT) if seconds else None
    spec = ComputeSpec(
        (),
        "auto",
        "table" if origin == "table" else "measured",
        times.processor,
        times.runtime,
        expected_speedup=expected,
    )
    return ComputeChoice(frozenset(float_nodes), spec)


@dataclass(frozen=True)
class _Measurement:
    """A choice by what this machine takes for the network's kernels, and for whole files."""

    network: Model
    config: QuantizeConfig
    images: FaceDataset
    reporter: Reporter

    def choose(self) -> ComputeChoice:
        """Return the fastest of the candidates that is not slower than the float network."""
        candidates = self._candidates()
        networks = [(self.network.spec, self.network.module)]
        for choice in candidates.values():
            networks.append(self._trial(choice))
        measured = bench_networks(*networks, reporter=self.reporter)
        best = "floats"
        best_speedup = 1.0
        speedups: dict[str, float] = {}
        for name, comparison in zip(candidates, measured.comparisons, strict=True):
            speedups[name] = comparison.speedup
            low, _ = comparison.speedup_ci95
            # Floats are the network itself: beside them any other has to be faster for sure.
            if name != "floats" and low > 1 and comparison.speedup > best_speedup:
                best = name
                best_speedup = comparison.speedup
        texts = [f"{name} {speedup:.2f}x" for name, speedup in speedups.items()]
        self.reporter.note(f"against the float network: {', '.join(texts)}; taken: {best}")
        choice = candidates[best]
        spec = replace(choice.spec, measured_speedup=round(speedups[best], _KEPT))
        return replace(choice, spec=spec)

    def _candidates(self) -> Mapping[str, ComputeChoice]:
        """Return the choices that are timed, by their names in the story."""
        from fertool.models.float_prefix import float_prefix

        times = self._kernel_times()
        chosen = _choose_by_times(self.network, self.config, times, "measured")
        ((module, input),) = _networks_of(self.network).values()
        spec = replace(chosen.spec, expected_speedup=None)
        every = frozenset(module.graph.by_name)
        candidates = {
            "floats": replace(chosen, float_nodes=every, spec=spec),
            "integers": replace(chosen, float_nodes=float_prefix(module, input), spec=spec),
        }
        known = {choice.float_nodes for choice in candidates.values()}
        if chosen.float_nodes not in known:
            candidates["chosen regions"] = chosen
        return candidates

    def _kernel_times(self) -> KernelTimes:
        """Return the times of this machine for all kernels of the network."""
        from fertool.onnx_runtime import import_onnxruntime
        from fertool.quant import Seconds, kernels_needed, shipped_times
        from fertool.runtime.environment import processor_kind
        from fertool.runtime.kernel_timing import time_kernel

        ((module, input),) = _networks_of(self.network).values()
        kernels = sorted(kernels_needed(module, input))
        exact = {}
        with self.reporter.progress("kernel times", brief=True) as on_progress:
            for number, (kind, sizes) in enumerate(kernels, start=1):
                exact[kind, sizes] = Seconds(*time_kernel(kind, sizes))
                on_progress(number, len(kernels))
        runtime = f"onnxruntime {import_onnxruntime().__version__}"
        return replace(shipped_times(), processor=processor_kind(), runtime=runtime, exact=exact)

    def _trial(self, choice: ComputeChoice) -> tuple[Spec, Network]:
        """Return a network with a choice, calibrated for its speed alone."""
        from fertool.models import require_static
        from fertool.quant import quantize_model

        config = replace(
            self.config,
            rounding="nearest",
            calibration_images=_TRIAL_IMAGES,
            average_activation_bits=None,
        )
        spec = self.network.spec
        module = require_static(self.network.module)
        quant, integer = quantize_model(spec, module, self.images, config, choice=choice)
        return replace(spec, quant=quant), integer
