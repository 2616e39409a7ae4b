"""The operator table: the only place that lists operators and their properties.

A network is a graph of these operators. Each entry holds an operator's arguments, the function that
computes it, its effect on channels and signs, and what integer inference needs to know. Tracing,
surgery, folding, counting and the placement of quantizers read the table. To add an operator, add
its entry here; where PyTorch's arguments differ from those of the table also a converter in
`torch_functions.py`, and one in the `onnx_…` module of its kind for files of ONNX.

Imports no torch: the header of a model file is checked with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta

from fertool.graph.operator_types import (
    MAX_INPUTS,
    Argument,
    Axes,
    Axis,
    Bound,
    ChannelEffect,
    Epsilon,
    Exponent,
    Fraction,
    Groups,
    Index,
    Kernel,
    Operator,
    Padding,
    PadWidths,
    PartCount,
    PartSizes,
    Real,
    Shape,
    Sign,
    Size,
    Stride,
)

UNSUPPORTED_HINT = "see docs/operators.md for the supported operators, and what to write instead"
"""The hint of errors about what the table does not have."""
# Paths instead of functions, since importing torch takes seconds and a header can be checked
# without it.
_FUNCTIONAL = "torch.nn.functional"
_KERNELS = "fertool.graph.kernels"
_LAYERS = "fertool.graph.layers"

_PAIR_KERNEL = tuple[Kernel, Kernel]
_WINDOW = {
    "stride": Argument(tuple[Stride, Stride], (1, 1)),
    "padding": Argument(tuple[Padding, Padding], (0, 0)),
    "dilation": Argument(tuple[Stride, Stride], (1, 1)),
}
_AXIS = {"dim": Argument(Axis)}
_REDUCTION = {"dim": Argument(Axes), "keepdim": Argument(bool, False)}
# A number in place of the second input; None where there are two inputs.
_OTHER = {"other": Argument(Real | None, None)}


def _layer(builder: str, channel_effect: ChannelEffect, **options: Any) -> Operator:
    """Return an operator whose module is built by a function of `layers.py`."""
    return Operator(f"{_LAYERS}.{builder}", channel_effect, layer=True, **options)


def _activation(name: str, *, module: str = _FUNCTIONAL, **options: Any) -> Operator:
    """Return an elementwise function of one tensor."""
    return Operator(f"{module}.{name}", "elementwise", **options)


def _dropout(name: str, *, sign: Sign = "inherited") -> Operator:
    """Return a function that sets random elements or channels to a constant while training."""
    arguments = {"p": Argument(Fraction, 0.5)}
    return _activation(name, arguments=arguments, sign=sign, random=True, identity_in_eval=True)


def _arithmetic(name: str, **options: Any) -> Operator:
    """Return arithmetic on two tensors, or on one tensor and the number `other`."""
    return Operator(f"torch.{name}", "couples", _OTHER, inputs=(1, 2), **options)


def _rearrange(
    path: str, arguments: Mapping[str, Argument] | None = None, **options: Any
) -> Operator:
    """Return an operator that moves values, of integers as well as of floats."""
    return Operator(
        path,
        "rearranges",
        arguments or {},
        sign="inherited",
        integer=True,
        shares_qparams=True,
        **options,
    )


OPERATORS: Mapping[str, Operator] = {
    # Layers: operators with tensors. Runtimes have integer kernels for the two that make up almost
    # all of a network's multiply-accumulates.
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
        "per_channel",
        arguments={
            "eps": Argument(Epsilon, 1e-5),
            "momentum": Argument(Fraction | None, 0.1),
            "affine": Argument(bool, True),
        },
    ),
    "layer_norm": _layer(
        "layer_norm",
        "per_channel",
        arguments={
            "axes": Argument(Annotated[int, Meta(ge=1, le=4)], 1),
            "eps": Argument(Epsilon, 1e-5),
            "affine": Argument(bool, True),
            "bias": Argument(bool, True),
        },
    ),
    "group_norm": _layer(
        "group_norm",
        "per_channel",
        arguments={
            "num_groups": Argument(Groups),
            "eps": Argument(Epsilon, 1e-5),
            "affine": Argument(bool, True),
        },
    ),
    "prelu": _layer("prelu", "per_channel", arguments={"shared": Argument(bool, True)}),
    # Tensors outside layers: learned (layer scale, position embeddings) or constant. They count as
    # layers since surgery has to shorten them with the channels that they belong to.
    "parameter": Operator("", "per_channel", {"shape": Argument(Shape)}, inputs=(0, 0), layer=True),
    "constant": Operator("", "per_channel", {"shape": Argument(Shape)}, inputs=(0, 0), layer=True),
    # Elementwise. Without `integer` an operator runs in float between two quantizers.
    "relu": _activation("relu", sign="non-negative", integer=True, clips=True),
    "relu6": _activation("relu6", sign="non-negative", integer=True, clips=True),
    "leaky_relu": _activation(
        "leaky_relu", arguments={"negative_slope": Argument(Real, 0.01)}, integer=True
    ),
    "elu": _activation("elu", arguments={"alpha": Argument(Real, 1.0)}),
    "celu": _activation("celu", arguments={"alpha": Argument(Real, 1.0)}),
    "selu": _activation("selu"),
    "softsign": _activation("softsign"),
    "logsigmoid": _activation("logsigmoid", aliases=("log_sigmoid",)),
    "gelu": _activation(
        "gelu", arguments={"approximate": Argument(Literal["none", "tanh"], "none")}, gated=True
    ),
    "silu": _activation("silu", integer=True, aliases=("swish",), gated=True),
    "mish": _activation("mish", gated=True),
    "softplus": _activation(
        "softplus",
        arguments={"beta": Argument(Real, 1.0), "threshold": Argument(Real, 20.0)},
        sign="non-negative",
    ),
    "tanh": _activation("tanh", module="torch"),
    "sigmoid": _activation("sigmoid", module="torch", sign="non-negative", integer=True),
    "hardsigmoid": _activation("hardsigmoid", sign="non-negative", integer=True),
    "hardswish": _activation("hardswish", integer=True, gated=True),
    "hardtanh": _activation(
        "hardtanh", arguments={"min_val": Argument(Real, -1.0), "max_val": Argument(Real, 1.0)}
    ),
    "clamp": _activation(
        "clamp",
        module="torch",
        arguments={"min": Argument(Real | None, None), "max": Argument(Real | None, None)},
        aliases=("clip",),
    ),
    "abs": _activation("abs", module="torch", sign="non-negative"),
    "neg": _activation("neg", module="torch"),
    "exp": _activation("exp", module="torch", sign="non-negative"),
    "sqrt": _activation("sqrt", module="torch", sign="non-negative"),
    "rsqrt": _activation("rsqrt", module="torch", sign="non-negative"),
    "square": _activation("square", module="torch", sign="non-negative"),
    "pow": _activation("pow", module="torch", arguments={"exponent": Argument(Exponent)}),
    "dropout": _dropout("dropout"),
    "dropout1d": _dropout("dropout1d"),
    "dropout2d": _dropout("dropout2d"),
    "alpha_dropout": _dropout("alpha_dropout", sign="any"),
    "stochastic_depth": _activation(
        "stochastic_depth",
        module=_KERNELS,
        arguments={"p": Argument(Fraction)},
        sign="inherited",
        random=True,
        identity_in_eval=True,
    ),
    # Elementwise over two tensors, or over one tensor and a number. The sign of a product or
    # quotient is inherited as non-negative only; `sub` can always be negative.
    "add": _arithmetic("add", sign="inherited", integer=True),
    "sub": _arithmetic("sub", aliases=("subtract",)),
    "mul": _arithmetic("mul", sign="inherited", integer=True, aliases=("multiply",)),
    "div": _arithmetic("div", sign="inherited", aliases=("truediv", "true_divide", "divide")),
    "maximum": Operator("torch.maximum", "couples", inputs=(2, 2), sign="inherited"),
    "minimum": Operator("torch.minimum", "couples", inputs=(2, 2), sign="inherited"),
    # Over positions, channel by channel.
    "max_pool2d": Operator(
        f"{_FUNCTIONAL}.max_pool2d",
        "spatial",
        {"kernel_size": Argument(_PAIR_KERNEL), **_WINDOW, "ceil_mode": Argument(bool, False)},
        sign="inherited",
        integer=True,
        shares_qparams=True,
    ),
    "avg_pool2d": Operator(
        f"{_FUNCTIONAL}.avg_pool2d",
        "spatial",
        {
            "kernel_size": Argument(_PAIR_KERNEL),
            "stride": Argument(tuple[Stride, Stride]),
            "padding": Argument(tuple[Padding, Padding], (0, 0)),
            "ceil_mode": Argument(bool, False),
            "count_include_pad": Argument(bool, True),
        },
        sign="inherited",
        integer=True,
    ),
    "adaptive_avg_pool2d": Operator(
        f"{_FUNCTIONAL}.adaptive_avg_pool2d",
        "spatial",
        {"output_size": Argument(tuple[Size, Size])},
        sign="inherited",
        integer=True,
    ),
    "adaptive_max_pool2d": Operator(
        f"{_FUNCTIONAL}.adaptive_max_pool2d",
        "spatial",
        {"output_size": Argument(tuple[Size, Size])},
        sign="inherited",
    ),
    "interpolate": Operator(
        f"{_FUNCTIONAL}.interpolate",
        "spatial",
        {
            "size": Argument(tuple[Size, Size]),
            "mode": Argument(
                Literal["nearest", "nearest-exact", "bilinear", "bicubic", "area"], "nearest"
            ),
            "align_corners": Argument(bool | None, None),
        },
        sign="inherited",
    ),
    "pad": Operator(
        f"{_FUNCTIONAL}.pad",
        "spatial",
        {
            "pad": Argument(PadWidths),
            "mode": Argument(Literal["constant", "reflect", "replicate", "circular"], "constant"),
            "value": Argument(Real, 0.0),
        },
        sign="inherited",
        integer=True,
    ),
    "mean": Operator("torch.mean", "spatial", _REDUCTION, sign="inherited", integer=True),
    "sum": Operator("torch.sum", "spatial", _REDUCTION, sign="inherited"),
    "amax": Operator("torch.amax", "spatial", _REDUCTION, sign="inherited"),
    # Rearrangements of values, and of channels with them.
    "identity": _rearrange(f"{_KERNELS}.identity", identity_in_eval=True),
    "flatten": _rearrange(
        "torch.flatten", {"start_dim": Argument(Axis, 0), "end_dim": Argument(Axis, -1)}
    ),
    "reshape": _rearrange(
        f"{_KERNELS}.reshape", {"shape": Argument(Shape)}, axis_arguments="shape"
    ),
    "expand": _rearrange(f"{_KERNELS}.expand", {"shape": Argument(Shape)}, axis_arguments="shape"),
    "permute": _rearrange("torch.permute", {"dims": Argument(Axes)}),
    "transpose": _rearrange("torch.transpose", {"dim0": Argument(Axis), "dim1": Argument(Axis)}),
    "squeeze": _rearrange("torch.squeeze", {"dim": Argument(Axes)}),
    "unsqueeze": _rearrange("torch.unsqueeze", _AXIS),
    "cat": _rearrange(
        f"{_KERNELS}.cat", _AXIS, inputs=(1, MAX_INPUTS), aliases=("concat", "concatenate")
    ),
    "stack": _rearrange(f"{_KERNELS}.stack", _AXIS, inputs=(1, MAX_INPUTS)),
    "chunk": _rearrange(
        "torch.chunk",
        {"chunks": Argument(PartCount), **_AXIS},
        multi_output=True,
        axis_arguments="part count",
    ),
    "split": _rearrange(
        f"{_KERNELS}.split",
        {"sizes": Argument(PartSizes), **_AXIS},
        multi_output=True,
        axis_arguments="part sizes",
    ),
    "unbind": _rearrange("torch.unbind", _AXIS, multi_output=True, axis_arguments="indices"),
    "getitem": _rearrange(f"{_KERNELS}.getitem", {"index": Argument(Index)}),
    "select": _rearrange(
        "torch.select", {**_AXIS, "index": Argument(Bound)}, axis_arguments="indices"
    ),
    "slice": _rearrange(
        f"{_KERNELS}.slice_axis",
        {
            **_AXIS,
            "start": Argument(Bound, 0),
            "end": Argument(Bound | None, None),
            "step": Argument(Stride, 1),
        },
        axis_arguments="part sizes",
    ),
    "channel_shuffle": _rearrange(
        f"{_KERNELS}.channel_shuffle", {"groups": Argument(Groups)}, axis_arguments="part count"
    ),
    "pixel_shuffle": _rearrange(
        f"{_FUNCTIONAL}.pixel_shuffle", {"upscale_factor": Argument(Stride)}
    ),
    "pixel_unshuffle": _rearrange(
        f"{_FUNCTIONAL}.pixel_unshuffle", {"downscale_factor": Argument(Stride)}
    ),
    "flip": _rearrange("torch.flip", {"dims": Argument(Axes)}),
    "roll": _rearrange(
        "torch.roll",
        {
            "shifts": Argument(Annotated[tuple[Bound, ...], Meta(max_length=8)]),
            "dims": Argument(Axes),
        },
        axis_arguments="indices",
    ),
    # Supported, but channels cannot be removed through them.
    "softmax": Operator(f"{_FUNCTIONAL}.softmax", "fixes", _AXIS, sign="non-negative"),
    "log_softmax": Operator(f"{_FUNCTIONAL}.log_softmax", "fixes", _AXIS),
    "matmul": Operator("torch.matmul", "fixes", inputs=(2, 2), aliases=("bmm", "mm")),
    "scaled_dot_product_attention": Operator(
        f"{_FUNCTIONAL}.scaled_dot_product_attention",
        "fixes",
        {"scale": Argument(Real | None, None)},
        inputs=(3, 4),
    ),
    "normalize": Operator(
        f"{_FUNCTIONAL}.normalize",
        "fixes",
        {"p": Argument(Real, 2.0), "dim": Argument(Axis, 1), "eps": Argument(Epsilon, 1e-12)},
    ),
    "norm": Operator(
        "torch.norm", "fixes", {"p": Argument(Real, 2.0), **_REDUCTION}, sign="non-negative"
    ),
}
