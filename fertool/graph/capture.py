"""From any module to a graph of known operators, by recording the calls of its forward.

A `TorchFunctionMode` is shown each function that PyTorch runs on tensors, with the arguments as the
module's author wrote them. That needs no support from the module and takes tens of milliseconds.
Control flow has been decided and sizes are numbers by then, as in an exported program. So the
module runs twice, with batches of different sizes: what differs between the runs depends on the
batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fertool.errors import FertoolError
from fertool.graph.generalize import generalize
from fertool.graph.ir import INPUT, Graph, Node
from fertool.graph.network import ImageShape, Network, clone_tensors
from fertool.graph.operators import UNSUPPORTED_HINT
from fertool.graph.recorder import Recorder, Recording
from fertool.graph.torch_calls import UnsupportedCallError
from fertool.inference import eval_mode
from fertool.strict_json import WrongContentError

# Neither is 1, a size that many other axes have, and over which everything broadcasts.
BATCH_SIZES = (2, 3)
"""The numbers of images for which a network is recorded or converted."""


@dataclass(frozen=True)
class CapturedGraph:
    """A graph and the values of its tensors, by name."""

    graph: Graph
    tensors: dict[str, Tensor]

    def network(self, image: ImageShape) -> Network:
        """Return what was captured as a network in eval mode, with its own copy of the tensors."""
        network = Network(self.graph, image)
        network.load_state_dict(clone_tensors(self.tensors), assign=True)
        return network.eval()


def capture(module: nn.Module, image: ImageShape) -> CapturedGraph:
    """Return the graph that a module computes for images [N, C, H, W], with its tensors.

    The module is not changed; its batch norms and dropouts are in the graph as operators that
    train. Raises FertoolError naming the module and the function that is not in the operator table,
    or what depends on the batch.
    """
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    # Parameters last: a tensor that is both is a parameter.
    own_tensors = {**dict(module.named_buffers()), **dict(module.named_parameters())}

    def run(batch_size: int) -> Recording:
        recorder = Recorder(own_tensors)
        images = random_images(batch_size, image).to(device)
        recorder.start(images)
        with locate_errors(recorder), recorder.track_modules(module), recorder:
            result = module(images)
        return recorder.finish(result)

    with eval_mode(module), torch.no_grad():
        captured = capture_twice(run, image)

    # Batch norms in eval mode do not read their counters, which training with `momentum=None`
    # needs.
    tensors = dict(captured.tensors)
    for name in captured.tensors:
        if name.endswith("num_batches_tracked") and name in own_tensors:
            tensors[name] = own_tensors[name]
    return CapturedGraph(captured.graph, tensors)


def capture_twice(run: Callable[[int], Recording], image: ImageShape) -> CapturedGraph:
    """Return the graph of two recordings, which `run` makes with batches of different sizes."""
    first = run(BATCH_SIZES[0])
    second = run(BATCH_SIZES[1])
    if _operators(first) != _operators(second):
        raise FertoolError(
            "the network computes something else for other batch sizes",
            "let the network treat each image by itself",
        )

    _share_repeated_constants_(first, second)
    nodes = []
    for node, other in zip(first.nodes, second.nodes, strict=True):
        nodes.append(_for_any_batch(node, other))
    graph = Graph(INPUT, tuple(nodes), first.output).without_dead_nodes()
    graph = generalize(graph, image)
    return CapturedGraph(graph, first.tensors_of(graph))


def _operators(recording: Recording) -> list[str]:
    return [node.op for node in recording.nodes]


def random_images(batch_size: int, image: ImageShape) -> Tensor:
    """Return images of normally distributed noise, the same ones in each call."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch_size, *image, generator=generator)


@contextmanager
def locate_errors(recorder: Recorder) -> Iterator[None]:
    """Turn errors about unknown calls into a FertoolError that names the calling module."""
    try:
        yield
    except (UnsupportedCallError, WrongContentError) as error:
        message = str(error)
        if recorder.module_path:
            message = f"at '{recorder.module_path}': {error}"
        raise FertoolError(message, UNSUPPORTED_HINT) from None


def _share_repeated_constants_(first: Recording, second: Recording) -> None:
    """Keep one copy of constants that were repeated for each image, in place.

    Raises FertoolError for constants that differ between the runs, or from image to image.
    """
    for index, (node, other) in enumerate(zip(first.nodes, second.nodes, strict=True)):
        if node.op != "constant":
            continue
        shared = _shared_value(node, first.tensors[node.name], second.tensors[other.name])
        first.tensors[node.name] = shared
        shared_node = node.with_args(shape=tuple(shared.shape))
        first.nodes[index] = shared_node
        second.nodes[index] = shared_node


def _shared_value(node: Node, one: Tensor, two: Tensor) -> Tensor:
    """Return the value that a constant has in both runs, without repeats for each image."""
    shared, other_shared = one, two
    if one.dim() > 0 and one.shape != two.shape:
        shared, other_shared = one[:1], two[:1]
    if not torch.equal(shared, other_shared):
        raise FertoolError(
            f"the tensor '{node.name}' differs between two runs, or for other batch sizes",
            "let the network compute the same each time",
        )
    if shared.shape != one.shape and not bool((one == shared).all()):
        raise FertoolError(
            f"the tensor '{node.name}' differs from image to image",
            "let the network treat all images in the same way",
        )
    return shared


def _for_any_batch(node: Node, other: Node) -> Node:
    """Return a node whose arguments fit any batch size, given those for two different ones."""
    differing = [name for name, value in node.args.items() if value != other.args[name]]
    if not differing:
        return node

    shape = node.args.get("shape", ())
    other_shape = other.args.get("shape", ())
    # Other arguments than shapes have no value that stands for any size.
    if differing != ["shape"] or len(shape) != len(other_shape):
        raise FertoolError(
            f"node '{node.name}' ({node.op}) depends on the batch size",
            "write it for any batch size",
        )
    return node.with_args(shape=_free_shape(node, shape, other_shape))


def _free_shape(node: Node, one: tuple[int, ...], two: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape with -1 for the size that depends on the batch."""
    differing = [axis for axis in range(len(one)) if one[axis] != two[axis]]
    # In an expansion -1 keeps the size of an axis, so that several axes can have it.
    keeps_batch = node.op == "expand" and differing == [0]
    is_inferred = len(differing) == 1 and -1 not in one
    if keeps_batch or is_inferred:
        (axis,) = differing
        return (*one[:axis], -1, *one[axis + 1 :])

    raise FertoolError(
        f"node '{node.name}' ({node.op}) depends on the batch size in an unknown way",
        "write shapes with -1 in the place of the batch size",
    )
