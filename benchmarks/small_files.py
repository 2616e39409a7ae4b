"""How small a trained network gets at what loss: `hessian-sensitivity` and `quantize` on each,
nothing trained.

    python benchmarks/small_files.py MODEL.pt:3.22 … --data fer2013.csv --keep mixed \\
        -o small_files.json

After the colon stands the mean of bits, or `8` for INT8. The networks stay in the folder --keep.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from fertool.artifact.atomic import write_atomic
from fertool.artifact.header import read_spec


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="MODEL.pt:BITS")
    parser.add_argument("--data", required=True)
    parser.add_argument("--keep", type=Path, required=True, help="folder for traces and networks")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    options.keep.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = (
        json.loads(options.output.read_text())["rows"] if options.output.exists() else []
    )
    for text in options.models:
        model, _, bits = text.rpartition(":")
        name = f"{Path(model).stem}.{bits}"
        if not any(row["file"] == name for row in rows):
            rows.append(
                {
                    "file": name,
                    **quantised(Path(model), bits, options.keep / f"{name}.pt", options.data),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
            write_atomic(options.output, json.dumps({"rows": rows}, indent=1).encode())


def quantised(model: Path, bits: str, output: Path, data: str) -> dict[str, Any]:
    """Quantise one network by the commands, and say what came of it."""
    spec, traces = read_spec(model), output.with_name(f"{model.stem}.json")
    budget = (
        ["--bits", bits] if bits == "8" else ["--average-bits", bits, "--sensitivity", str(traces)]
    )
    if bits != "8" and not traces.exists():
        fertool("hessian-sensitivity", str(model), "--data", data, "-o", str(traces))
    made = fertool("quantize", str(model), "--data", data, "-o", str(output), *budget, "--no-bench")
    change = json.loads(made)["change"]
    return {
        "arch": spec.arch,
        "params": spec.params,
        "bits": float(bits),
        "float_bytes": model.stat().st_size,
        "size_bytes": output.stat().st_size,
        **change,
    }


def fertool(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "fertool", *arguments, "--json"], stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise SystemExit(f"fertool {arguments[0]}: exit code {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    main()
