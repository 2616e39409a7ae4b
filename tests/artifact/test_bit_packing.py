import pytest
import torch

from fertool.artifact.bit_packing import channels_by_bits, digit_sizes, pack, unpack


def test_digits_make_up_the_bits():
    assert [digit_sizes(bits) for bits in range(2, 9)] == [
        (2,),
        (2, 1),
        (4,),
        (4, 1),
        (4, 2),
        (4, 2, 1),
        (8,),
    ]


def test_channels_are_sorted_by_width_and_layer():
    found = channels_by_bits({"b": (3, 2, 3), "a": (2,)})
    assert list(found) == [2, 3]
    assert {name: rows.tolist() for name, rows in found[2].items()} == {"b": [1], "a": [0]}
    assert found[3]["b"].tolist() == [0, 2]


def test_bytes_by_hand():
    # Of 3 bits: -3 and 2 are 1 and 6 above -4, in binary 0 01 and 1 10 by low bit last: digits 00,
    # 11 and 1, 0.
    planes = pack({"w": torch.tensor([[-3, 2]], dtype=torch.int8)}, {"w": (3,)})
    assert {digit: plane.tolist() for digit, plane in planes.items()} == {2: [0b1100], 1: [0b01]}


@pytest.mark.parametrize("seed", range(3))
def test_any_mixture_comes_back_and_takes_its_bits(seed):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"conv": (37, 5, 3, 3), "depthwise": (13, 1, 3, 3), "fc": (7, 19)}
    bits = {
        n: torch.randint(2, 9, (s[0],), generator=generator).tolist() for n, s in shapes.items()
    }
    weights = {name: torch.zeros(shape, dtype=torch.int8) for name, shape in shapes.items()}
    total = 0
    for name, shape in shapes.items():
        for channel, width in enumerate(bits[name]):
            low, high = -(2 ** (width - 1)), 2 ** (width - 1)
            weights[name][channel] = torch.randint(low, high, shape[1:], generator=generator)
            total += width * weights[name][channel].numel()
    planes = pack(weights, bits)
    assert all(plane.dtype == torch.uint8 for plane in planes.values())
    assert total / 8 <= sum(map(len, planes.values())) < total / 8 + 4
    back = unpack(planes, bits, shapes)
    assert all(torch.equal(back[name], weights[name]) for name in shapes)
