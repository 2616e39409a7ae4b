"""A training killed with SIGKILL goes on and ends with the bytes of the undisturbed one."""

import os
import signal
import subprocess
import sys

COMMAND = (
    *(sys.executable, "-m", "fertool", "train-teacher", "--data", "synth:280", "--arch", "micro_expnet"),
    *("--arch-arg", "width_mult=0.25", "--epochs", "3", "--ema", "0.9", "--device", "cpu"),
)


def test_kill_9_and_resume(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(output):
        return subprocess.Popen([*COMMAND, "-o", output], stdout=-1, stderr=-1, text=True, env=environment)

    undisturbed, killed = tmp_path / "a.pt", tmp_path / "b.pt"
    assert start(undisturbed).wait(120) == 0
    process = start(killed)
    assert process.stderr.readline().startswith("epoch 1/3")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not killed.exists()
    assert (tmp_path / "b.pt.resume").exists()
    again = start(killed)
    _, said = again.communicate(timeout=120)
    assert again.returncode == 0
    assert "epoch 1/3" not in said
    assert killed.read_bytes() == undisturbed.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a.pt", "b.pt"]
