"""The integer form of a network: of a dynamic one that of each profile, and of its gate."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fertool.config.quantization import QuantizeConfig

if TYPE_CHECKING:
    from fertool.data.dataset import FaceDataset
    from fertool.models.profile_network import ProfileNetwork
    from fertool.models.quantized import QuantizedNet
    from fertool.objective import LogitsObjective
    from fertool.quant import ComputeChoice
    from fertool.results import Epoch
    from fertool.spec import QuantSpec, Spec
    from fertool.workflows.bit_widths import ChannelBits
    from fertool.workflows.model import Model
    from fertool.workflows.training_run import TrainingRun

    IntegerNetwork = QuantizedNet | ProfileNetwork


def plan_integers(
    network: Model, config: QuantizeConfig, choice: ComputeChoice | None = None
) -> QuantSpec:
    """Return which tensors become integers, with all weights of 8 bits.

    `choice` tells what computes with floats. Raises FertoolError for a network that is quantized
    already.
    """
    from fertool.models.profile_network import ProfileNetwork
    from fertool.quant import plan_dynamic, plan_quantization

    if isinstance(network.module, ProfileNetwork):
        return plan_dynamic(network.spec, network.module, config, choice=choice)
    return plan_quantization(network.spec, network.module, config, choice=choice)


def make_integers(
    network: Model,
    images: FaceDataset,
    config: QuantizeConfig,
    bits: ChannelBits | None,
    on_progress: Callable[[int, int], None],
    *,
    choice: ComputeChoice | None = None,
) -> tuple[QuantSpec, IntegerNetwork]:
    """Return the integer form of a float network after calibration, and its `spec.quant`."""
    from fertool.models.profile_network import ProfileNetwork
    from fertool.quant import quantize_dynamic, quantize_model

    spec, module = network.spec, network.module
    if isinstance(module, ProfileNetwork):
        return quantize_dynamic(spec, module, images, config, on_progress, bits=bits, choice=choice)
    return quantize_model(spec, module, images, config, on_progress, bits=bits, choice=choice)


def describe_integers(network: Model, quant: QuantSpec) -> str:
    """Return in words how much of a float network's work is done by integers under a plan."""
    from fertool.models import require_static
    from fertool.models.profile_network import ProfileNetwork
    from fertool.quant import describe_dynamic_fraction, describe_integer_fraction
    from fertool.quant_spec import describe_compute

    if quant.compute is not None:
        return describe_compute(quant)
    if isinstance(network.module, ProfileNetwork):
        return describe_dynamic_fraction(network.module, quant)
    return describe_integer_fraction(require_static(network.module), quant)


def train_integers(
    spec: Spec, integer: IntegerNetwork, training: TrainingRun, objective: LogitsObjective
) -> list[Epoch]:
    """Train with fake quantization, and fill the integers in again; returns the history."""
    from fertool.models.profile_network import ProfileNetwork
    from fertool.quant import convert, convert_dynamic, prepare_dynamic_qat, prepare_qat

    quant = spec.quant
    assert quant is not None
    # What is trained are floats; the file has integers.
    if isinstance(integer, ProfileNetwork):
        profiles = prepare_dynamic_qat(integer, quant)
        _, history = training.fit(spec, profiles, objective)
        convert_dynamic(profiles.cpu(), integer, quant)
        return history
    trained = prepare_qat(integer, quant)
    _, history = training.fit(spec, trained, objective)
    convert(trained.cpu(), integer, quant)
    return history
