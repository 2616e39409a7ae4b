"""The operator table: everything that any part of the program knows of an operator stands here, once.

A network is a graph of these operators. Each entry says which arguments an operator has, what computes it, what it does
to channels, to signs and to the grid of rounded values, and whether there are integer kernels for it. Tracing, surgery,
folding, counting and the placement of quantizers read the table; nothing else lists operators. To add one, add its
entry here, and in `capture.py` its reader where PyTorch's arguments are not those of the table.

Imports no torch: the header of a model file is checked with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

from msgspec import Meta

REQUIRED = object()
"""Stands where an argument has no default."""

Size = Annotated[int, Meta(ge=1, le=65_536)]
"""Channels, features and pixels."""
Axis = Annotated[int, Meta(ge=-8, le=8)]
Axes = Annotated[tuple[Axis, ...], Meta(min_length=1, max_length=8)]
Dimension = Annotated[int, Meta(ge=-1, le=16_777_216)]
Shape = Annotated[tuple[Dimension, ...], Meta(max_length=8)]
Bound = Annotated[int, Meta(ge=-16_777_216, le=16_777_216)]
Kernel = Annotated[int, Meta(ge=1, le=1024)]
Stride = Annotated[int, Meta(ge=1, le=1024)]
Padding = Annotated[int, Meta(ge=0, le=1024)]
Groups = Annotated[int, Meta(ge=1, le=65_536)]
Index = Annotated[int, Meta(ge=0, le=65_535)]
Real = Annotated[float, Meta(ge=-1e30, le=1e30)]
Epsilon = Annotated[float, Meta(ge=0, le=1e3)]
Share = Annotated[float, Meta(ge=0, le=1)]
Exponent = Annotated[float, Meta(ge=-16, le=16)]
PadWidths = Annotated[
    tuple[Annotated[int, Meta(ge=-1024, le=1024)], ...], Meta(min_length=2, max_length=8)
]
MOST_PARTS = 64
"""Results that one node may have."""
Parts = Annotated[tuple[Size, ...], Meta(min_length=1, max_length=MOST_PARTS)]
Chunks = Annotated[int, Meta(ge=1, le=MOST_PARTS)]

ChannelEffect = Literal["mixes", "scales", "keeps", "merges", "pools", "moves", "stays"]
"""What happens to channels.

