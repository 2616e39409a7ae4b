"""Initial weights from elsewhere: state dicts with the reference networks' parameter names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn

from fertool.errors import FertoolError, join_problems
from fertool.models.checkpoints import read_weights

_HINT = "weights must be of the same network; check its name and arguments"
_KEPT = "keeps its initial values"
_DROPPED = "not in this network: dropped"


def load_initial_weights(module: nn.Module, path: Path) -> list[str]:
    """Copy the weights of a checkpoint or fertool `.pt` file into `module`; returns the exceptions.

    Layers of the classifier that do not fit (1000 classes in place of 7) keep their values, and so
    do parts of the network that the file does not have. Parts of the file that the network does
    not have are dropped, provided that both begin with the same tensor. An RGB stem becomes a
    grayscale one by the sum over its input channels: the same result as on a gray RGB image.

    Raises FertoolError for a file that is damaged, quantized or would run code, and otherwise
    listing every tensor that is missing, unknown, of another shape, or holds NaN, infinity,
    integers or a negative variance; `module` is then unchanged.
    """
    taken, notes = matching_weights(module, path)
    module.load_state_dict(taken, strict=False)
    return notes


def matching_weights(module: nn.Module, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors of a checkpoint that `module` takes, and notes of the exceptions.

    Raises FertoolError as `load_initial_weights` does.
    """
    wanted = module.state_dict()
    given, notes = read_weights(path, wanted)
    given, stem_notes = _sum_rgb_stem(module, given)
    exceptions = _parts_not_taken(module, given, wanted)
    taken = {name: tensor for name, tensor in given.items() if not _is_in_any(name, exceptions)}

    problems = _misfits(taken, wanted, exceptions)
    if problems or not taken:
        reason = join_problems(problems) or "none of them is the network's"
        raise FertoolError(f"{path}: the weights do not fit: {reason}", _HINT)
    flaws = _unusable_values(taken, wanted)
    if flaws:
        raise FertoolError(
            f"{path}: weights that no network can start from: {join_problems(flaws)}",
            "give another checkpoint",
        )
    notes = [*notes, *stem_notes]
    for layer, reason in exceptions.items():
        notes.append(f"{layer}: {reason}")
    return taken, notes


def transfer_weights(module: nn.Module, source: nn.Module, *, head: bool = True) -> tuple[int, int]:
    """Copy the layers of `source` whose tensors have the names, shapes and types of `module`'s.

    Without `head` the layers of the classifier's head are left as they are. Returns how many layers
    were copied, and how many `module` has.
    """
    wanted = module.state_dict()
    given = source.state_dict()
    skipped_head = None if head else head_name(module)
    tensors_of_layer: dict[str, list[str]] = {}
    for name in wanted:
        tensors_of_layer.setdefault(name.rpartition(".")[0], []).append(name)

    taken: dict[str, Tensor] = {}
    copied = 0
    for layer, names in tensors_of_layer.items():
        if skipped_head is not None and _is_in(layer, skipped_head):
            continue
        fitting = {name: given[name] for name in names if _has_same_form(name, wanted, given)}
        # Whole layers only: a batch norm's scale without its statistics would be worth nothing.
        if len(fitting) == len(names):
            taken.update(fitting)
            copied += 1
    module.load_state_dict(taken, strict=False)
    return copied, len(tensors_of_layer)


def head_name(module: nn.Module) -> str | None:
    """Return the name of the classifier's head: the child that holds the last linear layer."""
    linear = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    if not linear:
        return None
    return _top_part(linear[-1])


