"""The same names, shapes and outputs as torchvision's networks; `make_golden.py` wrote what it
gives.
"""

import hashlib
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from graphs import network_of

from fertool.models.architecture import get_architecture

GOLDEN = Path(__file__).with_name("golden.json")
# Architecture, arguments of torchvision's function, and the scale of batch norm at which a pass
# stays between vanishing and explosion; None: names and shapes alone.
CASES = [
    ("resnet18", {"num_classes": 7}, 0.7),
    ("resnet50", {"num_classes": 7}, 0.7),
    ("mobilenet_v2", {"num_classes": 1000}, 1.0),
    ("mobilenet_v2", {"num_classes": 7, "width_mult": 0.35}, 1.0),
    ("mobilenet_v2", {"num_classes": 7, "width_mult": 0.1}, 1.0),
    ("mobilenet_v3_small", {"num_classes": 1000}, 1.1),
    ("mobilenet_v3_small", {"num_classes": 7, "width_mult": 0.25}, 1.1),
    ("mobilenet_v3_large", {"num_classes": 7}, 0.95),
    ("mobilenet_v3_large", {"num_classes": 7, "width_mult": 1.4}, None),
    ("shufflenet_v2_x0_5", {"num_classes": 7}, 0.95),
    ("shufflenet_v2_x1_0", {"num_classes": 7}, 0.95),
    ("efficientnet_b0", {"num_classes": 7}, 1.1),
]


def case_id(arch, args):
    return f"{arch} {json.dumps(args, sort_keys=True)}"


def fill_(module, scale):
    """Give every tensor values that depend on its name and shape alone.

    Return the module in eval mode.
    """
    for name, tensor in module.state_dict().items():
        draw = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(tensor.shape))
        if name.endswith("num_batches_tracked"):
            draw = draw * 0
        elif name.endswith("running_var"):
            draw = np.exp(0.2 * draw)
        elif tensor.dim() > 1:
            draw *= np.sqrt(2 / tensor[0].numel())
        else:
            draw = 0.1 * draw + (scale if name.endswith("weight") else 0)
        tensor.copy_(torch.from_numpy(np.asarray(draw)))
    return module.eval()


def signature(module):
    """Return a digest of all names and shapes, in order."""
    entries = [[name, list(tensor.shape)] for name, tensor in module.state_dict().items()]
    return hashlib.sha256(json.dumps(sorted(entries)).encode()).hexdigest()


def image():
    index = torch.arange(3 * 64 * 64, dtype=torch.float64)
    return torch.sin(index * 0.37 + (index / 64).floor() * 0.11).reshape(1, 3, 64, 64).float()


@pytest.mark.parametrize(("arch", "args", "scale"), CASES)
def test_names_shapes_and_logits_are_those_of_torchvision(arch, args, scale):
    golden = json.loads(GOLDEN.read_text())[case_id(arch, args)]
    module = get_architecture(arch)(in_channels=3, **args)
    assert signature(module) == golden["signature"]
    if scale:
        fill_(module, scale)
        with torch.no_grad():
            logits = network_of(module, (3, 64, 64))(image())[0]
        expected = torch.tensor(golden["logits"])
        assert (logits - expected).abs().max() < 1e-4 * max(1, expected.abs().max())
