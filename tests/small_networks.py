"""Hand-written networks, each with one way in which channels can hang together."""

import torch
import torch.nn.functional as F
from masking import randomise_norms
from torch import nn

from fertool.graph.capture import capture
from fertool.models.blocks import EfficientChannelAttention

IMAGE = (3, 8, 8)


class Net(nn.Module):
    """`layers` by name, and `run(self, x)` as the forward."""

    def __init__(self, run, **layers):
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            self.register_parameter(name, layer) if isinstance(
                layer, nn.Parameter
            ) else self.add_module(name, layer)

    def forward(self, x):
        return self.run(self, x)


def captured(module, image=IMAGE):
    return capture(module.eval(), image).network(image)


def conv(inputs, outputs, kernel=1, **options):
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False, **options)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


def residual():
    def run(s, x):
        x = s.stem(x)
        x = F.relu(x + s.one(x))
        return s.head((x + s.two(s.inner(x))).mean((2, 3)))

    inner, two = conv(8, 12, 3), nn.Conv2d(12, 8, 1)
    return Net(
        run, stem=conv(3, 8, 3), one=nn.Conv2d(8, 8, 1), inner=inner, two=two, head=nn.Linear(8, 3)
    )


def unequal_parts():
    def run(s, x):
        both = s.join(torch.cat((s.a(x), s.b(x)), 1))
        few, many = torch.split(both, (4, 10), 1)
        return s.head(torch.cat((s.few(few), many, s.many(many)), 1).mean((2, 3)))

    layers = {"few": conv(4, 4, 3), "many": conv(10, 6, 3), "head": nn.Linear(20, 3)}
    return Net(run, a=conv(3, 5), b=conv(3, 7, 3), join=conv(12, 14), **layers)


def slices():
    def run(s, x):
        small, large = s.small(x), s.large(x)
        joined = torch.cat((large[:, :4] + small, large[:, 4:]), 1)
        return s.head(s.last(joined).mean((2, 3)))

    return Net(run, small=conv(3, 4), large=conv(3, 10, 3), last=conv(10, 6), head=nn.Linear(6, 3))


