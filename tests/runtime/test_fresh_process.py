from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_files import CLASSES, example_spec, write_onnx

from fertool.config.foreign_files import ForeignModel
from fertool.errors import FertoolError
from fertool.runtime.fresh_process import run_fresh_process

MB = 1_000_000


def peak_memory(path: Path, **options: Any) -> int:
    return run_fresh_process(path, **options).peak_rss_bytes or 0


def test_the_parent_s_size_does_not_count(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", spec=example_spec())
    small = peak_memory(path)
    ballast = np.ones(600 * MB, dtype=np.uint8)
    assert peak_memory(path) < small + 30 * MB < ballast.nbytes
    assert small > 20 * MB


def test_a_larger_batch_needs_more_memory(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", size=64)
    one, many = (
        peak_memory(path, foreign=ForeignModel(CLASSES), batch_size=size) for size in (1, 4096)
    )
    assert many - one > 4096 * 64 * 64 * 5  # uint8 pixels and their float32 copy


def test_a_failing_child_is_one_line(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx")
    with pytest.raises(FertoolError, match="the process that measures its memory failed") as caught:
        peak_memory(path)
    assert "without fertool's header" in caught.value.message
    assert "\n" not in caught.value.message


def test_by_hand(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", spec=example_spec())
    child = subprocess.run(
        [sys.executable, "-m", "fertool.runtime.fresh_process_child", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert child.stdout.startswith('{"peak_rss_bytes": ')
    figures = json.loads(child.stdout)
    assert figures["load_s"] > 0
    assert figures["first_pass_s"] > 0
