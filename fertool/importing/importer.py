"""Import of any network as a model: build or load it, capture it, compare it with its source."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fertool.config.importing import ImportConfig
from fertool.data.labels import FER2013_ORDER
from fertool.data.pixels import to_input
from fertool.errors import FertoolError, UsageError, unknown_name
from fertool.graph.capture import capture
from fertool.graph.network import Network
from fertool.importing.exported_programs import load_program_network
from fertool.importing.factories import build_with_factory
from fertool.importing.libraries import (
    LIBRARIES,
    build_library_network,
    convert_stem_to_gray_,
)
from fertool.importing.onnx_files import load_onnx_network
from fertool.importing.sources import Preprocessing, SourceNetwork
from fertool.inference import eval_mode
from fertool.models.architecture import architecture_names, get_architecture, resolve_arch_args
from fertool.models.build import image_shape
from fertool.models.checkpoints import is_model_file
from fertool.models.initial_weights import matching_weights
from fertool.spec import InputSpec, Spec

TOLERANCE = 1e-5
"""The largest difference of a logit, relative to the largest logit where that is above 1."""
_COMPARED_IMAGES = 3
_WEIGHT_SUFFIXES = (".pth", ".pt", ".safetensors", ".bin", ".ckpt")
_SOURCE_KINDS = (
    "a name of the zoo, torchvision:NAME, timm:NAME, path/file.py:factory, a .pt2 or an .onnx file"
)


@dataclass(frozen=True)
class ImportedNetwork:
    """A network that was compared with its source; `difference` is the largest of a logit.

    `notes` are for the user.
    """

    spec: Spec
    network: Network
    difference: float
    notes: tuple[str, ...]


def import_network(
    source: str | nn.Module, options: ImportConfig = ImportConfig()
) -> ImportedNetwork:
    """Return the network of a source, and its spec.

    `source` is a name of the zoo, `torchvision:NAME`, `timm:NAME`, `file.py:factory`, a .pt2 or
    .onnx file, or a module, which is copied. Raises UsageError for other sources, and FertoolError
    for a network with operators that are not known, weights that do not fit, and logits that are
    not those of the source.
    """
    if isinstance(source, nn.Module):
        name = type(source).__name__
        found = _open_module(source, options)
    else:
        name = source
        found = _open_source(source, options)
    network = found.captured.network(found.image)
    spec, notes = _describe(name, options, found, network)
    difference = _compare(network, spec.input, found.reference, name)
    return ImportedNetwork(spec, network, difference, (*found.notes, *notes))


def _open_module(module: nn.Module, options: ImportConfig) -> SourceNetwork:
    # Copied, so that a training of the model does not change the caller's module.
    return _capture_module(copy.deepcopy(module), options, options.input_channels or 3, None)


def _open_source(source: str, options: ImportConfig) -> SourceNetwork:
    suffix = Path(source).suffix.lower()
    # Files first: on Windows their paths have a colon as well.
    if suffix in (".onnx", ".pt2"):
        return _open_file(Path(source), suffix, options)
    if source in architecture_names():
        return _open_zoo(source, options)

    channels = options.input_channels or 3
    library, _, name = source.partition(":")
    if library in LIBRARIES and name:
        module, preprocessing = build_library_network(
            library, name, options.class_count, channels, options.arch_args
        )
        return _capture_module(module, options, channels, preprocessing)
    if ":" in source:
        return _open_factory(source, options, channels)
    raise _unknown_source(source)


def _open_factory(source: str, options: ImportConfig, channels: int) -> SourceNetwork:
    module = build_with_factory(source, options.class_count, options.arch_args)
    return _capture_module(module, options, channels, preprocessing=None)


def _open_zoo(name: str, options: ImportConfig) -> SourceNetwork:
    default = InputSpec()
    size = options.input_size or default.size
    channels = options.input_channels or default.channels
    arguments = resolve_arch_args(name, options.arch_args, size)
    build = get_architecture(name)
    module = build(
        num_classes=options.class_count or len(FER2013_ORDER), in_channels=channels, **arguments
    )
    preprocessing = Preprocessing(size, default.mean * channels, default.std * channels)
    return _capture_module(module, options, channels, preprocessing)


def _open_file(path: Path, suffix: str, options: ImportConfig) -> SourceNetwork:
    if options.weights is not None:
        raise UsageError(f"``weights``: {path} has its own weights", "leave ``weights`` out")
    if options.arch_args:
        raise UsageError(f"``arch_arg``: {path} holds its network already", "leave it out")
    load = load_onnx_network if suffix == ".onnx" else load_program_network
    found = load(path, options.input_size, options.input_channels)
    if found.preprocessing is not None and (options.mean or options.std):
        raise UsageError(
            f"``mean`` and ``std``: {path} takes raw pixels and prepares them itself",
            "leave them out",
        )
    return found


def _capture_module(
    module: nn.Module,
    options: ImportConfig,
    channels: int,
    preprocessing: Preprocessing | None,
) -> SourceNetwork:
    """Give a module its weights and capture it."""
    size = options.input_size
    if size is None and preprocessing is not None:
        size = preprocessing.size
    if size is None:
        raise UsageError(
            "``input_size``: the side of this network's images is not known",
            "for example ``input_size=224``",
        )

    notes: tuple[str, ...] = ()
    if options.weights is not None:
        notes = _load_weights_(module, options.weights)
    if channels == 1:
        # After loading, since weights for RGB images fit only an RGB stem.
        convert_stem_to_gray_(module)

    image = (channels, size, size)
    try:
        captured = capture(module, image)
    except FertoolError:
        raise
    except Exception as error:  # The module's own forward, which may fail with anything.
        raise FertoolError(
            f"the network does not run on images of {channels} x {size} x {size}: {error}",
            "give ``input_size`` and ``input_channels``",
        ) from None

    def reference(images: Tensor) -> Tensor:
        with eval_mode(module), torch.no_grad():
            return _first_tensor(module(images))

    return SourceNetwork(captured, image, reference, preprocessing, notes)


def _load_weights_(module: nn.Module, path: Path) -> tuple[str, ...]:
    """Load the tensors of a file that fit a module; returns notes."""
    weights, notes = matching_weights(module, path)
    module.load_state_dict(weights, strict=False)
    total = len(module.state_dict())
    loaded = f"{len(weights)} of the network's {total} tensors are those of {path}"
    return (loaded, *notes)


def _first_tensor(result: Any) -> Tensor:
    """Return the first result of a network with more than one head, which is the captured one."""
    while not isinstance(result, Tensor):
        if isinstance(result, Mapping):
            result = list(result.values())
        result = result[0]
    return result


def _describe(
    source: str, options: ImportConfig, found: SourceNetwork, network: Network
) -> tuple[Spec, tuple[str, ...]]:
    """Return the spec of an imported network, and notes for the user."""
    output_shape = network.shapes[network.graph.output]
    input = _input_spec(source, options, found)
    if len(output_shape) != 1:
        raise FertoolError(
            f"the network makes {list(output_shape)} for one image, not a row of logits",
            "import a network that classifies",
        )

    outputs = output_shape[0]
    classes = options.classes
    notes: tuple[str, ...] = ()
    # The zoo's networks are for FER2013; of others only the number of classes is known.
    if classes is None and source in architecture_names():
        classes = FER2013_ORDER
    if classes is None:
        classes = tuple(map(str, range(outputs)))
        notes = (f"classes are called 0 to {outputs - 1}; name them with ``classes``",)
    if len(classes) != outputs:
        raise UsageError(
            f"``classes``: {len(classes)} names for a network with {outputs} outputs",
            "give one name for each output",
        )
    spec = Spec(
        # The name only: a path would tell about the machine.
        arch=source.rpartition("/")[2],
        arch_args=dict(options.arch_args),
        graph=network.graph,
        input=input,
        classes=classes,
    )
    return spec, notes


def _input_spec(source: str, options: ImportConfig, found: SourceNetwork) -> InputSpec:
    """Return size, channels and normalization of the images."""
    channels, size, _ = found.image
    mean, std = options.mean, options.std
    if found.preprocessing is not None:
        mean = mean or found.preprocessing.mean
        std = std or found.preprocessing.std
    if mean is None or std is None:
        raise UsageError(
            f"``mean`` and ``std``: how the images of {source} were normalized is not in it",
            "for example ``mean=0.485,0.456,0.406`` ``std=0.229,0.224,0.225``, or ``mean=0`` "
            "``std=1`` for pixels from 0 to 1",
        )
    return InputSpec(channels, size, _per_channel(mean, channels), _per_channel(std, channels))


def _per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Return one value for each channel; gray gets the mean of the three of RGB."""
    if len(values) == 1:
        return values * channels
    if channels == 1:
        return (sum(values) / len(values),)
    return values


