"""The network that a training starts from: of the zoo, or of a model file."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fertool.config.network import NetworkConfig, parse_normalization
from fertool.config.option import values_of
from fertool.reporter import SILENT, Reporter
from fertool.workflows.landmarks import measure_landmarks

if TYPE_CHECKING:
    from torch import nn

    from fertool.data.dataset import FaceDataset
    from fertool.spec import InputSpec, Spec


def new_network(
    config: NetworkConfig, train: FaceDataset, seed: int, reporter: Reporter = SILENT
) -> tuple[Spec, nn.Module]:
    """Return the network that the options name, for the classes of `train`, with seeded weights.

    Raises UsageError for an unknown architecture or argument, FertoolError for weights that do not
    fit.
    """
    import torch

    from fertool import models
    from fertool.models.initial_weights import load_initial_weights

    module: nn.Module
    # In a fork, so that the caller's own random numbers stay as they are.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if config.init_from is None:
            spec, module = models.create(
                config.arch, config.arch_args, input_of(config), train.classes
            )
        else:
            given, loaded = models.load_model(config.init_from)
            spec, module = models.adapt_to_classes(given, loaded, train.classes)
            if len(given.classes) != len(spec.classes):
                reporter.note(
                    f"the classifier of {config.init_from} has {len(given.classes)} classes: "
                    "it starts afresh"
                )
    if config.init:
        for line in load_initial_weights(module, config.init):
            reporter.note(line)
    if config.measure_landmarks:
        spec = replace(spec, face_template=measure_landmarks(train.images).template)
    return spec, module


def input_of(config: NetworkConfig) -> InputSpec:
    """Return the input of the network that the options name."""
    from fertool.artifact.header import read_spec
    from fertool.spec import InputSpec

    if config.init_from is not None:
        return read_spec(config.init_from).input
    if config.normalize is None:
        return default_input(config.input_size, config.input_channels)
    mean, std = parse_normalization(config.normalize)
    repeats = config.input_channels // len(mean)
    return InputSpec(config.input_channels, config.input_size, mean * repeats, std * repeats)


def default_input(size: int, channels: int) -> InputSpec:
    """Return the input of a new network, whose channels are all normalized as gray is."""
    from fertool.spec import InputSpec

    gray = InputSpec()
    return InputSpec(channels, size, gray.mean * channels, gray.std * channels)


def recorded_network(config: NetworkConfig) -> dict[str, Any]:
    """Return the options of the network for the provenance.

    The arguments of the architecture have the types of its defaults, also where they were given as
    text.
    """
    from fertool.models.architecture import resolve_arch_args

    values = values_of(config)
    # The same options from a recipe, a flag or Python give the same bytes of the file.
    if config.arch_args and config.init_from is None:
        resolved = resolve_arch_args(config.arch, config.arch_args, config.input_size)
        values["arch_args"] = {name: resolved[name] for name in config.arch_args}
    return values
