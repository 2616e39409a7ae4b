import torch
import torch.nn.functional as F
from small_networks import Net, captured, conv
from torch import nn

from fertool.graph.blocks import find_blocks, without_block
from fertool.graph.channels import trace_channels

IMAGE = (1, 4, 4)


class Block(nn.Module):
    """A residual block, with a projection where its channels change."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.one, self.two = conv(inputs, outputs, 3), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.project = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x):
        return F.relu(self.two(self.one(x)) + (self.project(x) if self.project else x))


def network():
    torch.manual_seed(0)
    body = nn.Sequential(conv(1, 4, 3), Block(4, 4), Block(4, 6), Block(6, 6))
    return captured(
        nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)), IMAGE
    )


def images():
    return torch.rand(2, *IMAGE, generator=torch.Generator().manual_seed(0))


def test_blocks_are_named_by_their_path_and_projections_are_none():
    blocks = find_blocks(network())
    assert [block.name for block in blocks] == ["1", "3"]
    assert set(blocks[0].nodes) == {"1.one.0", "1.one.1", "1.one.2", "1.two"}
    assert blocks[0].shortcut == "0.2"


def test_without_a_block_the_shortcut_is_read_and_no_relu_stands_twice():
    whole = network()
    first, _ = find_blocks(whole)
    shorter = without_block(whole, first)
    assert not any(node.name.startswith("1.") for node in shorter.graph.nodes)
    assert not any(name.startswith("1.") for name in shorter.state_dict())
    with torch.no_grad():
        whole.insert_after("1.two", Silence())
        torch.testing.assert_close(shorter(images()), whole(images()))
    assert trace_channels(shorter).macs < trace_channels(network()).macs


class Silence(nn.Module):
    def forward(self, x):
        return torch.zeros_like(x)


def test_the_network_is_not_changed_and_shares_no_memory():
    whole = network()
    before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    shorter = without_block(whole, find_blocks(whole)[0])
    with torch.no_grad():
        for parameter in shorter.parameters():
            parameter.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in whole.state_dict().items())
    assert shorter.training == whole.training


def test_a_branch_that_something_else_reads_is_no_block():
    def run(s, x):
        x = s.stem(x)
        inner = s.one(x)
        return s.head((x + s.two(inner) + inner.mean(1, keepdim=True)).mean((2, 3)))

    net = Net(run, stem=conv(1, 4), one=conv(4, 4), two=nn.Conv2d(4, 4, 1), head=nn.Linear(4, 3))
    assert find_blocks(captured(net, IMAGE)) == []


def test_sums_without_layers_and_gates_are_no_blocks():
    def run(s, x):
        x = s.stem(x)
        return s.head((x + x.sigmoid()).mean((2, 3)))

    net = Net(run, stem=conv(1, 4), head=nn.Linear(4, 3))
    assert find_blocks(captured(net, IMAGE)) == []


def test_a_branch_with_a_layer_scale_and_inner_blocks_is_a_block():
    def run(s, x):
        x = s.stem(x)
        y = s.down(x)
        y = y + s.inner(y)
        return s.head((x + s.gamma * s.up(y)).mean((2, 3)))

    layers = {
        "down": conv(4, 2),
        "inner": nn.Conv2d(2, 2, 1),
        "up": nn.Conv2d(2, 4, 1),
        "head": nn.Linear(4, 3),
    }
    net = captured(
        Net(run, stem=conv(1, 4), gamma=nn.Parameter(torch.ones(4, 1, 1)), **layers), IMAGE
    )
    inner, outer = find_blocks(net)
    assert inner.nodes == ("inner",)
    assert {"down.0", "inner", "up", "gamma"} <= set(outer.nodes)
    shorter = without_block(net, outer)
    assert set(shorter.state_dict()) == {
        name for name in net.state_dict() if name.startswith(("stem", "head"))
    }
