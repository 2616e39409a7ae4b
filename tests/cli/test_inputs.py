"""What is not there is found missing before torch is imported, which takes seconds."""

import subprocess
import sys

COMMANDS = (
    "prune missing.pt --target-flops 0.5",
    "prune . --target-flops 0.5",
    "prune / --target-flops 0.5",
    "quantize . --data synth",
    "hessian-sensitivity . --data synth",
    "export .",
    "prune MODEL --target-flops 0.5 --data missing",
    "prune MODEL --target-flops 0.5 -o FOLDER",
    "quantize missing.pt --data synth",
    "hessian-sensitivity missing.pt --data synth",
    "train-teacher --data missing.csv",
    "train-teacher --data synth --init missing.pt",
    "train-teacher --data synth -o FOLDER",
    "distill missing.pt --data synth",
    "distill MODEL --data missing",
    "cascade missing.pt MODEL --data synth",
    "cascade MODEL missing.pt --data synth",
    "export missing.pt",
    "eval missing.onnx --data synth",
    "eval MODEL --data missing",
    "bench missing.onnx",
    "data info --data missing",
    "show missing.pt",
    "report missing.json",
)


def test_a_wrong_path_costs_no_torch(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"not looked into")
    code = (
        "import sys\nfrom fertool.cli.app import run\n"
        "for line in sys.argv[1:]:\n"
        "    assert run(line.split()) == 1, line\n"
        "    assert 'torch' not in sys.modules, line\n"
    )
    lines = [line.replace("MODEL", "model.pt").replace("FOLDER", ".") for line in COMMANDS]
    done = subprocess.run(
        [sys.executable, "-c", code, *lines],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(COMMANDS)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]
