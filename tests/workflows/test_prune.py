"""Pruning as a function: the same files as the command, models in memory, nothing printed."""

import copy
import json
import os
import subprocess
import sys

import pytest
import torch

from fertool.config.pruning import PruneConfig, ScheduleConfig
from fertool.errors import FertoolError, UsageError
from fertool.pruning import load_schedule
from fertool.registry import SCHEDULES
from fertool.reporter import SilentReporter
from fertool.workflows.data import open_data
from fertool.workflows.model import load
from fertool.workflows.prune import plan_pruning, prune
from fertool.workflows.quantize import quantize

SCORING = {"scoring_images": 28, "bench": False}
FLAGS = ("--data", "synth:140", "--scoring-images", 28, "--no-bench")
TRAINING = {"epochs": 1, "batch_size": 16}
TRAINING_FLAGS = ("--epochs", 1, "--batch-size", 16)


class Notes(SilentReporter):
    """Keeps the notes and warnings."""

    def __init__(self):
        self.notes = []

    def note(self, message):
        self.notes.append(message)

    warn = note


@pytest.fixture(scope="module")
def data():
    return open_data("synth:140")


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({"flops": 0.5, **TRAINING}, ("--target-flops", 0.5, *TRAINING_FLAGS)),
        (
            {"params": 0.6, "schedule": "greg", "sparse_epochs": 1, "batch_size": 16},
            *[
                (
                    "--target-params",
                    0.6,
                    "--schedule",
                    "greg",
                    "--sparse-epochs",
                    1,
                    "--batch-size",
                    16,
                )
            ],
        ),
        (
            {"size": "80k", "round_to": 4, "min_channels": ("features.0*",), "criterion": "l2"},
            (
                "--target-size",
                "80k",
                "--round-to",
                4,
                "--min-channels",
                "features.0*",
                "--criterion",
                "l2",
            ),
        ),
    ],
)
def test_the_function_writes_the_bytes_of_the_command(
    fertool, small, data, tmp_path, options, flags
):
    code, _, err = fertool("prune", small, "-o", tmp_path / "a.pt", *FLAGS, *flags)
    assert code == 0, err
    pruned = prune(load(small), data, output=tmp_path / "b.pt", **options, **SCORING)
    assert pruned.path == tmp_path / "b.pt"
    assert (tmp_path / "b.pt").read_bytes() == (tmp_path / "a.pt").read_bytes()
    histories = [
        path.with_name(f"{path.name}.history.json") for path in (tmp_path / "a.pt", pruned.path)
    ]
    assert [path.exists() for path in histories] == [bool(pruned.history)] * 2
    assert {path.name for path in tmp_path.iterdir()} <= {
        "a.pt",
        "b.pt",
        *(p.name for p in histories),
    }


def test_a_model_in_memory_is_that_of_its_file_and_nothing_is_printed(
    small, data, tmp_path, capsys
):
    model = load(small)
    before = copy.deepcopy(model.module.state_dict())
    config = PruneConfig(scheduling=ScheduleConfig("slimming", sparse_epochs=1))
    options = {"flops": 0.5, "seed": 3, **TRAINING, **SCORING}
    pruned = prune(model, data, config, **options)
    assert pruned.path is None
    assert pruned.spec.macs <= 0.5 * pruned.before.spec.macs
    assert pruned.plan.macs == pruned.spec.macs
    assert [epoch.phase for epoch in pruned.history] == ["sparsity", "recovery"]
    assert pruned.change.accuracy == pytest.approx(pruned.metrics.accuracy)
    assert json.dumps(pruned.summary.as_dict())
    assert capsys.readouterr() == ("", "")
    after = model.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)

    calibration = {"calibration_images": 16, "bench": False}
    chained = quantize(pruned, data, **calibration).save(tmp_path / "a.pt")
    prune(model, data, config, output=tmp_path / "p.pt", **options)
    quantize(load(tmp_path / "p.pt"), data, output=tmp_path / "b.pt", **calibration)
    assert chained.path.read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_a_plan_is_what_is_carried_out(small, data, tmp_path):
    model = load(small)
    options = {"flops": 0.6, "steps": 2, "scoring_images": 28}
    (plan,) = plan_pruning(model, data, **options)
    assert plan == prune(model, data, bench=False, **options).plan
    dynamic = {"schedule": "dynamic", "flops": 0.5, "profiles": (0.8, 0.3), "round_to": 1}
    wide, narrow = plan_pruning(model, data, scoring_images=28, **dynamic)
    assert narrow.macs <= 0.3 * narrow.macs_before < 0.5 * wide.macs
    with pytest.raises(UsageError, match="no budget to plan for"):
        plan_pruning(model, data, max_drop=2)


