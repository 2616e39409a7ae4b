"""The types of the operator table: arguments with bounds, and operators with properties.

Imports no torch: the header of a model file is checked with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from msgspec import Meta

REQUIRED = object()
"""Marks an argument without a default."""

MAX_INPUTS = 1024
"""Results that one node may read."""
MAX_PARTS = 64
"""Results that one node may have."""

# The bounds are far above what networks for faces use. They exist because a graph comes out of a
# file: without them one damaged number would allocate terabytes, or run for hours, before anything
# notices.
MAX_SIZE = 65_536
Size = Annotated[int, Meta(ge=1, le=MAX_SIZE)]
"""Channels, features and pixels."""
Axis = Annotated[int, Meta(ge=-8, le=8)]
Axes = Annotated[tuple[Axis, ...], Meta(min_length=1, max_length=8)]
Dimension = Annotated[int, Meta(ge=-1, le=16_777_216)]
Shape = Annotated[tuple[Dimension, ...], Meta(max_length=8)]
Bound = Annotated[int, Meta(ge=-16_777_216, le=16_777_216)]
"""Index along an axis; negative ones count from the end."""
Kernel = Annotated[int, Meta(ge=1, le=1024)]
Stride = Annotated[int, Meta(ge=1, le=1024)]
Padding = Annotated[int, Meta(ge=0, le=1024)]
Groups = Annotated[int, Meta(ge=1, le=MAX_SIZE)]
Index = Annotated[int, Meta(ge=0, le=MAX_SIZE - 1)]
Real = Annotated[float, Meta(ge=-1e30, le=1e30)]
Epsilon = Annotated[float, Meta(ge=0, le=1e3)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Exponent = Annotated[float, Meta(ge=-16, le=16)]
# Negative widths crop, as they do in PyTorch.
PadWidths = Annotated[
    tuple[Annotated[int, Meta(ge=-1024, le=1024)], ...], Meta(min_length=2, max_length=8)
]
PartSizes = Annotated[tuple[Size, ...], Meta(min_length=1, max_length=MAX_PARTS)]
PartCount = Annotated[int, Meta(ge=1, le=MAX_PARTS)]

ChannelEffect = Literal[
    "mixes", "per_channel", "elementwise", "couples", "spatial", "rearranges", "fixes"
]
"""What an operator does to channels.

mixes: computes new channels, each a sum over all input channels. per_channel: has tensors with one
entry per channel. elementwise: each output element depends on one input element. couples:
elementwise over several inputs, whose channels can then only be removed together. spatial: reduces
or resamples positions within a channel. rearranges: moves values and computes none. fixes: anything
else; the channels of inputs and outputs cannot be removed.
"""

Sign = Literal["any", "non-negative", "inherited"]
"""Whether a result can be negative; "inherited": only if an input can."""

AxisArguments = Literal["part sizes", "part count", "indices", "shape"]
"""How arguments refer to an axis; "shape": by the shape of the result."""


@dataclass(frozen=True)
class Argument:
    """An argument: its type with its bounds, in msgspec's notation, and its default."""

    type: Any
    default: Any = REQUIRED


@dataclass(frozen=True)
class Operator:
    """The properties of one operator.

    `function` is the dotted path of the function that computes it, called with the inputs and the
    arguments by name; for a `layer`, which holds tensors, the path of the function that builds its
    module. `inputs` are the smallest and the largest number of inputs. A `multi_output` operator
    returns a tuple, from which `getitem` selects. A `random` one takes `training`; an
    `identity_in_eval` one does nothing in eval mode. `axis_arguments` tells how arguments refer to
    the axis that they cut.

    For integer inference: `integer` ones have a kernel in runtimes; in front of one that `clips` no
    quantizer is needed; each output value of one that `shares_qparams` is an input value, so that
    quantizing it again would change nothing; `gated` activations multiply their input by a function
    of it. A batch norm behind an operator that `folds_norm` can become part of its weights.
    `aliases` are PyTorch's other names for the same function with the same arguments.
    """

    function: str
    channel_effect: ChannelEffect
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    inputs: tuple[int, int] = (1, 1)
    sign: Sign = "any"
    layer: bool = False
    multi_output: bool = False
    random: bool = False
    identity_in_eval: bool = False
    axis_arguments: AxisArguments | None = None
    integer: bool = False
    clips: bool = False
    shares_qparams: bool = False
    gated: bool = False
    folds_norm: bool = False
    aliases: tuple[str, ...] = ()
