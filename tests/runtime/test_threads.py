import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from onnx_files import CLASSES, write_onnx

from fertool.models import create, save_model
from fertool.runtime import BenchConfig, bench, open_predictor
from fertool.runtime.threads import limited_threads
from fertool.spec import InputSpec


@pytest.fixture
def torch_file(tmp_path: Path) -> Path:
    spec, module = create("micro_expnet", {}, InputSpec(1, 32), CLASSES)
    save_model(tmp_path / "m.pt", spec, module.eval())
    return tmp_path / "m.pt"


def test_threads_are_those_of_before_after_a_benchmark(torch_file: Path) -> None:
    before = torch.get_num_threads()
    predictor = open_predictor(torch_file)
    with limited_threads([predictor], before + 2):
        assert torch.get_num_threads() == before + 2
    bench([torch_file], BenchConfig(warmup=0, runs=1, threads=before + 1, memory=False, starts=0))
    assert torch.get_num_threads() == before


def test_onnx_files_are_measured_without_torch_in_memory(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx")
    code = (
        "import json, sys; from pathlib import Path;"
        "from fertool.runtime.foreign import ForeignModel;"
        "from fertool.runtime.opening import open_predictor;"
        "from fertool.runtime.threads import limited_threads;"
        f"p = open_predictor(Path({str(path)!r}), foreign=ForeignModel({CLASSES!r}));\n"
        "with limited_threads([p], 1): print(json.dumps('torch' in sys.modules))"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert json.loads(child.stdout) is False
