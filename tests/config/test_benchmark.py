from __future__ import annotations

import pytest

from fertool.config.benchmark import BenchConfig
from fertool.config.option import configured
from fertool.errors import UsageError


def test_one_value_of_a_list_needs_no_list_in_python() -> None:
    (config,) = configured(BenchConfig(), {"batch_size": 8, "runtime": "torch"})
    assert (config.batch_size, config.runtime) == ((8,), ("torch",))


def test_repeated_runtimes_and_sizes_count_once() -> None:
    config = BenchConfig(runtime=("torch,onnxruntime", "torch"), batch_size=(8, 1, 8))
    assert (config.runtime, config.batch_size) == (("torch", "onnxruntime"), (8, 1))


def test_an_unknown_runtime_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown ``runtime`` 'openvin'") as caught:
        BenchConfig(runtime=("openvin",))
    assert "did you mean 'openvino'" in caught.value.hint
