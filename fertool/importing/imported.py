"""Any network as a model: found, given its weights, captured, and compared with what it came from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fertool.data.pixels import to_input
from fertool.errors import FertoolError, UsageError
from fertool.graph.capture import capture
from fertool.graph.network import Network
from fertool.importing.files import Found, onnx_network, program_network
from fertool.importing.libraries import LIBRARIES, Preprocessing, gray_stem, library_module
from fertool.importing.python_files import factory_module
from fertool.models.build import image_shape
from fertool.models.checkpoints import is_model_file
from fertool.models.initial import matching_weights
from fertool.models.registry import architecture_names, get_architecture, resolve_arch_args
from fertool.modes import eval_mode
from fertool.spec import InputSpec, Spec

TOLERANCE = 1e-5
"""The largest difference of a logit, relative to the largest logit where that is above 1."""
_MOST = 16.0
"""The largest mean and deviation of pixels from 0 to 1, as the header of a model file has it."""
_CHECKED = 3
"""Images on which the imported network is compared."""


@dataclass(frozen=True)
class ImportOptions:
    """What a source does not say of itself; None stands for what the source says, or the default.

    `classes` are names; `mean` and `std`, for pixels from 0 to 1, have one value or one for each channel. `arguments`
    are passed to architectures of the zoo and to the user's factory.
    """

    weights: Path | None = None
    classes: tuple[str, ...] | None = None
    size: int | None = None
    channels: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        repeated = [
            name for name, count in Counter(self.classes or ()).items() if count > 1 or not name
        ]
        if repeated:
            what = f"'{repeated[0]}' twice" if repeated[0] else "an empty name"
            raise UsageError(f"--classes: {what}", "name each output once: --classes a,b,…")
        if self.channels not in (None, 1, 3):
            raise UsageError(
                f"--input-channels {self.channels}: images have 1 or 3 channels",
                "use 1 (gray) or 3 (RGB)",
            )
        for flag, values in (("--mean", self.mean), ("--std", self.std)):
            if not all(-_MOST <= value <= _MOST for value in values or ()):
                raise UsageError(f"{flag}: of pixels from 0 to 1, {values} is not", "divide by 255")
            if values is not None and len(values) not in (1, 3):
                raise UsageError(
                    f"{flag}: {len(values)} values", "give one, or one for each channel"
                )
        if not all(value > 0 for value in self.std or ()):
            raise UsageError(
                f"--std {self.std}: must be above 0", "for example --std 0.229,0.224,0.225"
            )


@dataclass(frozen=True)
class Imported:
    """A model that was compared with its source: `difference` is the largest of a logit; `notes` are for the user."""

    spec: Spec
    network: Network
    difference: float
    notes: tuple[str, ...]


def import_model(source: str, options: ImportOptions | None = None) -> Imported:
    """Return the model of a source: a name of the zoo, `torchvision:NAME`, `timm:NAME`, `file.py:factory`, .pt2, .onnx.

    Raises UsageError for a source that is none, FertoolError for a network with operators that are not known, weights
    that do not fit, and outputs that are not those of the source.
    """
    options = options or ImportOptions()
    found = _found(source, options)
    network = found.captured.network(found.image)
    spec, notes = _described(source, options, found, network)
    difference = _compared(network, spec.input, found.reference, source)
    return Imported(spec, network, difference, (*found.notes, *notes))


def _found(source: str, options: ImportOptions) -> Found:
    library, _, name = source.partition(":")
    suffix = Path(source).suffix.lower()
    if suffix in (".onnx", ".pt2"):
        return _of_file(Path(source), suffix, options)
    if library in LIBRARIES and name:
        count = len(options.classes) if options.classes else None
        module, prepared = library_module(library, name, count, options.channels or 3)
        return _of_module(module, options, options.channels or 3, prepared)
    if source in architecture_names():
        return _of_zoo(source, options)
    if ":" in source:
        channels = options.channels or 3
        count = len(options.classes) if options.classes else None
        arguments = {**({} if count is None else {"num_classes": count}), **options.arguments}
        return _of_module(factory_module(source, arguments), options, channels, None)
    raise _unknown(source)


def _of_zoo(name: str, options: ImportOptions) -> Found:
    gray = InputSpec()
    size, channels = options.size or gray.size, options.channels or gray.channels
    count = len(options.classes) if options.classes else len(EXPRESSIONS)
    arguments = resolve_arch_args(name, options.arguments, size)
    module = get_architecture(name)(num_classes=count, in_channels=channels, **arguments)
    prepared = Preprocessing(size, gray.mean * channels, gray.std * channels)
    return _of_module(module, options, channels, prepared)


def _of_module(
    module: nn.Module, options: ImportOptions, channels: int, prepared: Preprocessing | None
) -> Found:
    size = options.size or (prepared.size if prepared else None)
    if size is None:
        raise UsageError(
            "--input-size: the side of this network's images is not known",
            "for example --input-size 224",
        )
    notes: tuple[str, ...] = ()
    if options.weights is not None:
        taken, found = matching_weights(module, options.weights)
        module.load_state_dict(taken, strict=False)
        whole = len(module.state_dict())
        notes = (
            f"{len(taken)} of the network's {whole} tensors are those of {options.weights}",
            *found,
        )
    if channels == 1:
        gray_stem(module)
    image = (channels, size, size)

    def logits(images: Tensor) -> Tensor:
        with eval_mode(module), torch.no_grad():
            result = module(images)
        while not isinstance(result, Tensor):
            result = next(iter(result.values())) if isinstance(result, Mapping) else result[0]
        return result

    try:
        captured = capture(module, image)
    except FertoolError:
        raise
    except Exception as error:  # The module's own forward, which may fail with anything.
        raise FertoolError(
            f"the network does not run on images of {channels} x {size} x {size}: {error}",
            "give --input-size and --input-channels",
        ) from None
    return Found(captured, image, logits, prepared, notes)


def _of_file(path: Path, suffix: str, options: ImportOptions) -> Found:
    if options.weights is not None:
        raise UsageError(f"--weights: {path} holds its weights", "leave --weights out")
    read = onnx_network if suffix == ".onnx" else program_network
    found = read(path, options.size, options.channels)
    if found.prepared is not None and (options.mean or options.std):
        raise UsageError(
            f"--mean and --std: {path} takes raw pixels and prepares them itself", "leave them out"
        )
    return found


def _described(
    source: str, options: ImportOptions, found: Found, network: Network
) -> tuple[Spec, tuple[str, ...]]:
    """Return the spec of an imported network, and what the user should know of it."""
    channels, size, _ = found.image
    mean, std = options.mean, options.std
    if found.prepared is not None:
        mean, std = mean or found.prepared.mean, std or found.prepared.std
    if mean is None or std is None:
        raise UsageError(
            f"--mean and --std: how the images of {source} were normalized is not in it",
            "for example --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225, or --mean 0 --std 1 for pixels from 0 to 1",
        )
    made = network.shapes[network.graph.output]
    if len(made) != 1:
        raise FertoolError(
            f"the network makes {list(made)} for one image, not a row of logits",
            "import a network that classifies",
        )
    classes, notes = options.classes, []
    if classes is None and source in architecture_names():
        classes = EXPRESSIONS
    if classes is None:
        classes = tuple(map(str, range(made[0])))
        notes.append(f"classes are called 0 to {made[0] - 1}; name them with --classes")
    if len(classes) != made[0]:
        raise UsageError(
            f"--classes: {len(classes)} names for a network with {made[0]} outputs",
            "give one name for each output",
        )
    input = InputSpec(channels, size, _per_channel(mean, channels), _per_channel(std, channels))
    origin = source.rpartition("/")[2]
    spec = Spec(
        arch=origin,
        arch_args=dict(options.arguments),
        graph=network.graph,
        input=input,
        classes=classes,
    )
    return spec, tuple(notes)


def _per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Return one value for each channel; one value stands for all, and gray gets the mean of three."""
    if len(values) == 1:
        return values * channels
    return (sum(values) / len(values),) if channels == 1 else values


