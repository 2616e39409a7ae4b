"""Print docs/operators.md: what a network may be made of, from the operator table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fertool.graph.operators import OPERATORS, REQUIRED, Argument, Operator

_HEAD = """# What a network is made of

Made by `make docs` from the operator table (`fertool/graph/operators.py`); do not edit.

A model file holds its network as a graph of these operators, and every command works on any such graph. `fertool
import` writes a network down in them, whatever spelling its author used: methods, functions, in-place forms, modules.

What pruning does with the channels of an operator:

| word | meaning |
| --- | --- |
| mixes | makes new channels, each a sum over those that it reads: these can be removed |
| scales | has a number for each channel, which goes with the channel |
| keeps | works channel by channel, place by place |
| merges | works on the channels of several inputs in pairs: they can only be removed together |
| pools | works channel by channel over places |
| moves | moves values; channels go with them |
| stays | anything else: the channels that it reads and makes are not removed |

Batch norm keeps its channels apart; layer norm and group norm compute over all of them, so that channels which they
read stay. A convolution in groups loses whole groups. *Integer* says whether ONNX Runtime computes it on integers;
the others stay float between two quantizers.

A network with another function is refused, with its place and its name. What to write instead: mean and standard
deviation as a batch norm; indexing by a tensor, sorting and control flow that depends on values have no place in a
graph; multi-head attention as linear layers, `scaled_dot_product_attention` and reshapes; `einsum` as `matmul`.
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
            operator.channels,
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
