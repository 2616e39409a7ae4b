"""Where a network looks for a class: Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fertool.errors import FertoolError
from fertool.graph.network import Network
from fertool.inference import eval_mode


def grad_cam(network: Network, inputs: Tensor, classes: Tensor) -> Tensor:
    """Return for each image how much each position of the last feature map speaks for its class.

    `inputs` [N, C, S, S] are normalized, `classes` int64 [N]; the result [N, H, W] has the size of
    the feature map, and 1 as the largest value of an image for which any position speaks. With the
    feature map A and the logit y of the class (equations 1 and 2):

        a_k = mean over positions of dy / dA_k,    map = ReLU(sum over k of a_k A_k)

    Raises FertoolError for a network without such a map.
    """
    name = last_feature_map(network)
    kept: dict[str, Tensor] = {}
    listener = network.listeners.get(name)
    network.listeners[name] = lambda result: kept.update(map=result)
    try:
        with eval_mode(network), torch.enable_grad():
            # The images take the gradient where all parameters are frozen.
            logits = network(inputs.detach().requires_grad_())
            # Images do not mix in eval mode: the gradient of the sum has that of each of them.
            score = logits.gather(1, classes[:, None]).sum()
            (gradient,) = torch.autograd.grad(score, kept["map"])
    finally:
        del network.listeners[name]
        if listener is not None:
            network.listeners[name] = listener

    weights = gradient.mean((2, 3), keepdim=True)
    maps = F.relu((weights * kept["map"]).sum(1)).detach()
    peaks = maps.amax((1, 2), keepdim=True)
    # A class for which no position speaks has a map of zeros.
    return torch.where(peaks > 0, maps / peaks, 0)


def last_feature_map(network: Network) -> str:
    """Return the name of the last result that still has positions: what the pooling reads.

    Raises FertoolError for a network without one.
    """
    for node in reversed(network.graph.nodes):
        shape = network.shapes.get(node.name, ())
        if len(shape) == 3 and shape[1] * shape[2] > 1:
            return node.name
    raise FertoolError(
        "the network has no feature map with positions, which Grad-CAM needs",
        "leave ``grad_cam`` out",
    )
