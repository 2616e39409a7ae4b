"""Converters of PyTorch calls with tensors: convolutions, linear layers, norms."""

from __future__ import annotations

from typing import Any

import torch

from fertool.graph.torch_calls import TorchCall, UnsupportedCallError, converts, int_per_axis

_AFFINE = ("weight", "bias")
_STATISTICS = ("running_mean", "running_var")


@converts("conv2d", "conv1d", "convolution", "_conv_forward")
def _convert_conv(call: TorchCall) -> str:
    given = call.bind("input", "weight", bias=None, stride=1, padding=0, dilation=1, groups=1)
    x: Any = given["input"]
    weight, bias = given["weight"], given["bias"]
    axes = weight.dim() - 2
    window: dict[str, Any] = {
        "kernel_size": tuple(weight.shape[2:]),
        "stride": int_per_axis(given["stride"], axes),
        "dilation": int_per_axis(given["dilation"], axes),
    }
    padding = given["padding"]
    if isinstance(padding, str):
        before, behind = _pads_of_mode(padding, window["kernel_size"], window["dilation"])
        if before != behind:
            x = _add_padding(call, x, before, behind)
            before = (0,) * axes
        window["padding"] = before
    else:
        window["padding"] = int_per_axis(padding, axes)

    if axes == 1:
        window = {key: value[0] for key, value in window.items()}
    return call.add_layer(
        f"conv{axes}d",
        x,
        {"weight": weight, "bias": bias},
        out_channels=weight.shape[0],
        groups=given["groups"],
        bias=bias is not None,
        **window,
    )


def _pads_of_mode(
    mode: str, kernel: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the padding before and behind the axes for the modes "valid" and "same"."""
    if mode == "valid":
        nothing = (0,) * len(kernel)
        return nothing, nothing

    before: list[int] = []
    behind: list[int] = []
    for k, d in zip(kernel, dilation, strict=True):
        total = d * (k - 1)
        # Of an odd number PyTorch puts one more behind.
        before.append(total // 2)
        behind.append(total - total // 2)
    return tuple(before), tuple(behind)


def _add_padding(call: TorchCall, x: Any, before: tuple[int, ...], behind: tuple[int, ...]) -> str:
    """Append the padding of an even kernel as a node of its own; returns its name."""
    widths: list[int] = []
    # PyTorch's `pad` names the last axis first.
    for axis in reversed(range(len(before))):
        widths += [before[axis], behind[axis]]
    return call.add("pad", x, pad=tuple(widths))


@converts("conv_transpose2d")
def _convert_conv_transpose(call: TorchCall) -> str:
    given = call.bind(
        "input", "weight", bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1
    )
    weight, bias = given["weight"], given["bias"]
    return call.add_layer(
        "conv_transpose2d",
        given["input"],
        {"weight": weight, "bias": bias},
        out_channels=weight.shape[1] * given["groups"],
        kernel_size=tuple(weight.shape[2:]),
        groups=given["groups"],
        bias=bias is not None,
        stride=int_per_axis(given["stride"], 2),
        padding=int_per_axis(given["padding"], 2),
        output_padding=int_per_axis(given["output_padding"], 2),
        dilation=int_per_axis(given["dilation"], 2),
    )


@converts("linear")
def _convert_linear(call: TorchCall) -> str:
    given = call.bind("input", "weight", bias=None)
    weight, bias = given["weight"], given["bias"]
    return call.add_layer(
        "linear",
        given["input"],
        {"weight": weight, "bias": bias},
        out_features=weight.shape[0],
        bias=bias is not None,
    )


@converts("addmm")
def _convert_addmm(call: TorchCall) -> str:
    # Programs write a linear layer as `bias + input @ weight` with its weight transposed.
    given = call.bind("bias", "input", "weight")
    weight = given["weight"].T
    return call.add_layer(
        "linear",
        given["input"],
        {"weight": weight, "bias": given["bias"]},
        out_features=weight.shape[0],
        bias=True,
    )


@converts("batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
def _convert_batch_norm(call: TorchCall) -> str:
    # `F.batch_norm` has the statistics first and most arguments by name; ATen's operators have the
    # weight and the bias first and all arguments in order, the sixth of which is a flag.
    is_aten = len(call.args) > 6 or call.name.startswith("_")
    order = (*_STATISTICS, *_AFFINE)
    if is_aten and isinstance(call.args[5], bool):
        order = (*_AFFINE, *_STATISTICS)

    given = call.bind("input", *order, training=False, momentum=0.1, eps=1e-5)
    if given["running_mean"] is None:
        raise UnsupportedCallError(
            "batch norm without running statistics, which computes with those of the batch"
        )
    tensors = {
        "weight": given["weight"],
        "bias": given["bias"],
        "running_mean": given["running_mean"],
        "running_var": given["running_var"],
        # A program passes no counter.
        "num_batches_tracked": torch.zeros((), dtype=torch.int64),
    }
    return call.add_layer(
        "batch_norm",
        given["input"],
        tensors,
        eps=given["eps"],
        momentum=given["momentum"],
        affine=given["weight"] is not None,
    )


@converts("layer_norm")
def _convert_layer_norm(call: TorchCall) -> str:
    given = call.bind("input", "normalized_shape", weight=None, bias=None, eps=1e-5)
    weight, bias = given["weight"], given["bias"]
    return call.add_layer(
        "layer_norm",
        given["input"],
        {"weight": weight, "bias": bias},
        axes=len(given["normalized_shape"]),
        eps=given["eps"],
        affine=weight is not None,
        bias=bias is not None,
    )


@converts("group_norm")
def _convert_group_norm(call: TorchCall) -> str:
    given = call.bind("input", "num_groups", weight=None, bias=None, eps=1e-5)
    weight, bias = given["weight"], given["bias"]
    if weight is not None and bias is None:
        # PyTorch's module has both tensors or none.
        bias = torch.zeros_like(weight)
    return call.add_layer(
        "group_norm",
        given["input"],
        {"weight": weight, "bias": bias},
        num_groups=given["num_groups"],
        eps=given["eps"],
        affine=weight is not None,
    )


@converts("prelu")
def _convert_prelu(call: TorchCall) -> str:
    given = call.bind("input", "weight")
    weight = given["weight"]
    return call.add_layer("prelu", given["input"], {"weight": weight}, shared=weight.numel() == 1)
