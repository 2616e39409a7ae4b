"""Channel tracing: the network runs on channel ids, which shows where each channel is used.

The graph runs on a tensor of integers in place of an image. Layers that mix channels create ids,
elementwise operators pass them on, additions and products couple the ids of their inputs, and
rearrangements are executed on ids as they are. Where an operator's effect on channels is none of
these, the channels are fixed: they are not removed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from fertool.errors import FertoolError
from fertool.graph.channel_graph import ChannelGraph, ChannelGraphBuilder
from fertool.graph.channel_ids import (
    FixedChannelsError,
    broadcast,
    flatten_tensors,
    ids_along,
    is_broadcast_over,
    is_channel_row,
    reduce_ids,
    spread_over,
    varying_axes,
    without_repeats,
)
from fertool.graph.counting import kernel_elements, multiplied_positions
from fertool.graph.ir import Node
from fertool.graph.network import Network
from fertool.graph.operator_types import ChannelEffect


def trace_channels(network: Network) -> ChannelGraph:
    """Return the channel graph of a network, which may be on the meta device and is not changed."""
    tracer = ChannelTracer(network)
    images = tracer.image_ids()
    values: dict[str, Any] = {network.graph.input: images}
    for node in network.graph.nodes:
        inputs = [values[name] for name in node.inputs]
        values[node.name] = tracer.trace(node, inputs)

    tracer.fix(values[network.graph.output], "outputs of the network")
    return tracer.channel_graph(ids_along(images, 1))


def weight_axes(op: str) -> tuple[int, int]:
    """Return the axes of a layer's weight along which its output and its input channels lie."""
    # PyTorch stores the weight of a transposed convolution as that of the convolution whose
    # gradient it is.
    if op == "conv_transpose2d":
        return (1, 0)
    return (0, 1)


