from dataclasses import replace

import pytest
import torch

from fertool.data.dataset import FaceDataset


@pytest.fixture
def faces():
    labels = torch.tensor([0] * 40 + [1] * 7 + [2] * 3)
    images = torch.arange(50, dtype=torch.uint8).view(50, 1, 1, 1).expand(50, 1, 4, 4).contiguous()
    return FaceDataset(images, labels, ("angry", "fear", "sad"), "train", "d")


@pytest.mark.parametrize(("n", "counts"), [(6, [2, 2, 2]), (20, [10, 7, 3]), (99, [40, 7, 3])])
def test_a_balanced_subset_is_as_even_as_the_counts_allow(faces, n, counts):
    assert faces.balanced_subset(n, seed=1).class_counts().tolist() == counts


def test_a_balanced_subset_depends_on_the_seed_alone(faces):
    one, same, other = (faces.balanced_subset(20, seed).images for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert len(one.flatten(1).unique(dim=0)) == 20


def test_a_prefix_of_a_balanced_subset_is_balanced(faces):
    assert faces.balanced_subset(9, seed=3).labels[:3].sort().values.tolist() == [0, 1, 2]


def test_subset_keeps_images_labels_and_soft_labels_together(faces):
    soft = torch.rand(50, 3)
    part = FaceDataset(faces.images, faces.labels, faces.classes, "val", "d", soft).subset(
        torch.tensor([45, 3])
    )
    assert part.images[:, 0, 0, 0].tolist() == [45, 3]
    assert part.labels.tolist() == [1, 0]
    assert torch.equal(part.targets(), soft[[45, 3]])
    assert (part.split, part.digest) == ("val", "d")


def test_targets_without_soft_labels_are_one_hot(faces):
    targets = faces.targets()
    assert targets.dtype == torch.float32
    assert targets.sum(dim=1).unique().tolist() == [1.0]
    assert torch.equal(targets.argmax(dim=1), faces.labels)


@pytest.mark.parametrize("generator", [None, torch.Generator().manual_seed(0)])
def test_batches_hold_every_image_once_with_its_label(faces, generator):
    batches = list(faces.batches(16, generator=generator))
    assert [len(labels) for _, labels in batches] == [16, 16, 16, 2]
    seen = torch.cat([images[:, 0, 0, 0] for images, _ in batches]).long()
    assert torch.equal(seen, torch.arange(50)) == (generator is None)
    assert torch.equal(seen.sort().values, torch.arange(50))
    assert torch.equal(torch.cat([labels for _, labels in batches]), faces.labels[seen])


def test_the_digest_of_the_images_depends_on_pixels_shape_and_order_alone(faces, monkeypatch):
    first = faces.images_digest()
    monkeypatch.setattr("fertool.data.storage.PIECE", 100)
    assert replace(faces, labels=faces.labels.flip(0), split="val").images_digest() == first
    flipped, reshaped = faces.images.flip(0), faces.images.view(50, 1, 2, 8)
    darker = faces.images.clone()
    darker[20, 0, 1, 2] += 1
    others = {
        replace(faces, images=images).images_digest() for images in (flipped, reshaped, darker)
    }
    assert len({first, *others}) == 4