def _compare(
    network: Network, input: InputSpec, reference: Callable[[Tensor], Tensor], source: str
) -> float:
    """Return the largest difference of a logit; raises FertoolError where it is too large."""
    generator = torch.Generator().manual_seed(0)
    shape = (_COMPARED_IMAGES, *image_shape(input))
    pixels = torch.randint(256, shape, generator=generator)
    images = to_input(pixels.to(torch.uint8), input)
    with torch.no_grad():
        logits = network(images)
        expected = reference(images)
        # One by one as well: a network for a fixed number of images is right for that one only.
        single = torch.cat([network(image[None]) for image in images])

    differences = torch.maximum((logits - expected).abs(), (single - expected).abs())
    difference = float(differences.max())
    # Written so that NaN is too large.
    if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise FertoolError(
            f"{source}: the imported network's logits differ by {difference:.2g} from the source's",
            "its forward does something that the capture does not see; please report the network",
        )
    return difference


def _unknown_source(source: str) -> FertoolError:
    if is_model_file(Path(source)):
        return UsageError(
            f"{source}: a model file of fertool already", "every command takes it as it is"
        )
    if source.endswith(".py"):
        return UsageError(
            f"{source}: the function that makes the network is missing", f"give {source}:FUNCTION"
        )
    if Path(source).suffix.lower() in _WEIGHT_SUFFIXES:
        return UsageError(
            f"{source}: weights alone, without the network that they belong to",
            "name the network and give this file as ``weights``; the network is " + _SOURCE_KINDS,
        )
    if source.isidentifier():
        # Most likely a name of the zoo that is spelled in another way.
        unknown = unknown_name("network of the zoo", source, architecture_names())
        return UsageError(unknown.message, f"{unknown.hint}; or give {_SOURCE_KINDS}")
    return UsageError(f"{source}: not a network that can be imported", f"give {_SOURCE_KINDS}")
