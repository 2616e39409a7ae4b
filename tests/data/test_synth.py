import numpy as np
import pytest
import torch
from torch import nn

from fertool.data import DataOptions, open_data
from fertool.data.fer2013_csv import read_rows
from fertool.data.pixels import to_input
from fertool.data.synth import draw_faces, write_faces
from fertool.spec import InputSpec


def test_the_seed_alone_decides_the_pixels():
    images, labels = draw_faces(70, 3)
    again, _ = draw_faces(70, 3)
    other, _ = draw_faces(70, 4)
    assert images.shape == (70, 1, 48, 48)
    assert images.dtype == np.uint8
    assert np.bincount(labels).tolist() == [10] * 7
    assert np.array_equal(images, again)
    assert not np.array_equal(images, other)


def test_faces_differ_and_are_neither_empty_nor_blown_out():
    images = draw_faces(140, 0)[0].reshape(140, -1).astype(float)
    assert len(np.unique(images, axis=0)) == 140
    assert images.std(axis=1).min() > 8
    assert ((images == 0) | (images == 255)).mean(axis=1).max() < 0.75


def test_splits_are_80_10_10_and_balanced():
    source = open_data("synth:700", DataOptions(size=16))
    parts = [source.split(name) for name in ("train", "val", "test")]
    assert [part.class_counts().tolist() for part in parts] == [[80] * 7, [10] * 7, [10] * 7]
    assert source.distinct_from("test", "train").all()
    assert open_data("synth:700", DataOptions(size=16)).digest == source.digest
    assert open_data("synth:700", DataOptions(size=16, seed=1)).digest != source.digest


def test_the_written_csv_holds_the_same_faces(tmp_path):
    write_faces(tmp_path / "faces.csv", 70, seed=2)
    found = read_rows(tmp_path / "faces.csv")
    images, labels = draw_faces(70, 2)
    assert np.array_equal(found["images"], images)
    assert np.array_equal(found["labels"], labels)
    assert np.bincount(found["split_index"]).tolist() == [56, 7, 7]


@pytest.mark.usefixtures("one_thread")
def test_expressions_can_be_learnt():
    source = open_data("synth:1400", DataOptions(size=24))
    train, test = source.split("train"), source.split("test")
    torch.manual_seed(0)
    stages = [(1, 8), (8, 16), (16, 32)]
    blocks = [
        nn.Sequential(nn.Conv2d(i, o, 3, 1, 1), nn.BatchNorm2d(o), nn.ReLU(), nn.MaxPool2d(2))
        for i, o in stages
    ]
    net = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(32 * 9, 7))
    optimizer = torch.optim.AdamW(net.parameters(), 5e-3, weight_decay=0.05)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        for images, labels in train.batches(32, generator=generator):
            optimizer.zero_grad()
            nn.functional.cross_entropy(
                net(to_input(images, InputSpec(size=24))), labels
            ).backward()
            optimizer.step()
    with torch.no_grad():
        accuracy = (
            (net.eval()(to_input(test.images, InputSpec(size=24))).argmax(dim=1) == test.labels)
            .float()
            .mean()
        )
    assert accuracy > 0.6
