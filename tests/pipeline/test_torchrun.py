"""Two processes of torchrun train one network.

A run of which one was killed goes on to the same bytes.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fertool import models

COMMAND = (
    *(
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "fertool",
    ),
    *(
        "train-teacher",
        "--data",
        "synth:140",
        "--arch",
        "resnet18",
        "--arch-arg",
        "width_mult=0.25",
    ),
    *("--epochs", "2", "--ema-decay", "0.9", "--device", "cpu", "--json"),
)
PROCESSES = Path("/proc")


def start(output):
    return subprocess.Popen(
        [*COMMAND, "-o", output],
        stdout=-1,
        stderr=-1,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def kill(launcher, rank):
    for child in (PROCESSES / f"{launcher.pid}/task/{launcher.pid}/children").read_text().split():
        if f"RANK={rank}".encode() in (PROCESSES / child / "environ").read_bytes().split(b"\0"):
            os.kill(int(child), signal.SIGKILL)


@pytest.mark.skipif(not PROCESSES.exists(), reason="finds the process to kill in /proc")
def test_a_killed_process_ends_the_run_and_the_next_one_resumes(tmp_path):
    undisturbed, killed = tmp_path / "a.pt", tmp_path / "b.pt"
    process = start(undisturbed)
    out, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert [line.split()[1] for line in said.splitlines() if line.startswith("epoch ")] == [
        "1/2",
        "2/2",
    ]
    assert json.loads(out)["metrics"]["n"] == 14
    assert models.load_model(undisturbed)[0].digest == json.loads(out)["digest"]

    process = start(killed)
    while not process.stderr.readline().startswith("epoch 1/2"):
        assert process.poll() is None
    kill(process, rank=1)
    out, said = process.communicate(timeout=300)
    assert process.returncode == 1
    assert out == ""
    assert said.count("error: ") == 1
    assert "hint: run the same command again" in said
    assert sorted(os.listdir(tmp_path)) == [
        *("a.pt", "a.pt.history.json", "b.pt.history.json", "b.pt.resume")
    ]

    process = start(killed)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "epoch 1/2" not in said
    assert killed.read_bytes() == undisturbed.read_bytes()
    assert sorted(os.listdir(tmp_path)) == [
        "a.pt",
        "a.pt.history.json",
        "b.pt",
        "b.pt.history.json",
    ]
