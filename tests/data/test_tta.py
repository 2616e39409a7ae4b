import torch

from fertool.data.tta import tta_views


def test_no_tta_is_the_image_itself():
    images = torch.randint(256, (2, 1, 48, 48), dtype=torch.uint8)
    assert [torch.equal(view, images) for view in tta_views(images, "none")] == [True]


def test_flip_adds_the_mirror_image():
    images = torch.randint(256, (2, 1, 48, 48), dtype=torch.uint8)
    plain, mirrored = tta_views(images, "flip")
    assert torch.equal(plain, images)
    assert torch.equal(mirrored[..., 0], images[..., -1])


def test_ten_crop_sees_each_corner_and_keeps_the_size():
    images = torch.zeros(1, 1, 48, 48, dtype=torch.uint8)
    images[..., 0, 0] = 255
    found = list(tta_views(images, "ten-crop"))
    assert [tuple(view.shape) for view in found] == [(1, 1, 48, 48)] * 10
    # Only the top left crop and its mirror image contain the first pixel.
    assert sum(bool(view.max() > 100) for view in found) == 2
