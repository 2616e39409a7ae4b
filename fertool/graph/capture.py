"""From any module to a graph of known operators: its forward runs once, and every call that it makes is written down.

PyTorch shows each function that works on tensors to a mode that is on (`TorchFunctionMode`), with the arguments as the
module's author wrote them. That sees what tracers see which read code, needs no support from the module, and takes
tens of milliseconds. Control flow has been decided by then, as it is in an exported program; sizes are numbers. So the
module runs twice, with batches of different sizes: what differs between the runs depends on the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fertool.errors import FertoolError
from fertool.graph.calls import UnknownCallError
from fertool.graph.generalize import generalize
from fertool.graph.ir import INPUT, Graph, Node
from fertool.graph.network import ImageShape, Network
from fertool.graph.recorder import Recorder, Recording
from fertool.modes import eval_mode
from fertool.strict_json import WrongContentError

_BATCHES = (2, 3)


@dataclass(frozen=True)
class CapturedGraph:
    """A graph and the values of its tensors, by name."""

    graph: Graph
    tensors: dict[str, Tensor]

    def network(self, image: ImageShape) -> Network:
        """Return a network of its own, in eval mode, that computes what was captured."""
        network = Network(self.graph, image)
        state = {name: tensor.detach().clone() for name, tensor in self.tensors.items()}
        network.load_state_dict(state, assign=True)
        return network.eval()


def capture(module: nn.Module, image: ImageShape) -> CapturedGraph:
    """Return the graph of what a module computes for images [N, C, H, W], and its tensors under their own names.

    The module is not changed; its batch norms and dropouts are in the graph as operators that train.
    Raises FertoolError naming the place and the function that the table does not know, or what depends on the batch.
    """
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    own = {**dict(module.named_buffers()), **dict(module.named_parameters())}

    def run(batch: int) -> Recording:
        recorder = Recorder(own)
        images = random_images(batch, image).to(device)
        recorder.start(images)
        with locate_errors(recorder), recorder.following(module), recorder:
            result = module(images)
        return recorder.finished(result)

    with eval_mode(module), torch.no_grad():
        captured = capture_twice(run, image)
    counters = {
        name: own[name]
        for name in captured.tensors
        if name.endswith("num_batches_tracked") and name in own
    }
    return CapturedGraph(captured.graph, {**captured.tensors, **counters})


def capture_twice(run: Callable[[int], Recording], image: ImageShape) -> CapturedGraph:
    """Return what two runs with batches of different sizes, which `run` makes, have in common."""
    first, second = (run(batch) for batch in _BATCHES)
    if [node.op for node in first.nodes] != [node.op for node in second.nodes]:
        raise FertoolError(
            "the network computes something else for other numbers of images",
            "a network treats each image by itself",
        )
    _share_repeated_constants_(first, second)
    nodes = tuple(_for_any_batch(*pair) for pair in zip(first.nodes, second.nodes, strict=True))
    graph = generalize(Graph(INPUT, nodes, first.output).without_dead_nodes(), image)
    return CapturedGraph(graph, first.tensors_of(graph))


def random_images(batch: int, image: ImageShape) -> Tensor:
    """Return images of noise around 0, always the same ones."""
    return torch.randn(batch, *image, generator=torch.Generator().manual_seed(0))


@contextmanager
def locate_errors(recorder: Recorder) -> Iterator[None]:
    """Turn what is not known inside the block into a FertoolError that names the place."""
    try:
        yield
    except (UnknownCallError, WrongContentError) as error:
        raise FertoolError(
            f"at '{recorder.place}': {error}" if recorder.place else str(error),
            "see docs/operators.md for what a network may have, and what to write instead of others",
        ) from None


def _share_repeated_constants_(first: Recording, second: Recording) -> None:
    """Let constants that were repeated for each image be there once; raise FertoolError for others that differ."""
    for number, (node, other) in enumerate(zip(first.nodes, second.nodes, strict=True)):
        if node.op != "constant":
            continue
        one, two = first.tensors[node.name], second.tensors[other.name]
        if one.dim() and one.shape != two.shape:
            one, two = one[:1], two[:1]
        if not torch.equal(one, two):
            raise FertoolError(
                f"the tensor '{node.name}' is another one for each run, or for other numbers of images",
                "a network computes the same each time",
            )
        if one.shape != first.tensors[node.name].shape and not bool(
            (first.tensors[node.name] == one).all()
        ):
            raise FertoolError(
                f"the tensor '{node.name}' differs from image to image",
                "a network treats all alike",
            )
        first.tensors[node.name] = one
        shared = node.with_args(shape=tuple(one.shape))
        first.nodes[number], second.nodes[number] = shared, shared


def _for_any_batch(node: Node, other: Node) -> Node:
    """Return a node whose arguments fit any number of images, given those for two different ones."""
    if node.args == other.args:
        return node
    changed = {}
    for name, value in node.args.items():
        if value == other.args[name]:
            continue
        if name != "shape" or len(value) != len(other.args[name]):
            raise FertoolError(
                f"node '{node.name}' ({node.op}) depends on the number of images",
                "write it for any number of them",
            )
        changed[name] = _free_shape(node, value, other.args[name])
    return node.with_args(**changed)


def _free_shape(node: Node, one: tuple[int, ...], two: tuple[int, ...]) -> tuple[int, ...]:
    differing = [axis for axis, (a, b) in enumerate(zip(one, two, strict=True)) if a != b]
    if node.op == "expand" and differing == [0]:
        return (-1, *one[1:])
    if len(differing) == 1 and -1 not in one:
        (axis,) = differing
        return (*one[:axis], -1, *one[axis + 1 :])
    raise FertoolError(
        f"node '{node.name}' ({node.op}) depends on the number of images in a way that is not known",
        "lay tensors out with -1 in the place of the batch",
    )