def _compared(
    network: Network, input: InputSpec, reference: Callable[[Tensor], Tensor], source: str
) -> float:
    """Return how far the logits are from those of the source; raises FertoolError where that is too far."""
    pixels = torch.randint(
        256, (_CHECKED, *image_shape(input)), generator=torch.Generator().manual_seed(0)
    )
    images = to_input(pixels.to(torch.uint8), input)
    with torch.no_grad():
        ours, theirs = network(images), reference(images)
        alone = torch.cat([network(image[None]) for image in images])
    # Each image by itself as well: a network that was written for one number of images answers for that one alone.
    difference = float(torch.maximum((ours - theirs).abs(), (alone - theirs).abs()).max())
    if not difference <= TOLERANCE * max(1.0, float(theirs.abs().max())):
        raise FertoolError(
            f"{source}: the imported network's logits differ by {difference:.2g} from the source's",
            "its forward does something that the capture does not see; please report the network",
        )
    return difference


def _unknown(source: str) -> FertoolError:
    kinds = "a name of the zoo, torchvision:NAME, timm:NAME, path/file.py:factory, a .pt2 or an .onnx file"
    if is_model_file(Path(source)):
        return UsageError(
            f"{source}: a model file of fertool already", "every command takes it as it is"
        )
    if source.endswith(".py"):
        return UsageError(
            f"{source}: which function makes the network is not said", f"give {source}:FUNCTION"
        )
    if Path(source).suffix.lower() in (".pth", ".pt", ".safetensors", ".bin", ".ckpt"):
        return UsageError(
            f"{source}: weights alone, without the network that they belong to",
            f"name the network and give this file as --weights; the network is {kinds}",
        )
    return UsageError(f"{source}: not a network that can be imported", f"give {kinds}")


EXPRESSIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""The classes of the zoo's networks where no others are named: those of FER2013."""
