"""Networks for timing: random weights, and batch norms that have the statistics of faces.

Speed depends on shapes and on the ranges of maps alone.
"""

from __future__ import annotations

import torch
from torch import nn

from fertool.data import DataOptions, FaceDataset, open_data
from fertool.data.pixels import to_input
from fertool.models import create
from fertool.spec import InputSpec, Spec

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def drawn_faces(count: int, size: int) -> FaceDataset:
    """Return so many drawn faces, of all classes."""
    options = DataOptions(size=size, channels=1, classes=CLASSES)
    faces = open_data(f"synth:{4 * count}", options).split("train")
    return faces.balanced_subset(count, 0)


def settled(arch: str, faces: FaceDataset, **arch_args: str) -> tuple[Spec, nn.Module]:
    """Return a network of the zoo with random weights whose batch norms have seen the faces."""
    torch.manual_seed(0)
    spec, module = create(arch, arch_args, InputSpec(size=faces.images.shape[-1]), CLASSES)
    calibrate_norms_(module, spec, faces)
    return spec, module


@torch.no_grad()
def calibrate_norms_(network: nn.Module, spec: Spec, faces: FaceDataset) -> None:
    """Set the statistics of batch norm to those of the images; leaves the network in eval mode."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            # The mean over all batches, not one that forgets the first.
            layer.momentum = None
    network.train()
    for batch in torch.split(faces.images, 64):
        network(to_input(batch, spec.input))
    network.eval()