def _has_same_form(name: str, wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> bool:
    if name not in given:
        return False
    one = wanted[name]
    other = given[name]
    return one.shape == other.shape and one.dtype == other.dtype


def _misfits(
    taken: Mapping[str, Tensor], wanted: Mapping[str, Tensor], exceptions: Iterable[str]
) -> list[str]:
    """Return which tensors are unknown, of another shape or missing."""
    problems = []
    for name, tensor in taken.items():
        if name not in wanted:
            problems.append(f"{name} is unknown")
        elif tensor.shape != wanted[name].shape:
            wanted_shape = list(wanted[name].shape)
            problems.append(f"{name} is {list(tensor.shape)}, the network has {wanted_shape}")
    for name in wanted:
        # Files of old PyTorch lack this counter; only batch norms without a momentum read it.
        if name in taken or name.endswith("num_batches_tracked"):
            continue
        if not _is_in_any(name, exceptions):
            problems.append(f"{name} is missing")
    return problems


def _unusable_values(taken: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """Return which tensors hold values that no trained network has."""
    flaws = []
    for name, tensor in taken.items():
        like = wanted.get(name)
        if like is None or not like.is_floating_point():
            continue
        if not tensor.is_floating_point():
            flaws.append(f"{name} holds integers ({str(tensor.dtype).removeprefix('torch.')})")
            continue
        # In the network's own precision: a double may overflow to infinity there.
        values = tensor.to(like.dtype)
        if not values.isfinite().all():
            flaws.append(f"{name} holds NaN or infinity")
        elif name.endswith("running_var") and (values < 0).any():
            flaws.append(f"{name} holds a negative variance")
    return flaws


def _sum_rgb_stem(
    module: nn.Module, given: dict[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors with the RGB stem of a grayscale network summed over its inputs."""
    name = _gray_stem_weight(module)
    weight = given.get(name)
    if weight is None or weight.dim() != 4 or weight.shape[1] != 3:
        return given, []
    summed = weight.sum(1, keepdim=True)
    return {**given, name: summed}, [f"{name}: RGB summed to grayscale"]


def _gray_stem_weight(module: nn.Module) -> str:
    """Return the name of the stem's weight; "" where the stem does not take grayscale images."""
    for layer, stem in module.named_modules():
        if isinstance(stem, nn.Conv2d):
            # The first convolution is the stem; later ones do not read the image.
            return f"{layer}.weight" if stem.in_channels == 1 else ""
    return ""


def _parts_not_taken(
    module: nn.Module, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> dict[str, str]:
    """Return the layers that keep their values and the parts of the file dropped, with reasons."""
    reasons = _head_not_taken(module, given, wanted)
    known = {_top_part(name) for name in wanted}
    in_file = {_top_part(name) for name in given}
    for name, child in module.named_children():
        # A ReLU has no tensors that the file could lack.
        if name not in in_file and child.state_dict():
            reasons[name] = f"not in the file: {_KEPT}"

    # A file that lacks the network's first tensor holds another network: that is an error, and its
    # parts are listed as unknown.
    if next(iter(wanted)) in given:
        # In the order of the file, in which the user reads the notes.
        for part in map(_top_part, given):
            if part not in known:
                reasons[part] = _DROPPED
    return reasons


def _head_not_taken(
    module: nn.Module, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> dict[str, str]:
    """Return the layers of the classifier's head that differ in the file, with the reason."""
    reasons: dict[str, str] = {}
    head = head_name(module)
    if head is None:
        return reasons
    layers: dict[str, None] = {}
    for name in (*wanted, *given):
        if _is_in(name, head):
            layers[name.rpartition(".")[0]] = None
    for layer in layers:
        in_file = given.get(f"{layer}.weight")
        in_network = wanted.get(f"{layer}.weight")
        if in_network is None:
            if layer != head:
                reasons[layer] = _DROPPED
        elif in_file is not None and in_file.dim() == 2 and in_file.shape != in_network.shape:
            sizes = f"{_describe(in_file)} in the file, {_describe(in_network)} here"
            reasons[layer] = f"{sizes}: {_KEPT}"
    return reasons


def _top_part(name: str) -> str:
    return name.split(".")[0]


def _describe(weight: Tensor) -> str:
    return f"{weight.shape[1]} inputs and {weight.shape[0]} outputs"


def _is_in(name: str, layer: str) -> bool:
    """Return whether a tensor or layer is `layer` itself or a part of it."""
    return name == layer or name.startswith(f"{layer}.")


def _is_in_any(name: str, layers: Iterable[str]) -> bool:
    return any(_is_in(name, layer) for layer in layers)
