"""Print docs/operators.md: what a network may be made of, from the operator table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fertool.graph.operator_types import REQUIRED, Argument, Operator
from fertool.graph.operators import OPERATORS

_HEAD = """# What a network is made of

Made by `make docs` from the operator table (`fertool/graph/operators.py`); do not edit.

A model file holds its network as a graph of these operators, \
and every command works on any such graph. `fertool
import` writes a network down in them, whatever spelling its author used: methods, functions, \
in-place forms, modules.

What an operator does to channels, which decides what pruning can remove:

| channels | meaning |
| --- | --- |
| mixes | computes new channels, each a sum over all input channels: these can be removed |
| per_channel | holds one number per channel, which is removed with the channel |
| elementwise | each output element depends on one input element |
| couples | elementwise over several inputs, whose channels can then only be removed together |
| spatial | reduces or resamples positions within a channel |
| rearranges | moves values, and channels with them |
| fixes | anything else: the channels of its inputs and outputs are not removed |

Batch norm is per channel; layer norm and group norm compute over all channels, \
so that those of their input are not
removed. A grouped convolution loses whole groups. *Integer* tells whether ONNX Runtime computes \
the operator on
integers; the others run in float between two quantizers.

A network with another function is refused, with its place and its name. What to write instead: \
mean and standard
deviation as a batch norm; indexing by a tensor, sorting and control flow that depends on values \
have no place in a
graph; multi-head attention as linear layers, `scaled_dot_product_attention` and reshapes; \
`einsum` as `matmul`.
"""


def main() -> None:
    """Write the page to stdout."""
    print(_HEAD)
    print(
        "| operator | channels | inputs | arguments | integer |\n| --- | --- | ---: | --- | --- |"
    )
    for name, operator in OPERATORS.items():
        cells = (
            f"`{name}`",
            operator.channel_effect,
            _inputs(operator),
            _arguments(operator.arguments),
            _yes(operator.integer),
        )
        print(f"| {' | '.join(cells)} |")


def _inputs(operator: Operator) -> str:
    fewest, most = operator.inputs
    return str(fewest) if fewest == most else f"{fewest} to {most}"


def _arguments(arguments: Mapping[str, Argument]) -> str:
    return ", ".join(_argument(name, argument.default) for name, argument in arguments.items())


def _argument(name: str, default: Any) -> str:
    return f"`{name}`" if default is REQUIRED else f"`{name}={default}`"


def _yes(integer: bool) -> str:
    return "yes" if integer else ""


if __name__ == "__main__":
    main()
