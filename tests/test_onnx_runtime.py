from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest
from onnx import helper

from fertool.errors import FertoolError
from fertool.onnx_runtime import open_session, run_with_time_limit, session_options


def test_a_pass_that_goes_on_is_ended_and_one_that_ends_gives_its_result_or_error():
    ended = threading.Event()

    def forward():
        ended.wait(60)
        return 7

    with pytest.raises(FertoolError, match=r"m.onnx: no result after 0.05 s") as caught:
        run_with_time_limit(forward, ended.set, 0.05, "m.onnx")
    assert "``time_limit=SECONDS``" in caught.value.hint
    assert ended.is_set()
    assert run_with_time_limit(forward, ended.set, 60, "m.onnx") == 7
    with pytest.raises(ZeroDivisionError):
        run_with_time_limit(lambda: 1 / 0, ended.set, 60, "m.onnx")


STOPPED_PASS = """
import signal, threading
from fertool.onnx_runtime import run_with_time_limit

# A shell that starts the tests in its background has set it to be ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
ended = threading.Event()
main = threading.get_ident()
threading.Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
try:
    run_with_time_limit(lambda: ended.wait(60), ended.set, 60, "m.onnx")
except KeyboardInterrupt:
    print("stopped", ended.is_set())
"""


def test_ctrl_c_ends_a_pass():
    # In a process of its own: what other tests have loaded must not hear the signal.
    start = time.monotonic()
    command = [sys.executable, "-c", STOPPED_PASS]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "stopped True\n"
    assert time.monotonic() - start < 30


def test_a_graph_that_unfolds_without_end_is_one_error_in_the_end(tmp_path):
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    functions = [
        helper.make_function(
            "own", "f0", ["a"], ["z"], [helper.make_node("Relu", ["a"], ["z"])], opsets
        )
    ]
    for level in range(1, 25):
        twice = [
            helper.make_node(f"f{level - 1}", [before], [after], domain="own")
            for before, after in ("ab", "bz")
        ]
        functions.append(helper.make_function("own", f"f{level}", ["a"], ["z"], twice, opsets))
    ends = [helper.make_tensor_value_info(name, 1, ["N", 1, 48, 48]) for name in "xy"]
    node = helper.make_node("f24", ["x"], ["y"], domain="own")
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=8)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    # In a process of its own: it has to end while a thread is still at work.
    code = (
        "import sys; from fertool.runtime.runtimes import onnxruntime; onnxruntime._OPENING_S = 1;"
        "from fertool.cli.app import main;"
        "sys.argv = ['fertool', 'bench', 'm.onnx', '--classes', 'a,b', '--time-limit', '1']; main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error:")]
    assert ended.returncode == 1, ended.stderr
    assert [line.rpartition(" after ")[0] for line in errors] == ["error: m.onnx: not open"]


def test_what_is_no_graph_is_one_line():
    with pytest.raises(FertoolError, match="the bytes: ONNX Runtime cannot open it") as caught:
        open_session(b"no graph", session_options(1), "the bytes")
    assert "\n" not in caught.value.message


def test_nothing_is_left_in_the_home_or_temporary_folder(tmp_path):
    places = {
        "HOME": tmp_path / "home",
        "TMPDIR": tmp_path / "tmp",
        "XDG_CACHE_HOME": tmp_path / "cache",
    }
    for place in places.values():
        place.mkdir()
    code = (
        "import subprocess, sys; from fertool.onnx_runtime import import_onnxruntime;"
        " import_onnxruntime();"
        "subprocess.run([sys.executable, '-c', 'import onnxruntime'], check=True)"
    )
    environment = {
        name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"
    }
    environment |= {name: str(place) for name, place in places.items()}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
