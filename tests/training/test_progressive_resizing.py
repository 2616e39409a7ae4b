import pytest
import torch
from torch import nn

from fertool.training import TrainConfig, fit
from fertool.training.progressive_resizing import image_size_at


def sides(start, epochs, full=48):
    config = TrainConfig(epochs=epochs, start_size=start)
    return [image_size_at(config, epoch, full) for epoch in range(1, epochs + 1)]


@pytest.mark.parametrize("start", [0, 48, 64])
def test_images_are_whole_where_nothing_smaller_is_asked_for(start):
    assert set(sides(start, 9)) == {48}


@pytest.mark.parametrize("epochs", [2, 3, 10, 40])
def test_images_grow_from_the_asked_side_and_end_whole(epochs):
    grown = sides(32, epochs)
    assert grown[0] == 32
    assert grown == sorted(grown)
    assert grown[-1] == 48
    assert all(side % 4 == 0 for side in grown)


def test_a_single_epoch_has_images_of_full_size():
    assert sides(32, 1) == [48]


def test_the_last_three_tenths_see_whole_images():
    assert sides(32, 20)[14:] == [48] * 6
    assert max(sides(32, 20)[:14]) < 48


class Watching(nn.Module):
    """A network that remembers the sides of its inputs."""

    def __init__(self, classes):
        super().__init__()
        self.conv, self.head, self.seen = nn.Conv2d(1, 8, 3), nn.Linear(8, classes), []

    def forward(self, inputs):
        self.seen.append((self.training, *inputs.shape[2:]))
        return self.head(self.conv(inputs).mean((2, 3)))


def test_training_images_grow_and_validation_images_have_full_size(faces, quick, shape):
    torch.manual_seed(0)
    data = faces(32)
    module = Watching(len(data.classes))
    fit(module, data, data, shape, quick(epochs=4, batch_size=32, start_size=8))
    trained = [side for training, side, _ in module.seen if training]
    assert trained[0] == 8
    assert trained == sorted(trained)
    assert trained[-1] == shape.size
    assert all(height == width for _, height, width in module.seen)
    assert {side for training, side, _ in module.seen if not training} == {shape.size}