class ChannelTracer:
    """Runs a graph node by node on channel ids: int64 [1, …], with the shapes of activations."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._builder = ChannelGraphBuilder()
        self._rules: Mapping[ChannelEffect, Callable[[Node, list[Any]], Any]] = {
            "mixes": self._mix,
            "per_channel": self._apply_per_channel,
            "elementwise": self._pass_on,
            "couples": self._couple,
            "spatial": self._reduce_positions,
            "rearranges": self._rearrange,
            "fixes": self._fix_all,
        }

    def image_ids(self) -> Tensor:
        """Return the ids of the image's channels, which are fixed, in the shape of an image."""
        ids = self._builder.new_ids(self._network.image[0])
        self.fix(ids, "channels of the image")
        return spread_over(ids, self._network.image[1:])

    def trace(self, node: Node, inputs: list[Any]) -> Any:
        """Return the ids of a node's result, a tuple if it has several results."""
        rule = self._rules[node.operator.channel_effect]
        try:
            return rule(node, inputs)
        except FixedChannelsError as reason:
            self._builder.fixing_nodes[node.name] = str(reason)
            return self._fix_all(node, inputs)
        except RuntimeError as error:
            # The ids are those of one image: no node may take them for those of several.
            message = str(error).partition("\n")[0]
            raise FertoolError(
                f"node '{node.name}' ({node.op}) does not treat each image by itself: {message}",
                "let reshapes keep the axis of the images apart from all others",
            ) from None

    def channel_graph(self, inputs: Tensor) -> ChannelGraph:
        """Return the layers traced so far; `inputs` are the ids of the image's channels, [C]."""
        return self._builder.build(inputs)

    def fix(self, ids: Tensor, reason: str) -> None:
        """Mark channels as fixed, for a reason."""
        self._builder.fix(ids, reason)

    # Layers that mix channels.

    def _mix(self, node: Node, inputs: list[Tensor]) -> Tensor:
        (x,) = inputs
        if node.op == "linear":
            return self._mix_linear(node, x)
        if self._is_channel_conv(node, x):
            return self._mix_neighbors(node, x)
        if node.args["groups"] > 1:
            return self._mix_in_groups(node, x)

        inputs_ids = ids_along(x, 1)
        outputs = self._builder.new_ids(node.args["out_channels"])
        self._builder.add_layer(
            node.name,
            "dense",
            inputs_ids,
            outputs,
            kernel_elements=kernel_elements(node),
            per_output=int(node.args["bias"]),
            positions=multiplied_positions(self._network, node),
        )
        return spread_over(outputs, self._output_sides(node))

    def _mix_linear(self, node: Node, x: Tensor) -> Tensor:
        # Every entry of a vector is an input: a flattened map has one per position of each channel.
        inputs = x[0] if x.dim() == 2 else ids_along(x, x.dim() - 1)
        outputs = self._builder.new_ids(node.args["out_features"])
        self._builder.add_layer(
            node.name,
            "dense",
            inputs,
            outputs,
            kernel_elements=1,
            per_output=int(node.args["bias"]),
            positions=multiplied_positions(self._network, node),
        )
        return outputs.expand(*x.shape[:-1], -1).contiguous()

    def _is_channel_conv(self, node: Node, x: Tensor) -> bool:
        """Return whether a convolution runs along the channels, as that of ECA does."""
        if node.args["out_channels"] != 1 or self._output_sides(node) != x.shape[2:]:
            return False
        return is_channel_row(x)

    def _mix_neighbors(self, node: Node, x: Tensor) -> Tensor:
        ids = x.flatten()
        self._builder.add_layer(
            node.name,
            "channel_conv",
            ids,
            ids,
            kernel_elements=kernel_elements(node),
            per_output=int(node.args["bias"]),
        )
        # Neighbors mix, but each position of the result still belongs to the channel of that
        # position.
        return x

    def _mix_in_groups(self, node: Node, x: Tensor) -> Tensor:
        inputs = ids_along(x, 1)
        if node.op == "conv_transpose2d":
            raise FixedChannelsError("a transposed convolution in groups")

        groups = node.args["groups"]
        group_inputs = len(inputs) // groups
        for members in inputs.reshape(groups, group_inputs).tolist():
            self._builder.coupled.unite_all(members)

        group_outputs = node.args["out_channels"] // groups
        outputs = inputs[::group_inputs].repeat_interleave(group_outputs)
        self._builder.add_layer(
            node.name,
            "grouped",
            inputs,
            outputs,
            kernel_elements=kernel_elements(node) * group_inputs,
            per_output=int(node.args["bias"]),
            positions=multiplied_positions(self._network, node),
        )
        return spread_over(outputs, self._output_sides(node))

    def _output_sides(self, node: Node) -> torch.Size:
        return torch.Size(self._network.shapes[node.name][1:])

    # Tensors with one entry per channel.

    def _apply_per_channel(self, node: Node, inputs: list[Tensor]) -> Tensor:
        if not inputs:
            return self._read_tensor(node)

        (x,) = inputs
        if node.op == "batch_norm":
            ids = ids_along(x, 1)
            per_output = 2 * int(node.args["affine"])
            positions = x[0, 0].numel()
            self._builder.add_layer(
                node.name, "norm", ids, ids, per_output=per_output, positions=positions
            )
            return x
        if node.op == "prelu":
            self._add_prelu(node, x)
            return x

        self._add_whole(node)
        self._builder.fixing_nodes[node.name] = "it normalizes over the channels"
        self.fix(x, f"{node.name} normalizes over them")
        return x

    def _add_prelu(self, node: Node, x: Tensor) -> None:
        if node.args["shared"]:
            self._add_whole(node)
            return
        ids = ids_along(x, 1)
        self._builder.add_layer(
            node.name, "scale", ids, ids, per_output=1, positions=x[0, 0].numel()
        )

    def _read_tensor(self, node: Node) -> Tensor:
        """Return the ids of a tensor outside layers: one per entry, or one for all of them."""
        shape = node.args["shape"]
        long_axes = [axis for axis, size in enumerate(shape) if size > 1]
        if len(long_axes) != 1:
            self._add_whole(node)
            whole = self._builder.new_ids(1)
            self.fix(whole, f"{node.name} has them on several axes")
            return whole.expand(shape).contiguous()

        (channel_axis,) = long_axes
        ids = self._builder.new_ids(shape[channel_axis])
        # Constants are not learned, and count for nothing.
        per_output = int(node.op == "parameter")
        self._builder.add_layer(node.name, "scale", ids, ids, per_output=per_output)
        return ids.reshape(shape)

    def _add_whole(self, node: Node) -> None:
        """Count the parameters of a layer that is not pruned, as those of one fixed channel."""
        parameters = dict(self._network.named_parameters())
        count = 0
        for name in (node.name, f"{node.name}.weight", f"{node.name}.bias"):
            if name in parameters:
                count += parameters[name].numel()
        whole = self._builder.new_ids(1)
        self.fix(whole, node.name)
        self._builder.add_layer(node.name, "scale", whole, whole, per_output=count)

    # Operators without tensors.

    def _pass_on(self, node: Node, inputs: list[Tensor]) -> Tensor:
        return inputs[0]

    def _couple(self, node: Node, inputs: list[Tensor]) -> Tensor:
        if len(inputs) == 1:
            return inputs[0]

        one, two = broadcast(*inputs)
        for narrow, wide in ((inputs[0], two), (inputs[1], one)):
            if is_broadcast_over(narrow, wide):
                # A mask over all channels, whose own channel belongs to none of them.
                self.fix(narrow, f"{node.name} repeats it over the channels")
                return wide.contiguous()

        one_ids, two_ids = without_repeats(one, two)
        pairs = set(zip(one_ids.flatten().tolist(), two_ids.flatten().tolist(), strict=True))
        for one_id, two_id in pairs:
            self._builder.coupled.unite(one_id, two_id)
        return one.contiguous()

    def _reduce_positions(self, node: Node, inputs: list[Tensor]) -> Tensor:
        (x,) = inputs
        if node.op in ("mean", "sum", "amax"):
            return reduce_ids(x, node.args["dim"], keepdim=node.args["keepdim"])

        # More than two pairs of widths would pad the axis of the channels.
        pads_channels = node.op == "pad" and len(node.args["pad"]) > 4
        if x.dim() != 4 or pads_channels:
            raise FixedChannelsError("it works along the channels")
        return spread_over(ids_along(x, 1), self._network.shapes[node.name][1:])

    def _rearrange(self, node: Node, inputs: list[Any]) -> Any:
        # Each block of channels becomes one channel, and can only be removed as a whole.
        if node.op == "pixel_shuffle":
            block = node.args["upscale_factor"] ** 2
            inputs = [self._couple_blocks(inputs[0], block)]

        if node.operator.axis_arguments == "shape":
            self._require_free_shape(node, inputs[0])
        elif node.operator.axis_arguments is not None:
            self._note_parts(node, inputs[0])

        moved = self._network.eval_function(node)(*inputs)
        if isinstance(moved, Tensor):
            return moved.contiguous()
        return tuple(moved)

    def _couple_blocks(self, x: Tensor, size: int) -> Tensor:
        """Couple the channels of each block of `size`; return the map with one id per block."""
        blocks = ids_along(x, 1).reshape(-1, size)
        for members in blocks.tolist():
            self._builder.coupled.unite_all(members)
        ids = blocks[:, :1].expand(-1, size).flatten()
        return spread_over(ids, x.shape[2:])

    def _require_free_shape(self, node: Node, x: Tensor) -> None:
        """Raise FixedChannelsError where the shape of a result names a number of channels."""
        axes = varying_axes(self._network.eval_function(node)(x))
        on_several_axes = node.op == "reshape" and len(axes) > 1
        for axis in axes:
            if node.args["shape"][axis] > 1 or on_several_axes:
                raise FixedChannelsError("it lays out channels along several axes")

    def _note_parts(self, node: Node, x: Tensor) -> None:
        """Record the ids of each part into which a node cuts its channels.

        Raises FixedChannelsError where the arguments do not allow another number of channels.
        """
        axis = _cut_axis(node) % x.dim()
        if axis not in varying_axes(x):
            return
        if node.operator.axis_arguments == "indices" or node.args.get("step", 1) != 1:
            raise FixedChannelsError("it picks single channels")

        ids = ids_along(x, axis)
        if node.op == "chunk":
            self._builder.equal_parts[node.name] = torch.chunk(ids, node.args["chunks"])
        elif node.op == "channel_shuffle":
            self._builder.equal_parts[node.name] = torch.chunk(ids, node.args["groups"])
        elif node.op == "split":
            self._builder.parts[node.name] = torch.split(ids, list(node.args["sizes"]))
        else:
            start, end, _ = slice(node.args["start"], node.args["end"]).indices(len(ids))
            self._builder.parts[node.name] = (ids[:start], ids[start:end], ids[end:])

    # Everything else.

    def _fix_all(self, node: Node, inputs: list[Any]) -> Any:
        """Fix all channels of a node's inputs and outputs, and return ids for its result."""
        unknown = f"what {node.op} does to channels is not known"
        reason = self._builder.fixing_nodes.setdefault(node.name, unknown)
        for ids in flatten_tensors(inputs):
            self.fix(ids, f"{node.name}: {reason}")

        # Their parameters and multiply-accumulates count, pruned or not.
        if node.operator.channel_effect == "mixes":
            self._add_unpruned(node, inputs[0])
        elif node.operator.layer:
            self._add_whole(node)

        whole = self._builder.new_ids(1)
        self.fix(whole, f"{node.name}: {reason}")
        if not node.operator.multi_output:
            shape = self._network.shapes[node.name]
            return whole.expand(1, *shape).contiguous()

        # The number of parts and their shapes are only known by running the node.
        parts = self._network.eval_function(node)(inputs[0])
        return tuple(whole.expand(part.shape).contiguous() for part in parts)

    def _add_unpruned(self, node: Node, x: Tensor) -> None:
        """Count a layer that mixes channels which are all fixed."""
        whole = self._builder.new_ids(1)
        self.fix(whole, f"{node.name}: {self._builder.fixing_nodes[node.name]}")
        if node.op == "linear":
            inputs = x.shape[-1]
            outputs = self._network.shapes[node.name][-1]
            elements = 1
        else:
            inputs = x.shape[1] // node.args["groups"]
            outputs = node.args["out_channels"]
            elements = kernel_elements(node)
        self._builder.add_layer(
            node.name,
            "dense",
            whole.expand(inputs),
            whole.expand(outputs),
            kernel_elements=elements,
            per_output=int(node.args.get("bias", False)),
            positions=multiplied_positions(self._network, node),
        )


def _cut_axis(node: Node) -> int:
    """Return the axis that a node cuts."""
    if node.op == "roll":
        return int(node.args["dims"][0])
    # A channel shuffle has no argument for its axis.
    return int(node.args.get("dim", 1))
