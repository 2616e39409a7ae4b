"""Run damaged files of every format through every command that reads them.

    python tests/hostile/run.py --count 2200 --seed 7 --keep kept
    python tests/hostile/run.py --kind recipes --count 500

All in processes forked from this one. Prints what went wrong, and for each kind how many files ran;
exit code 1 if anything was wrong. With --keep the files of failed runs stay there.
"""

import argparse
import contextlib
import gc
import io
import itertools
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bases import make_bases
from readers import KINDS
from sandbox import run_all

_IMPORTED_LATE = (
    *(
        "matplotlib.figure",
        "matplotlib.backends.backend_agg",
        "onnx",
        "onnxruntime",
        "torch._dynamo",
        "yaml",
    ),
    *(
        "torch.onnx.symbolic_opset18",
        "PIL.ImageOps",
        "PIL.PngImagePlugin",
        "PIL.JpegImagePlugin",
        "PIL.TiffImagePlugin",
    ),
)
"""What commands import on their way, and what takes long."""


def main() -> int:
    """Make the files, run them, print the outcome."""
    asked = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    asked.add_argument("--count", type=int, default=sum(share for share, _ in KINDS.values()))
    asked.add_argument("--seed", type=int, default=int(time.time()))
    asked.add_argument("--kind", choices=KINDS, action="append")
    asked.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    asked.add_argument("--keep", type=Path)
    options = asked.parse_args()
    print(f"seed {options.seed}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve() if options.keep is None else options.keep.resolve()
        return _run(
            folder, options.kind or list(KINDS), options.count, options.seed, options.workers
        )


def _run(folder: Path, kinds: list[str], count: int, seed: int, workers: int) -> int:
    os.environ["FERTOOL_CACHE"] = str(folder / "cache")
    _import_everything()
    begun = time.monotonic()
    shared, work = folder / "shared", folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    if not shared.exists():
        make_bases(shared)
    _warm_up(shared)
    print(f"undamaged files made in {time.monotonic() - begun:.0f} s", flush=True)
    whole = sum(KINDS[kind][0] for kind in kinds)
    failed: Counter[str] = Counter()
    for kind in kinds:
        share, stream = KINDS[kind]
        begun = time.monotonic()
        wanted = round(count * share / whole)
        jobs = itertools.islice(stream(shared, random.Random(f"{seed} {kind}")), wanted)
        for job, problems in run_all(jobs, shared, work / kind.replace(" ", "-"), workers):
            for problem in problems:
                failed[kind] += 1
                print(f"{job.name}: {problem}\n    fertool {' '.join(job.command)}")
        print(
            f"{kind}: {wanted} files, {failed[kind]} problems, {time.monotonic() - begun:.0f} s",
            flush=True,
        )
    print(f"{sum(failed.values())} problems")
    return 1 if failed else 0


def _import_everything() -> None:
    """Import all that commands import, and run nothing: a fork inherits no threads."""
    import importlib
    import pkgutil

    import torch

    import fertool

    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    for module in pkgutil.walk_packages(fertool.__path__, "fertool."):
        # Programs for a board import each other as files of one folder.
        is_program = module.name.startswith("fertool.board.")
        if not (is_program or module.name.endswith("__main__")):
            importlib.import_module(module.name)
    for name in _IMPORTED_LATE:
        importlib.import_module(name)


def _warm_up(shared: Path) -> None:
    """Run what starts no thread once here, so that each fork finds it imported and built."""
    from fertool.cli.app import run

    with contextlib.redirect_stdout(io.StringIO()):
        run(["show", str(shared / "float.pt")])
        run(["data", "info", "--data", str(shared / "tiny.csv"), "--json"])
    # Else the first collection in each fork copies every page that holds an object.
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    sys.exit(main())
