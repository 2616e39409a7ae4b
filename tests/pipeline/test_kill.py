"""A training killed with SIGKILL goes on and ends with the bytes of the undisturbed one."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from fertool import models
from fertool.spec import InputSpec

NETWORK = ("--arch", "micro_expnet", "--arch-arg", "width_mult=0.25", "--device", "cpu")


@pytest.fixture
def start():
    """Start a training in a process of its own."""

    def call(command, output):
        arguments = (sys.executable, "-m", "fertool", *command, "-o", output)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(arguments, stdout=-1, stderr=-1, text=True, env=environment)

    return call


def test_kill_9_and_resume(tmp_path, start):
    command = (
        "train-teacher",
        "--data",
        "synth:280",
        *NETWORK,
        "--epochs",
        "3",
        "--ema-decay",
        "0.9",
    )

    undisturbed, killed = tmp_path / "a.pt", tmp_path / "b.pt"
    assert start(command, undisturbed).wait(300) == 0
    process = start(command, killed)
    assert process.stderr.readline().startswith("epoch 1/3")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not killed.exists()
    assert (tmp_path / "b.pt.resume").exists()
    assert json.loads((tmp_path / "b.pt.history.json").read_text())["file"] == "b.pt"
    again = start(command, killed)
    _, said = again.communicate(timeout=300)
    assert again.returncode == 0
    assert "epoch 1/3" not in said
    assert killed.read_bytes() == undisturbed.read_bytes()
    assert sorted(os.listdir(tmp_path)) == [
        "a.pt",
        "a.pt.history.json",
        "b.pt",
        "b.pt.history.json",
    ]
    histories = [
        json.loads((tmp_path / f"{name}.pt.history.json").read_text())["history"] for name in "ab"
    ]
    for record in histories[0] + histories[1]:
        assert record.pop("seconds") > 0
    assert histories[0] == histories[1]
    assert [record["epoch"] for record in histories[0]] == [1, 2, 3]


def test_kill_9_in_the_second_of_two_rounds_and_resume(tmp_path, start):
    teacher = tmp_path / "teacher.pt"
    torch.manual_seed(0)
    classes = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    models.save_model(
        teacher, *models.create("micro_expnet", {"width_mult": 0.25}, InputSpec(), classes)
    )
    command = ("distill", teacher, "--data", "synth:140", *NETWORK)
    command += ("--method", "iterative", "--rounds", "2", "--epochs", "2")
    undisturbed, killed = tmp_path / "a.pt", tmp_path / "b.pt"
    assert start(command, undisturbed).wait(300) == 0
    process = start(command, killed)
    while not process.stderr.readline().startswith("round 2/2  epoch 1/2"):
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert sorted(path.name for path in tmp_path.glob("b.pt*.resume")) == [
        "b.pt.round-1.resume",
        "b.pt.round-2.resume",
    ]
    assert not killed.exists()
    again = start(command, killed)
    _, said = again.communicate(timeout=300)
    assert again.returncode == 0
    assert [line[:20] for line in said.splitlines() if "  epoch " in line] == [
        "round 2/2  epoch 2/2"
    ]
    assert killed.read_bytes() == undisturbed.read_bytes()
    assert not list(tmp_path.glob("*.resume"))
    records = json.loads((tmp_path / "b.pt.history.json").read_text())["history"]
    assert [(record["round"], record["epoch"]) for record in records] == [
        (1, 1),
        (1, 2),
        (2, 1),
        (2, 2),
    ]


def test_kill_9_in_the_second_of_two_seeds_and_resume(tmp_path, start):
    command = ("train-teacher", "--data", "synth:140", *NETWORK, "--epochs", "2", "--seeds", "0,1")
    undisturbed, killed = tmp_path / "a.pt", tmp_path / "b.pt"
    assert start(command, undisturbed).wait(300) == 0
    process = start(command, killed)
    while not process.stderr.readline().startswith("note: training 2 of 2"):
        assert process.poll() is None
    assert process.stderr.readline().startswith("epoch 1/2")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not killed.exists()
    assert (tmp_path / "b.seed1.pt.resume").exists()
    again = start(command, killed)
    _, said = again.communicate(timeout=300)
    assert again.returncode == 0
    assert "note: training 1 of 2: seed 0: finished" in said
    assert [line[:9] for line in said.splitlines() if line.startswith("epoch")] == ["epoch 2/2"]
    for name in ("", ".seed0", ".seed1"):
        assert (tmp_path / f"a{name}.pt").read_bytes() == (tmp_path / f"b{name}.pt").read_bytes()
    assert not list(tmp_path.glob("*.resume"))
