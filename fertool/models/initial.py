"""Start from weights trained elsewhere: plain state dicts with the reference implementation's names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn

from fertool.errors import FertoolError
from fertool.models.checkpoints import read_weights

_LISTED = 20
_HINT = "weights must be of the same network; check its name and arguments"


def load_initial(module: nn.Module, path: Path) -> list[str]:
    """Copy the weights of a checkpoint or of a fertool `.pt` file into `module`; returns what was not taken as it is.

    Layers of the classifier that do not fit (1000 classes in place of 7) keep their fresh weights, and so do parts of
    the network of which the file has nothing; parts of the file of which the network has nothing are dropped, provided
    that both begin alike. An RGB stem becomes a grayscale one by the sum over its input channels: the same result as
    on a grey RGB image. Raises FertoolError for a file that is damaged, quantised or would run code, and otherwise
    listing every tensor that is missing, unknown, of another shape, or holds NaN, infinity, integers or a negative
    variance; `module` is then unchanged.
    """
    taken, notes = matching_weights(module, path)
    module.load_state_dict(taken, strict=False)
    return notes


def matching_weights(module: nn.Module, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors of a checkpoint that `module` takes, and what is not taken as it is; see `load_initial`."""
    wanted = module.state_dict()
    given, unwrapped = read_weights(path, wanted)
    given, folded = _fold_stem(module, given)
    fresh = _fresh_layers(module, given, wanted)
    taken = {name: tensor for name, tensor in given.items() if not _inside(name, fresh)}
    problems = [f"{name} is unknown" for name in taken if name not in wanted]
    problems += [
        f"{name} is {list(tensor.shape)}, the network has {list(wanted[name].shape)}"
        for name, tensor in taken.items()
        if name in wanted and tensor.shape != wanted[name].shape
    ]
    # Files older than this counter lack it; it matters only to batch norms without a momentum.
    needed = [
        name
        for name in wanted
        if not _inside(name, fresh) and not name.endswith("num_batches_tracked")
    ]
    problems += [f"{name} is missing" for name in needed if name not in taken]
    if problems or not taken:
        raise FertoolError(
            f"{path}: the weights do not fit: {_list(problems) or 'none of them has a place'}",
            _HINT,
        )
    if flaws := _flaws(taken, wanted):
        raise FertoolError(
            f"{path}: weights that no network can start from: {_list(flaws)}",
            "give another checkpoint",
        )
    return taken, [*unwrapped, *folded, *(f"{layer}: {reason}" for layer, reason in fresh.items())]


def transfer_weights(module: nn.Module, source: nn.Module, *, head: bool = True) -> tuple[int, int]:
    """Copy the layers of `source` whose tensors agree in name, shape and type with those of `module`.

    Without `head` the layers of the classifier's head are left as they are. Returns how many layers were copied, and
    how many `module` has.
    """
    wanted, given = module.state_dict(), source.state_dict()
    spared = [] if head else [name for name in [head_name(module)] if name is not None]
    names: dict[str, list[str]] = {}
    for name in wanted:
        names.setdefault(name.rpartition(".")[0], []).append(name)
    taken: dict[str, Tensor] = {}
    copied = 0
    for layer, tensors in names.items():
        if not _inside(layer, spared) and all(
            _alike(wanted[name], given.get(name)) for name in tensors
        ):
            taken.update((name, given[name]) for name in tensors)
            copied += 1
    module.load_state_dict(taken, strict=False)
    return copied, len(names)


def _alike(one: Tensor, other: Tensor | None) -> bool:
    return other is not None and one.shape == other.shape and one.dtype == other.dtype


def head_name(module: nn.Module) -> str | None:
    """Return the name of the classifier's head: the child of `module` that holds its last linear layer."""
    linear = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    return linear[-1].split(".")[0] if linear else None


def _flaws(taken: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """Say which tensors hold what no trained network has, as it would be in the network's own precision."""
    flaws = []
    for name, tensor in taken.items():
        like = wanted.get(name)
        if like is None or not like.is_floating_point():
            continue
        if not tensor.is_floating_point():
            flaws.append(f"{name} holds integers ({str(tensor.dtype).removeprefix('torch.')})")
            continue
        values = tensor.to(like.dtype)
        if not values.isfinite().all():
            flaws.append(f"{name} holds NaN or infinity")
        elif name.endswith("running_var") and (values < 0).any():
            flaws.append(f"{name} holds a negative variance")
    return flaws


def _fold_stem(module: nn.Module, given: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    for layer, stem in module.named_modules():
        if isinstance(stem, nn.Conv2d):
            name = f"{layer}.weight"
            weight = given.get(name)
            if weight is None or weight.dim() != 4 or stem.in_channels != 1 or weight.shape[1] != 3:
                break
            return {**given, name: weight.sum(1, keepdim=True)}, [
                f"{name}: RGB summed to grayscale"
            ]
    return given, []


def _fresh_layers(
    module: nn.Module, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> dict[str, str]:
    """Return the layers that keep their fresh weights, and parts of the file that are dropped, with the reason."""
    name_of_head = head_name(module)
    head = [] if name_of_head is None else [name_of_head]
    fresh = {}
    for layer in dict.fromkeys(
        name.rpartition(".")[0] for name in (*wanted, *given) if _inside(name, head)
    ):
        there, here = given.get(f"{layer}.weight"), wanted.get(f"{layer}.weight")
        if here is None and layer not in head:
            fresh[layer] = "not in this network: dropped"
        elif (
            here is not None
            and there is not None
            and there.dim() == 2
            and there.shape != here.shape
        ):
            fresh[layer] = f"{_form(there)} in the file, {_form(here)} here: starts afresh"
    for name, child in module.named_children():
        if child.state_dict() and not any(_inside(key, [name]) for key in given):
            fresh[name] = "not in the file: starts afresh"
    if next(iter(wanted)) in given:  # otherwise the file holds another network
        parts = {name.split(".")[0] for name in wanted}
        unknown = dict.fromkeys(name.split(".")[0] for name in given)
        fresh |= {part: "not in this network: dropped" for part in unknown if part not in parts}
    return fresh


def _form(weight: Tensor) -> str:
    return f"{weight.shape[1]} inputs and {weight.shape[0]} outputs"


def _inside(name: str, layers: Iterable[str]) -> bool:
    return any(name == layer or name.startswith(f"{layer}.") for layer in layers)


def _list(problems: list[str]) -> str:
    more = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
    return "; ".join(problems[:_LISTED]) + more