mixes: new channels, each a sum over those that are read. scales: tensors with one entry for each channel. keeps:
channel by channel, place by place. merges: channel by channel over several inputs, which ties them. pools: channel by
channel, over places. moves: values are moved, none is computed. stays: anything else; the channels that are read and
those that are made can not be removed.
"""

Sign = Literal["any", "not negative", "of inputs"]
"""Whether a result can be negative; "of inputs": not where no input is."""


Sizes = Literal["parts", "equal parts", "places", "shape"]
"""How arguments speak of an axis: sizes of parts, a number of equal parts, single places, or the shape of a result."""


@dataclass(frozen=True)
class Argument:
    """An argument: its type with its bounds, as msgspec has them, and its default."""

    type: Any
    default: Any = REQUIRED


@dataclass(frozen=True)
class Operator:
    """What the program knows of one operator.

    `runs` is the path of the function that computes it, called with its inputs and with its arguments by their names;
    of a `layer`, which has tensors, the path of what builds its module. `inputs` are the fewest and the most that it
    reads. With `many` results it makes a tuple, from which `getitem` picks. `random` ones are told whether the network
    is training; `idle` ones do nothing once it is trained. `sizes` says how arguments speak of places along an axis.

    For integers: `integer` ones have a kernel in runtimes; what `clips` needs no rounding of its own before; `gated`
    activations multiply their input by a function of it. A batch norm behind what `folds_norm` becomes part of it.
    `spellings` are other names that PyTorch has for the same function with the same arguments.
    """

    runs: str
    channels: ChannelEffect
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    inputs: tuple[int, int] = (1, 1)
    sign: Sign = "any"
    layer: bool = False
    many: bool = False
    random: bool = False
    idle: bool = False
    sizes: Sizes | None = None
    integer: bool = False
    clips: bool = False
    gated: bool = False
    folds_norm: bool = False
    spellings: tuple[str, ...] = ()

    @property
    def same_grid(self) -> bool:
        """Whether each value of the result is a value of an input, so that rounding it again would change nothing."""
        return self.channels == "moves" or self.runs == _MAX_POOL


MOST_INPUTS = 1024
_FUNCTIONAL, _KERNELS, _LAYERS = (
    "torch.nn.functional",
    "fertool.graph.kernels",
    "fertool.graph.layers",
)
_MAX_POOL = f"{_FUNCTIONAL}.max_pool2d"

_PAIR_KERNEL = tuple[Kernel, Kernel]
_WINDOW = {
    "stride": Argument(tuple[Stride, Stride], (1, 1)),
    "padding": Argument(tuple[Padding, Padding], (0, 0)),
    "dilation": Argument(tuple[Stride, Stride], (1, 1)),
}
_AXIS = {"dim": Argument(Axis)}
_REDUCED = {"dim": Argument(Axes), "keepdim": Argument(bool, False)}
_OTHER = {"other": Argument(Real | None, None)}


def _layer(builder: str, channels: ChannelEffect, **options: Any) -> Operator:
    return Operator(f"{_LAYERS}.{builder}", channels, layer=True, **options)


def _activation(name: str, *, space: str = _FUNCTIONAL, **options: Any) -> Operator:
    return Operator(f"{space}.{name}", "keeps", **options)


def _dropout(name: str, *, sign: Sign = "of inputs") -> Operator:
    arguments = {"p": Argument(Share, 0.5)}
    return _activation(name, arguments=arguments, sign=sign, random=True, idle=True)


def _sum(name: str, **options: Any) -> Operator:
    """Arithmetic on two tensors, or on one and the number `other`."""
    return Operator(f"torch.{name}", "merges", _OTHER, inputs=(1, 2), **options)


def _move(path: str, arguments: Mapping[str, Argument] | None = None, **options: Any) -> Operator:
    return Operator(path, "moves", arguments or {}, sign="of inputs", integer=True, **options)


OPERATORS: Mapping[str, Operator] = {
    # Layers: what holds tensors.
    "conv2d": _layer(
        "conv2d",
        "mixes",
        arguments={
            "out_channels": Argument(Size),
            "kernel_size": Argument(_PAIR_KERNEL),
            **_WINDOW,
            "groups": Argument(Groups, 1),
            "bias": Argument(bool, True),
        },
        integer=True,
        folds_norm=True,
    ),
    "conv1d": _layer(
        "conv1d",
        "mixes",
        arguments={
            "out_channels": Argument(Size),
            "kernel_size": Argument(Kernel),
            "stride": Argument(Stride, 1),
            "padding": Argument(Padding, 0),
            "dilation": Argument(Stride, 1),
            "groups": Argument(Groups, 1),
            "bias": Argument(bool, True),
        },
        folds_norm=True,
    ),
    "conv_transpose2d": _layer(
        "conv_transpose2d",
        "mixes",
        arguments={
            "out_channels": Argument(Size),
            "kernel_size": Argument(_PAIR_KERNEL),
            **_WINDOW,
            "output_padding": Argument(tuple[Padding, Padding], (0, 0)),
            "groups": Argument(Groups, 1),
            "bias": Argument(bool, True),
        },
    ),
    "linear": _layer(
        "linear",
        "mixes",
        arguments={"out_features": Argument(Size), "bias": Argument(bool, True)},
        integer=True,
        folds_norm=True,
    ),
    "batch_norm": _layer(
        "batch_norm",
        "scales",
        arguments={
            "eps": Argument(Epsilon, 1e-5),
            "momentum": Argument(Share | None, 0.1),
            "affine": Argument(bool, True),
        },
    ),
    "layer_norm": _layer(
        "layer_norm",
        "scales",
        arguments={
            "axes": Argument(Annotated[int, Meta(ge=1, le=4)], 1),
            "eps": Argument(Epsilon, 1e-5),
            "affine": Argument(bool, True),
            "bias": Argument(bool, True),
        },
    ),
    "group_norm": _layer(
        "group_norm",
        "scales",
        arguments={
            "num_groups": Argument(Groups),
            "eps": Argument(Epsilon, 1e-5),
            "affine": Argument(bool, True),
        },
    ),
    "prelu": _layer("prelu", "scales", arguments={"shared": Argument(bool, True)}),
    # Tensors that are no part of a layer: learned, as layer scale is, or constant.
    "parameter": Operator("", "scales", {"shape": Argument(Shape)}, inputs=(0, 0), layer=True),
    "constant": Operator("", "scales", {"shape": Argument(Shape)}, inputs=(0, 0), layer=True),
    # Element by element.
    "relu": _activation("relu", sign="not negative", integer=True, clips=True),
    "relu6": _activation("relu6", sign="not negative", integer=True, clips=True),
    "leaky_relu": _activation(
        "leaky_relu", arguments={"negative_slope": Argument(Real, 0.01)}, integer=True
    ),
    "elu": _activation("elu", arguments={"alpha": Argument(Real, 1.0)}),
    "celu": _activation("celu", arguments={"alpha": Argument(Real, 1.0)}),
    "selu": _activation("selu"),
    "softsign": _activation("softsign"),
    "logsigmoid": _activation("logsigmoid", spellings=("log_sigmoid",)),
    "gelu": _activation(
        "gelu", arguments={"approximate": Argument(Literal["none", "tanh"], "none")}, gated=True
    ),
    "silu": _activation("silu", integer=True, spellings=("swish",), gated=True),
    "mish": _activation("mish", gated=True),
    "softplus": _activation(
        "softplus",
        arguments={"beta": Argument(Real, 1.0), "threshold": Argument(Real, 20.0)},
        sign="not negative",
    ),
    "tanh": _activation("tanh", space="torch"),
    "sigmoid": _activation("sigmoid", space="torch", sign="not negative", integer=True),
    "hardsigmoid": _activation("hardsigmoid", sign="not negative", integer=True),
    "hardswish": _activation("hardswish", integer=True, gated=True),
    "hardtanh": _activation(
        "hardtanh", arguments={"min_val": Argument(Real, -1.0), "max_val": Argument(Real, 1.0)}
    ),
    "clamp": _activation(
        "clamp",
        space="torch",
        arguments={"min": Argument(Real | None, None), "max": Argument(Real | None, None)},
        spellings=("clip",),
    ),
    "abs": _activation("abs", space="torch", sign="not negative"),
    "neg": _activation("neg", space="torch"),
    "exp": _activation("exp", space="torch", sign="not negative"),
    "sqrt": _activation("sqrt", space="torch", sign="not negative"),
    "rsqrt": _activation("rsqrt", space="torch", sign="not negative"),
    "square": _activation("square", space="torch", sign="not negative"),
    "pow": _activation("pow", space="torch", arguments={"exponent": Argument(Exponent)}),
    "dropout": _dropout("dropout"),
    "dropout1d": _dropout("dropout1d"),
    "dropout2d": _dropout("dropout2d"),
    "alpha_dropout": _dropout("alpha_dropout", sign="any"),
    "stochastic_depth": _activation(
        "stochastic_depth",
        space=_KERNELS,
        arguments={"p": Argument(Share)},
        sign="of inputs",
        random=True,
        idle=True,
    ),
    # Element by element over two tensors, or with a number.
    "add": _sum("add", sign="of inputs", integer=True),
    "sub": _sum("sub", spellings=("subtract",)),
    "mul": _sum("mul", sign="of inputs", integer=True, spellings=("multiply",)),
    "div": _sum("div", sign="of inputs", spellings=("truediv", "true_divide", "divide")),
    "maximum": Operator("torch.maximum", "merges", inputs=(2, 2), sign="of inputs"),
    "minimum": Operator("torch.minimum", "merges", inputs=(2, 2), sign="of inputs"),
    # Over places, channel by channel.
    "max_pool2d": Operator(
        _MAX_POOL,
        "pools",
        {"kernel_size": Argument(_PAIR_KERNEL), **_WINDOW, "ceil_mode": Argument(bool, False)},
        sign="of inputs",
        integer=True,
    ),
    "avg_pool2d": Operator(
        f"{_FUNCTIONAL}.avg_pool2d",
        "pools",
        {
            "kernel_size": Argument(_PAIR_KERNEL),
            "stride": Argument(tuple[Stride, Stride]),
            "padding": Argument(tuple[Padding, Padding], (0, 0)),
            "ceil_mode": Argument(bool, False),
            "count_include_pad": Argument(bool, True),
        },
        sign="of inputs",
        integer=True,
    ),
    "adaptive_avg_pool2d": Operator(
        f"{_FUNCTIONAL}.adaptive_avg_pool2d",
        "pools",
        {"output_size": Argument(tuple[Size, Size])},
        sign="of inputs",
        integer=True,
    ),
    "adaptive_max_pool2d": Operator(
        f"{_FUNCTIONAL}.adaptive_max_pool2d",
        "pools",
        {"output_size": Argument(tuple[Size, Size])},
        sign="of inputs",
    ),
    "interpolate": Operator(
        f"{_FUNCTIONAL}.interpolate",
        "pools",
        {
            "size": Argument(tuple[Size, Size]),
            "mode": Argument(
                Literal["nearest", "nearest-exact", "bilinear", "bicubic", "area"], "nearest"
            ),
            "align_corners": Argument(bool | None, None),
        },
        sign="of inputs",
    ),
    "pad": Operator(
        f"{_FUNCTIONAL}.pad",
        "pools",
        {
            "pad": Argument(PadWidths),
            "mode": Argument(Literal["constant", "reflect", "replicate", "circular"], "constant"),
            "value": Argument(Real, 0.0),
        },
        sign="of inputs",
        integer=True,
    ),
    "mean": Operator("torch.mean", "pools", _REDUCED, sign="of inputs", integer=True),
    "sum": Operator("torch.sum", "pools", _REDUCED, sign="of inputs"),
    "amax": Operator("torch.amax", "pools", _REDUCED, sign="of inputs"),
    # Values change places, channels with them.
    "identity": _move(f"{_KERNELS}.identity", idle=True),
    "flatten": _move(
        "torch.flatten", {"start_dim": Argument(Axis, 0), "end_dim": Argument(Axis, -1)}
    ),
    "reshape": _move(f"{_KERNELS}.reshape", {"shape": Argument(Shape)}, sizes="shape"),
    "expand": _move(f"{_KERNELS}.expand", {"shape": Argument(Shape)}, sizes="shape"),
    "permute": _move("torch.permute", {"dims": Argument(Axes)}),
    "transpose": _move("torch.transpose", {"dim0": Argument(Axis), "dim1": Argument(Axis)}),
    "squeeze": _move("torch.squeeze", {"dim": Argument(Axes)}),
    "unsqueeze": _move("torch.unsqueeze", _AXIS),
    "cat": _move(
        f"{_KERNELS}.cat", _AXIS, inputs=(1, MOST_INPUTS), spellings=("concat", "concatenate")
    ),
    "stack": _move(f"{_KERNELS}.stack", _AXIS, inputs=(1, MOST_INPUTS)),
    "chunk": _move(
        "torch.chunk", {"chunks": Argument(Chunks), **_AXIS}, many=True, sizes="equal parts"
    ),
    "split": _move(
        f"{_KERNELS}.split", {"sizes": Argument(Parts), **_AXIS}, many=True, sizes="parts"
    ),
    "unbind": _move("torch.unbind", _AXIS, many=True, sizes="places"),
    "getitem": _move(f"{_KERNELS}.pick", {"index": Argument(Index)}),
    "select": _move("torch.select", {**_AXIS, "index": Argument(Bound)}, sizes="places"),
    "slice": _move(
        f"{_KERNELS}.cut",
        {
            **_AXIS,
            "start": Argument(Bound, 0),
            "end": Argument(Bound | None, None),
            "step": Argument(Stride, 1),
        },
        sizes="parts",
    ),
    "channel_shuffle": _move(
        f"{_KERNELS}.channel_shuffle", {"groups": Argument(Groups)}, sizes="equal parts"
    ),
    "pixel_shuffle": _move(f"{_FUNCTIONAL}.pixel_shuffle", {"upscale_factor": Argument(Stride)}),
    "pixel_unshuffle": _move(
        f"{_FUNCTIONAL}.pixel_unshuffle", {"downscale_factor": Argument(Stride)}
    ),
    "flip": _move("torch.flip", {"dims": Argument(Axes)}),
    "roll": _move(
        "torch.roll",
        {
            "shifts": Argument(Annotated[tuple[Bound, ...], Meta(max_length=8)]),
            "dims": Argument(Axes),
        },
        sizes="places",
    ),
    # Known, but not to be pruned through.
    "softmax": Operator(f"{_FUNCTIONAL}.softmax", "stays", _AXIS, sign="not negative"),
    "log_softmax": Operator(f"{_FUNCTIONAL}.log_softmax", "stays", _AXIS),
    "matmul": Operator("torch.matmul", "stays", inputs=(2, 2), spellings=("bmm", "mm")),
    "scaled_dot_product_attention": Operator(
        f"{_FUNCTIONAL}.scaled_dot_product_attention",
        "stays",
        {"scale": Argument(Real | None, None)},
        inputs=(3, 4),
    ),
    "normalize": Operator(
        f"{_FUNCTIONAL}.normalize",
        "stays",
        {"p": Argument(Real, 2.0), "dim": Argument(Axis, 1), "eps": Argument(Epsilon, 1e-12)},
    ),
    "norm": Operator(
        "torch.norm", "stays", {"p": Argument(Real, 2.0), **_REDUCED}, sign="not negative"
    ),
}

EFFECTS: tuple[ChannelEffect, ...] = get_args(ChannelEffect)