class ShuffleUnit(nn.Module):
    def __init__(self, channels):
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            conv(half, half),
            nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False),
            nn.BatchNorm2d(half),
            conv(half, half),
        )

    def forward(self, x):
        kept, rest = x.chunk(2, dim=1)
        both = torch.cat((kept, self.branch(rest)), dim=1)
        batch, channels, height, width = both.shape
        return (
            both.view(batch, 2, channels // 2, height, width)
            .transpose(1, 2)
            .reshape(batch, -1, height, width)
        )


def shuffle():
    return nn.Sequential(
        conv(3, 16),
        ShuffleUnit(16),
        ShuffleUnit(16),
        conv(16, 8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


def squeeze_excitation():
    def run(s, x):
        y = s.body(x)
        gate = F.hardsigmoid(s.up(F.relu(s.down(y.mean([2, 3], keepdim=True)))))
        return s.head((y * gate).mean((2, 3)))

    return Net(
        run,
        body=conv(3, 12, 3),
        down=nn.Conv2d(12, 6, 1),
        up=nn.Conv2d(6, 12, 1),
        head=nn.Linear(12, 3),
    )


def depthwise():
    def run(s, x):
        return s.head(F.max_pool2d(s.point(s.twice(s.single(s.stem(x)))), 2).mean((2, 3)))

    single, twice = conv(10, 10, 3, groups=10), conv(10, 20, 3, groups=10)
    return Net(
        run, stem=conv(3, 10), single=single, twice=twice, point=conv(20, 8), head=nn.Linear(8, 3)
    )


def grouped():
    def run(s, x):
        x = s.stem(x)
        x = F.relu(x + s.shut(s.again(s.parts(s.open(x)))))
        return s.head(x.mean((2, 3)))

    parts, again = conv(16, 24, 3, groups=4), conv(24, 16, 3, groups=4)
    return Net(
        run,
        stem=conv(3, 8),
        open=conv(8, 16),
        parts=parts,
        again=again,
        shut=conv(16, 8),
        head=nn.Linear(8, 3),
    )


class Affine(nn.Module):
    """A layer of nobody's library whose tensors bear the names of a known one's."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(1, channels, 1, 1))
        self.bias = nn.Parameter(torch.rand(1, channels, 1, 1))

    def forward(self, x):
        return x * self.weight + self.bias


def layer_scale():
    def run(s, x):
        x = s.stem(x)
        x = s.affine(x + s.gamma * s.two(F.gelu(s.one(x))))
        last = s.lower(F.gelu(s.upper(x.permute(0, 2, 3, 1))))
        return s.head((x + (s.flat * last).permute(0, 3, 1, 2)).mean((2, 3)))

    convs = {"stem": conv(3, 8, 3), "one": nn.Conv2d(8, 16, 1), "two": nn.Conv2d(16, 8, 1)}
    linears = {"upper": nn.Linear(8, 20), "lower": nn.Linear(20, 8), "head": nn.Linear(8, 3)}
    scales = {"gamma": nn.Parameter(torch.rand(8, 1, 1)), "flat": nn.Parameter(torch.rand(8))}
    return Net(run, **convs, **linears, **scales, affine=Affine(8))


def beside_attention():
    def run(s, x):
        x = s.stem(x)
        query, key, value = s.all(x).flatten(2).reshape(len(x), 3, 2, 4, 64).unbind(1)
        seen = value @ (query.transpose(-2, -1) @ key).softmax(-1)
        x = torch.cat((x + s.back(seen.reshape(x.shape)), s.free(x), x.softmax(1)), 1)
        return s.head(s.last(x).mean((2, 3)))

    convs = {"all": nn.Conv2d(8, 24, 1), "back": nn.Conv2d(8, 8, 1), "free": conv(8, 10)}
    return Net(run, stem=conv(3, 8), **convs, last=conv(26, 6), head=nn.Linear(6, 3))


def places_of_both_axes():
    def run(s, x):
        y = s.body(x)
        rows, columns = y.mean(3, keepdim=True), y.mean(2, keepdim=True).permute(0, 1, 3, 2)
        one, two = torch.split(s.small(torch.cat((rows, columns), 2)), [8, 8], 2)
        return s.head(
            (y * s.rows(one).sigmoid() * s.columns(two.permute(0, 1, 3, 2)).sigmoid()).mean((2, 3))
        )

    gates = {"rows": nn.Conv2d(6, 8, 1), "columns": nn.Conv2d(6, 8, 1)}
    return Net(run, body=conv(3, 8), small=conv(8, 6), **gates, head=nn.Linear(8, 3))


def chained_parts():
    def run(s, x):
        parts = torch.split(s.body(x), 4, 1)
        two = s.two(parts[1])
        made = torch.cat((parts[0], two, s.three(parts[2] + two)), 1)
        halves = list(s.halve(made).chunk(2, 1))
        halves.append(halves[1] + s.inner(halves[1]))
        return s.head(s.last(torch.cat(halves, 1)).mean((2, 3)))

    convs = {
        "two": conv(4, 4, 3),
        "three": conv(4, 4, 3),
        "halve": conv(12, 12),
        "inner": conv(6, 6, 3),
    }
    return Net(run, body=conv(3, 12), **convs, last=conv(18, 8), head=nn.Linear(8, 3))


def parts_with_one_reader():
    def run(s, x):
        one, two, three = s.body(x).chunk(3, 1)
        pieces = torch.split(s.more(torch.cat((one.tanh(), two, -three), 1)), 5, 1)
        return s.head(torch.cat((pieces[0].square(), pieces[1]), 1).mean((2, 3)))

    return Net(run, body=conv(3, 12, 3), more=conv(12, 10), head=nn.Linear(10, 3))


def pixel_shuffle():
    def run(s, x):
        large = F.pixel_shuffle(s.wide(x), 2)
        return s.head(s.last(F.pixel_unshuffle(s.thin(large), 2)).mean((2, 3)))

    return Net(run, wide=conv(3, 24), thin=conv(6, 6, 3), last=conv(24, 8), head=nn.Linear(8, 3))


def flattened():
    def run(s, x):
        return s.head(F.relu(s.hidden(torch.flatten(F.max_pool2d(s.body(x), 2), 1))))

    return Net(run, body=conv(3, 6, 3), hidden=nn.Linear(96, 10), head=nn.Linear(10, 3))


def channel_row():
    def run(s, x):
        y = s.square(s.body(x))
        row = s.line(y.mean((2, 3)).unsqueeze(1)).squeeze(1)
        return s.head((y * row.sigmoid()[:, :, None, None]).mean((2, 3)))

    line = nn.Conv1d(1, 1, 3, padding=1, bias=False)
    return Net(
        run,
        body=conv(3, 12, 3),
        square=EfficientChannelAttention(3),
        line=line,
        head=nn.Linear(12, 3),
    )


def gated_products():
    def run(s, x):
        value, gate = s.both(s.stem(x)).chunk(2, dim=1)
        y = s.next(value * gate.sigmoid())
        return s.head((F.relu6(s.one(y)) * s.two(y)).mean((2, 3)))

    layers = {"one": nn.Conv2d(8, 14, 1), "two": nn.Conv2d(8, 14, 1), "head": nn.Linear(14, 3)}
    return Net(run, stem=conv(3, 6, 3), both=nn.Conv2d(6, 20, 1), next=conv(10, 8), **layers)


def decoder():
    def run(s, x):
        high = s.high(x)
        low = s.low(F.max_pool2d(high, 2))
        up = F.interpolate(low, scale_factor=2, mode="bilinear", align_corners=False)
        merged = s.merge(torch.cat((up, high), 1))
        return s.head((s.side(F.interpolate(low, size=(8, 8))) + merged).mean((2, 3)))

    sides = {"merge": conv(18, 10, 3), "side": nn.Conv2d(12, 10, 1)}
    return Net(run, high=conv(3, 6, 3), low=conv(6, 12, 3), **sides, head=nn.Linear(10, 3))


def transposed():
    def run(s, x):
        return s.head(s.last(s.act(s.norm(s.up(s.down(x))))).mean((2, 3)))

    up = nn.ConvTranspose2d(8, 10, 2, stride=2)
    layers = {"up": up, "norm": nn.BatchNorm2d(10), "act": nn.PReLU(10), "last": conv(10, 6)}
    return Net(run, down=conv(3, 8, 3, stride=2), **layers, head=nn.Linear(6, 3))


def dense_concatenation():
    def run(s, x):
        x = s.stem(x)
        for grow in (s.first, s.second):
            x = torch.cat((x, grow(x)), 1)
        one, two = s.left(x), s.right(x)
        return s.head(
            torch.cat((F.avg_pool2d(torch.maximum(one, two), 2), s.down(x)), 1).flatten(2).mean(2)
        )

    grown = {"stem": conv(3, 6), "first": conv(6, 4, 3), "second": conv(10, 4, 3)}
    sides = {"left": conv(14, 8), "right": conv(14, 8), "down": conv(14, 6, 3, stride=2)}
    return Net(run, **grown, **sides, head=nn.Linear(14, 3))


NETWORKS = {
    make.__name__: make
    for make in (
        *(
            residual,
            unequal_parts,
            slices,
            shuffle,
            squeeze_excitation,
            depthwise,
            grouped,
            layer_scale,
        ),
        *(
            beside_attention,
            places_of_both_axes,
            chained_parts,
            parts_with_one_reader,
            pixel_shuffle,
            flattened,
            channel_row,
            gated_products,
            decoder,
            transposed,
            dense_concatenation,
        ),
    )
}


def small_network(name):
    """Return one of NETWORKS, float64, with batch norms that do something."""
    torch.manual_seed(0)
    return captured(randomise_norms(NETWORKS[name]())).double()
