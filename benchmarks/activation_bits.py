"""Bits of activations: all layers alike, and shared out by what rounding each layer's does to the
answers.

    python benchmarks/activation_bits.py MODEL.pt --data fer2013.csv --means 6,5,4.5 \\
        --seeds 0,1,2 -o activations.json

Weights keep their 8 bits (7 in a portable file), nothing is trained; a seed draws the images of the
calibration. Of a mean that is no whole number there is no network with all layers alike. Rows that
the output has already are kept.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from answers import Answers

from fertool.artifact.atomic import write_atomic
from fertool.config.quantization import QuantizeConfig
from fertool.quant import quantize_model


def main() -> None:
    options = parse_args()
    answers = Answers.of(options.model, options.data)
    report = answers.report(options.data, options.output)
    for mean in (8.0, *map(float, options.means.split(","))):
        for shared in (False, True) if mean < 8 else (False,):
            for seed in map(int, options.seeds.split(",")):
                head = {"bits": mean, "shared": shared, "seed": seed}
                if (shared or mean.is_integer()) and not any(
                    head.items() <= row.items() for row in report["rows"]
                ):
                    report["rows"].append(head | run(answers, mean, shared, seed))
                    print(json.dumps(report["rows"][-1]), flush=True)
                    write_atomic(options.output, json.dumps(report, indent=1).encode())


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="the trained float network, a .pt file")
    parser.add_argument("--data", required=True)
    parser.add_argument("--means", default="6,5,4.5")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("-o", "--output", type=Path, required=True)
    return parser.parse_args()


def run(answers: Answers, mean: float, shared: bool, seed: int) -> dict[str, Any]:
    """Quantise, and say what came of it."""
    given: dict[str, Any] = (
        {"average_activation_bits": mean} if shared else {"activation_bits": int(mean)}
    )
    config = QuantizeConfig(seed=seed, **given)
    quant, integer = quantize_model(answers.spec, answers.module, answers.train, config)
    return answers.compared(integer) | {"widths": sorted(quant.activations.values())}


if __name__ == "__main__":
    main()
