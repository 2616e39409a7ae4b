"""Batch normalization over the batches of several processes; `training/test_data_parallel.py` has
whole runs.
"""

import pytest
import torch
from graphs import network_of
from torch import nn

from fertool.errors import FertoolError
from fertool.graph.batch_norm import sync_batch_norm


def normalized():
    layers = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU())
    return network_of(layers, (1, 8, 8)).train()


def test_a_batch_of_two_equal_shards_has_the_statistics_of_one():
    torch.manual_seed(0)
    images = torch.randn(6, 1, 8, 8)
    alone, shared = normalized(), normalized()
    shared.load_state_dict(alone.state_dict())
    # Both processes have these images, so that what they add up to is twice what this one has.
    with sync_batch_norm(shared, lambda tensor: 2 * tensor):
        output = shared(images)
    expected = alone(torch.cat([images, images]))
    torch.testing.assert_close(output, expected[:6])
    for got, wanted in zip(shared.buffers(), alone.buffers(), strict=True):
        torch.testing.assert_close(got, wanted)


def test_outside_of_the_block_a_network_has_statistics_of_its_own():
    torch.manual_seed(0)
    images = torch.randn(6, 1, 8, 8)
    network, reference = normalized(), normalized()
    reference.load_state_dict(network.state_dict())
    with sync_batch_norm(network, lambda tensor: 2 * tensor):
        pass
    assert torch.equal(network(images), reference(images))


def test_a_layer_that_cannot_share_its_statistics_is_refused():
    with (
        pytest.raises(FertoolError, match="layer 0: BatchNorm2d of PyTorch"),
        sync_batch_norm(nn.Sequential(nn.BatchNorm2d(3)), lambda tensor: tensor),
    ):
        pass