def test_without_data_it_is_told_that_the_accuracy_is_unknown(small):
    reporter = Notes()
    pruned = prune(load(small), flops=0.5, bench=False, reporter=reporter)
    assert pruned.unlabeled.accuracy is None
    assert "history" not in pruned.summary.as_dict()
    assert any("accuracy was not measured" in note for note in reporter.notes)
    assert not any("--" in note for note in reporter.notes)


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"flop": 0.5}, "unknown option 'flop'", "did you mean 'flops'?"),
        ({"flops": 1.5}, "``target_flops=1.5``: must be more than 0", "``target_flops=0.5``"),
        ({"flops": 0.5, "criterion": "kll"}, "unknown ``criterion`` 'kll'", "kl"),
        ({"flops": 0.5, "schedule": "greg2"}, "unknown ``schedule`` 'greg2'", "greg"),
        ({"flops": 0.5, "round_to": 0}, "``round_to=0``: must be 1 or more", ""),
        ({"flops": 0.5, "sparsity": 1}, "``sparsity=1", "``schedule=dynamic or greg"),
        ({"flops": 0.5, "max_drop": 1}, "``max_drop=1``: one-shot has a budget already", "prj"),
        ({"latency": 0.5, "max_drop": 1}, "``max_drop=1``: one-shot has a budget already", "prj"),
        ({"flops": 0.5, "min_channels": ("stem",)}, "``min_channels=stem``: no layer", ""),
        ({"latency": 0.5, "prune_blocks": 1}, "``prune_blocks=1``: not together with", ""),
        ({}, "no budget", "``target_flops=0.5``"),
    ],
)
def test_a_wrong_option_is_named_by_its_field(small, data, options, message, hint):
    with pytest.raises(UsageError) as error:
        prune(load(small), data, **options)
    assert message in error.value.message
    assert hint in error.value.hint


def test_trainings_need_data(small):
    for options in ({"epochs": 2}, {"schedule": "greg"}):
        with pytest.raises(UsageError, match="needs ``data``"):
            prune(load(small), flops=0.5, **options)


def test_the_input_is_not_replaced(small):
    content = small.read_bytes()
    with pytest.raises(FertoolError):
        prune(load(small), flops=0.5, output=small)
    assert small.read_bytes() == content


def test_each_schedule_has_its_own_strength_and_its_attributes():
    strengths = {}
    for name in SCHEDULES.names():
        config = ScheduleConfig(name)
        schedule = load_schedule(name, 3, **config.options)
        assert config.trains_first == schedule.trains_first
        assert config.chooses_channels == schedule.chooses_channels
        assert config.shares_processes == schedule.shares_processes
        strengths[name] = getattr(schedule, "sparsity", None)
    assert strengths["greg"] == 1
    assert strengths["dynamic"] == 10
    assert strengths["slimming"] == strengths["prj"] == 1e-4
    assert load_schedule("greg", 3, **ScheduleConfig("greg", sparsity=0.1).options).sparsity == 0.1


ANOTHER = """
import torch

from fertool.pruning.weight_criterion import WeightCriterion


class Member(WeightCriterion):
    \"\"\"The place of a filter.\"\"\"

    def score_filters(self, weights, scales):
        return torch.arange(1.0, len(weights) + 1, dtype=torch.float64)
"""


def test_a_criterion_of_another_package_is_a_name_like_others(small, tmp_path, install):
    install("fertool.criteria", "by-place", ANOTHER)
    pruned = prune(load(small), flops=0.5, criterion="by-place", bench=False)
    layer = "features.4.block.0.0"
    before, after = pruned.plan.widths_before[layer], pruned.plan.widths[layer]
    assert 0 < after < before
    assert pruned.plan.kept[layer] == tuple(range(before - after, before))
    # The command line reads the names when it starts.
    command = [sys.executable, "-m", "fertool", "prune", small, "-o", tmp_path / "p.pt"]
    command += ["--target-flops", "0.5", "--no-bench", "--criterion", "by-place"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    assert load(tmp_path / "p.pt").spec.digest == pruned.spec.digest
