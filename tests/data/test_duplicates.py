import numpy as np

from fertool.data.duplicates import group_indices, hold_out, image_hashes
from fertool.data.reader import RawSplit


def random_faces(counts, seed=0):
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.random.default_rng(seed).integers(0, 256, (len(labels), 1, 4, 4), dtype=np.uint8)
    return RawSplit(images, labels, ("angry", "disgust", "fear")[: len(counts)])


def test_copies_and_only_copies_share_a_number():
    images = random_faces([5]).images
    images[3] = images[1]
    images[4] = images[1]
    images[4, 0, 3, 3] ^= 1
    assert group_indices(image_hashes(images)).tolist() == [0, 1, 2, 1, 3]


def held_out_of(faces):
    return hold_out(faces, {"val": 0.1}, seed=0)["val"]


def test_a_tenth_of_each_class_is_held_out_and_at_least_one():
    faces = random_faces([200, 30, 2])
    assert np.bincount(faces.labels[held_out_of(faces)]).tolist() == [20, 3, 1]


def test_copies_stay_on_one_side():
    faces = random_faces([300])
    faces.images[150:] = faces.images[:150]
    held_out = held_out_of(faces)
    assert np.array_equal(held_out[:150], held_out[150:])
    assert held_out.sum() == 30


def test_the_choice_is_the_same_each_time_and_not_the_first_ones():
    held_out = held_out_of(random_faces([100]))
    assert np.array_equal(held_out, held_out_of(random_faces([100], seed=1)))
    assert not held_out[:10].all()
