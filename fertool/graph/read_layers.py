"""The readers of calls that hold tensors: convolutions, linear layers, norms."""

from __future__ import annotations

from typing import Any

import torch

from fertool.graph.calls import Call, UnknownCallError, per_axis, reads


@reads("conv2d", "conv1d", "convolution", "_conv_forward")
def _convolution(call: Call) -> str:
    given = call.bound("input", "weight", bias=None, stride=1, padding=0, dilation=1, groups=1)
    weight, axes = given["weight"], given["weight"].dim() - 2
    args = {
        "out_channels": weight.shape[0],
        "kernel_size": tuple(weight.shape[2:]),
        "stride": per_axis(given["stride"], axes),
        "dilation": per_axis(given["dilation"], axes),
        "groups": given["groups"],
        "bias": given["bias"] is not None,
    }
    before, padding = _padding(given["padding"], args["kernel_size"], args["dilation"])
    x = given["input"]
    if before:
        return _padded_convolution(call, given, args, before)
    args["padding"] = padding or per_axis(given["padding"], axes)
    if axes == 1:
        args = {key: value[0] if isinstance(value, tuple) else value for key, value in args.items()}
    return call.add_layer(f"conv{axes}d", x, {"weight": weight, "bias": given["bias"]}, **args)


def _padded_convolution(
    call: Call, given: dict[str, Any], args: dict[str, Any], before: tuple[int, ...]
) -> str:
    """An even kernel with padding "same": more is added behind than before, which takes a node of its own."""
    padded = call.recorder.add("pad", [call.recorder.source(given["input"])], {"pad": before})
    name = call.recorder.tensor_name(given["weight"]) or ""
    layer = call.recorder.add(
        "conv2d", [padded], {**args, "padding": (0, 0)}, name.rpartition(".")[0]
    )
    call.recorder.tensors[f"{layer}.weight"] = given["weight"]
    if given["bias"] is not None:
        call.recorder.tensors[f"{layer}.bias"] = given["bias"]
    return layer


def _padding(
    padding: Any, kernel: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Return what is padded before the layer, and the layer's own padding where it is said in words."""
    if padding == "valid":
        return (), (0,) * len(kernel)
    if padding != "same":
        return (), None
    total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    if all(t % 2 == 0 for t in total):
        return (), tuple(t // 2 for t in total)
    return tuple(side for t in reversed(total) for side in (t // 2, t - t // 2)), None


@reads("conv_transpose2d")
def _transposed(call: Call) -> str:
    given = call.bound(
        "input", "weight", bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1
    )
    weight = given["weight"]
    return call.add_layer(
        "conv_transpose2d",
        given["input"],
        {"weight": weight, "bias": given["bias"]},
        out_channels=weight.shape[1] * given["groups"],
        kernel_size=tuple(weight.shape[2:]),
        groups=given["groups"],
        bias=given["bias"] is not None,
        **{
            key: per_axis(given[key], 2)
            for key in ("stride", "padding", "output_padding", "dilation")
        },
    )


@reads("linear")
def _linear(call: Call) -> str:
    given = call.bound("input", "weight", bias=None)
    weight, bias = given["weight"], given["bias"]
    tensors = {"weight": weight, "bias": bias}
    return call.add_layer(
        "linear", given["input"], tensors, out_features=weight.shape[0], bias=bias is not None
    )


@reads("addmm")
def _matrix_product(call: Call) -> str:
    given = call.bound("bias", "input", "weight")
    weight = given["weight"].T
    return call.add_layer(
        "linear",
        given["input"],
        {"weight": weight, "bias": given["bias"]},
        out_features=weight.shape[0],
        bias=True,
    )


@reads("batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
def _batch_norm(call: Call) -> str:
    of_module = not (len(call.args) > 6 or call.name.startswith("_"))
    statistics, affine = ("running_mean", "running_var"), ("weight", "bias")
    order = (
        (*statistics, *affine)
        if of_module or not isinstance(call.args[5], bool)
        else (*affine, *statistics)
    )
    given = call.bound("input", *order, training=False, momentum=0.1, eps=1e-5)
    if given["running_mean"] is None:
        raise UnknownCallError(
            "batch norm without running statistics, which computes with those of the batch"
        )
    tensors = {key: given[key] for key in ("weight", "bias", *statistics)}
    counter = torch.zeros((), dtype=torch.int64)
    return call.add_layer(
        "batch_norm",
        given["input"],
        {**tensors, "num_batches_tracked": counter},
        eps=given["eps"],
        momentum=given["momentum"],
        affine=given["weight"] is not None,
    )


@reads("layer_norm")
def _layer_norm(call: Call) -> str:
    given = call.bound("input", "normalized_shape", weight=None, bias=None, eps=1e-5)
    return call.add_layer(
        "layer_norm",
        given["input"],
        {"weight": given["weight"], "bias": given["bias"]},
        axes=len(given["normalized_shape"]),
        eps=given["eps"],
        affine=given["weight"] is not None,
        bias=given["bias"] is not None,
    )


@reads("group_norm")
def _group_norm(call: Call) -> str:
    given = call.bound("input", "num_groups", weight=None, bias=None, eps=1e-5)
    weight, bias = given["weight"], given["bias"]
    affine = weight is not None
    if affine and bias is None:
        # PyTorch's module has both or none.
        bias = torch.zeros_like(weight)
    tensors = {"weight": weight, "bias": bias}
    return call.add_layer(
        "group_norm",
        given["input"],
        tensors,
        num_groups=given["num_groups"],
        eps=given["eps"],
        affine=affine,
    )


@reads("prelu")
def _prelu(call: Call) -> str:
    given = call.bound("input", "weight")
    return call.add_layer(
        "prelu", given["input"], {"weight": given["weight"]}, shared=given["weight"].numel() == 1
    )
