"""Passes for traces of the Hessian of KL(float model || model), without second derivatives.

Let p be the softmax of the logits z, J the derivative of z by the weights of a channel or by its
activation, and S the K x K matrix of columns `sqrt(p_k) (e_k - p)`, so that
`S S^T = diag(p) - p p^T`, the Hessian of KL by z. As KL has its minimum there, its Hessian is
exactly `J^T S S^T J`, whatever the activation functions (Martens 2020, "New insights and
perspectives on the natural gradient method", sections 8 and 9), and its trace

    mean over images of  sum_k || J^T S_k ||^2

needs no labels and no second derivatives, and is never negative. A probe replaces the sum over k by
a random combination `u = S e` of independent signs e, as E[u u^T] = S S^T. Squares are taken image
by image, so one backward pass serves a batch, and the products of two images, most of the noise of
a plain probe, do not arise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from fertool.hessian.grad_norms import PerSampleGradNorms
from fertool.hessian.layer_runs import (
    Pass,
    WeightedLayer,
    channel_slices,
    count_channels,
    run_layers,
)
from fertool.losses import output_factor, output_probes


def exact_directions(factor: Tensor) -> Tensor:
    """Return the columns of S, [K, N, K]; `factor` is S, [N, K, K]."""
    return factor.permute(2, 0, 1)


def probe_directions(
    factor: Tensor, probes: int, generator: Callable[[int], torch.Generator]
) -> Tensor:
    """Return `u = S e` of each probe and image, [probes, N, K]; `factor` is S, [N, K, K].

    `generator` returns the generator of each image, by its position in the batch.
    """
    # One generator an image, so that the draws do not depend on the batch size.
    directions = []
    for index, image in enumerate(factor):
        directions.append(output_probes(image[None], probes, generator(index)))
    return torch.cat(directions, dim=1)


def gradient_passes(
    module: nn.Module,
    layers: Mapping[str, WeightedLayer],
    images: Tensor,
    directions: Callable[[Tensor], Tensor],
) -> list[Pass]:
    """Return a backward pass for each of the directions [M, N, K]; rows of a pass are the images.

    `directions` makes them from S.
    """
    # Images that require a gradient put every layer's output into the graph, frozen weights or not;
    # their own gradient is never computed.
    logits, runs = run_layers(module, layers, images.requires_grad_())
    norms = {}
    edges = []
    for name, run in runs.items():
        norms[name] = PerSampleGradNorms(layers[name], run.x)
        edges.append(run.edge)
    # In float64 on the CPU: not every device has it.
    factor = output_factor(logits.detach().cpu())
    passes: list[Pass] = []
    for direction in directions(factor):
        weighted = direction.to(logits)
        passes.append(partial(_squared_gradients, layers, norms, edges, logits, weighted))
    return passes


def _squared_gradients(
    layers: Mapping[str, WeightedLayer],
    norms: Mapping[str, PerSampleGradNorms],
    edges: list[GradientEdge],
    logits: Tensor,
    direction: Tensor,
) -> Tensor:
    """Return the squared norms of each image's gradient of `direction . logits`.

    [2, N, channels of all layers].
    """
    # Only gradients at layer outputs are asked for, so the pass computes none of the weights.
    gradients = torch.autograd.grad(logits, edges, direction, retain_graph=True, allow_unused=True)
    slices = channel_slices(layers)
    result = logits.new_zeros(2, len(logits), count_channels(layers))
    for (name, norm), gradient in zip(norms.items(), gradients, strict=True):
        # None: the layer's output does not reach the logits.
        if gradient is not None:
            result[:, :, slices[name]] = norm(gradient)
    return result
