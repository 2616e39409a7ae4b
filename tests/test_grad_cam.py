import pytest
import torch
from graphs import network_of
from torch import nn
from torch.nn import functional as F

from fertool.errors import FertoolError
from fertool.grad_cam import grad_cam, last_feature_map


def test_maps_are_those_of_the_formula_by_hand():
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    # Two layers, so that the weights of the channels differ from image to image.
    head = nn.Sequential(nn.Flatten(), nn.Linear(4 * 16, 6), nn.ReLU(), nn.Linear(6, 3))
    network = network_of(nn.Sequential(features, head), (1, 8, 8))
    images, classes = torch.randn(5, 1, 8, 8), torch.tensor([0, 1, 2, 1, 0])
    maps = grad_cam(network, images, classes)
    assert maps.shape == (5, 4, 4)
    for image, k, found in zip(images, classes, maps, strict=True):
        features_of_one = features(image[None]).detach().requires_grad_()
        head(features_of_one)[0, k].backward()
        # Equation 1, then equation 2, of Selvaraju et al. 2017.
        expected = torch.zeros(4, 4)
        for channel in range(4):
            alpha = features_of_one.grad[0, channel].sum() / 16
            expected += alpha * features_of_one.detach()[0, channel]
        expected = F.relu(expected)
        if expected.max() > 0:
            expected /= expected.max()
        assert torch.allclose(found, expected, atol=1e-6)


def test_behind_a_mean_over_the_image_it_is_the_class_activation_map():
    # Zhou et al. 2016: there the weights of the channels are those of the linear layer.
    torch.manual_seed(1)
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    network = network_of(module, (1, 8, 8))
    image = torch.randn(1, 1, 8, 8)
    activations = F.relu(module[0](image))[0]
    for k in range(3):
        expected = F.relu((module[4].weight[k][:, None, None] * activations).sum(0)).detach()
        (found,) = grad_cam(network, image, torch.tensor([k]))
        assert torch.allclose(found * expected.max(), expected, atol=1e-6)


def test_the_network_stays_as_it_was():
    network = network_of(
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 2)), (1, 8, 8)
    )
    network.train()
    heard = []
    name = last_feature_map(network)
    network.listeners[name] = heard.append
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    grad_cam(network, torch.randn(2, 1, 8, 8), torch.tensor([0, 1]))
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    network(torch.randn(1, 1, 8, 8))
    assert len(heard) == 1


def test_a_class_for_which_nothing_speaks_has_an_empty_map():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2))
    nn.init.constant_(module[3].weight, -1.0)
    maps = grad_cam(network_of(module, (1, 8, 8)), torch.randn(2, 1, 8, 8), torch.tensor([0, 1]))
    assert not maps.any()


def test_a_network_without_positions_is_refused():
    network = network_of(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), (1, 8, 8))
    with pytest.raises(FertoolError, match="no feature map"):
        grad_cam(network, torch.randn(1, 1, 8, 8), torch.tensor([0]))
