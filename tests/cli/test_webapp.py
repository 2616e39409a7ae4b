"""`app` as a user meets it."""

import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

MODEL = Path(__file__).parents[2] / "models" / "nano_resnet.3bit.onnx"


@pytest.fixture
def runtime(tmp_path):
    folder = tmp_path / "onnxruntime-web"
    folder.mkdir()
    (folder / "ort.wasm.bundle.min.mjs").write_text("const a=1;export{a as Tensor};")
    (folder / "ort-wasm-simd-threaded.wasm").write_bytes(b"\0asm")
    return folder


def test_the_path_of_the_page_is_the_result(fertool, tmp_path, runtime):
    output = tmp_path / "app.html"
    code, out, err = fertool("app", MODEL, "-o", output, "--runtime", runtime)
    assert (code, out.split()) == (0, [str(output)]), err
    assert "Expressions" in output.read_text()


def test_without_the_runtime_the_hint_says_how_to_get_it(fertool, tmp_path):
    code, out, err = fertool("app", MODEL, "-o", tmp_path / "app.html")
    assert (code, out) == (2, "")
    assert "--runtime: the page needs onnxruntime-web" in err
    assert "npm pack onnxruntime-web@1.30.0, then --runtime onnxruntime-web-1.30.0.tgz" in err
    assert list(tmp_path.iterdir()) == []


def test_help_says_what_it_is_not_for(fertool):
    _, out, _ = fertool("app", "--help")
    assert "Article 5(1)(f)" in " ".join(out.split())


def test_a_page_is_served_until_ctrl_c(tmp_path, runtime):
    output = tmp_path / "app.html"
    command = ["app", MODEL, "-o", output, "--runtime", runtime, "--serve", "0"]
    running = subprocess.Popen(
        [sys.executable, "-m", "fertool", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in the background of a shell, Ctrl-C is ignored by all they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for line in running.stderr:
        if "http://127.0.0.1:" in line:
            break
    url = line[line.index("http") :].split()[0]
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == output.read_bytes()
    running.send_signal(signal.SIGINT)
    assert running.wait(30) == 130
