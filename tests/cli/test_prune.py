import json
import re
from types import SimpleNamespace

import pytest
import torch

from fertool.artifact.header import read_spec
from fertool.cli.app import run
from fertool.graph.channels import trace_channels
from fertool.models import create, load_model, save_model
from fertool.pruning.latency_model import typical_latency
from fertool.results import Change
from fertool.spec import InputSpec
from fertool.training import engine
from fertool.workflows import latency_budget, prune
from fertool.workflows.pruning_schedules import ScheduleTrainer

TRAIN = (
    "--data",
    "synth:210",
    "--arch",
    "micro_expnet",
    "--arch-arg",
    "width_mult=0.25",
    "--input-size",
    32,
)
OWN = {
    "one-shot": (),
    "iterative": ("--steps", 2),
    "slimming": ("--sparse-epochs", 1, "--sparsity", 0.01),
    "greg": ("--sparse-epochs", 1),
    "prj": ("--punish-epochs", 2, "--punish-share", 0.3, "--reward-epochs", 1, "--max-drop", 100),
}
BUDGET = (
    "--data",
    "synth:210",
    "--target-flops",
    0.6,
    "--round-to",
    1,
    "--scoring-images",
    28,
    "--device",
    "cpu",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.pt"
    command = ("train-teacher", *TRAIN, "-o", path, "--epochs", 1, "--device", "cpu")
    assert run([str(word) for word in command]) == 0
    return path


def test_a_dynamic_network_goes_through_all_commands(fertool, tmp_path, model):
    dynamic, exported = tmp_path / "d.pt", tmp_path / "d.onnx"
    options = ("--schedule", "dynamic", "--profiles", "0.8,0.3", "--epochs", 2, "--json")
    code, out, err = fertool("prune", model, "-o", dynamic, *BUDGET, *options)
    assert code == 0, err
    made = json.loads(out)
    assert len(made["gates"]["profiles"]) == 2
    assert sum(made["gates"]["shares"]) == pytest.approx(1)
    assert {"latency_s", "latency_s_before", "accuracy"} <= set(made["change"])
    assert fertool("export", dynamic, "-o", exported)[0] == 0
    code, out, _ = fertool("bench", dynamic, exported, "--runs", 40, "--starts", 0, "--json")
    assert code == 0
    for result in json.loads(out)["results"]:
        assert sum(profile["share"] for profile in result["profiles"]) == pytest.approx(1)
    _, table, _ = fertool("bench", exported, "--runs", 40, "--starts", 0)
    assert "of the images" in table
    assert "2 widths" in fertool("show", dynamic)[1]
    code, out, _ = fertool("eval", dynamic, exported, "--data", "synth:210", "--json")
    first, second = json.loads(out)["results"]
    assert first["accuracy"] == second["accuracy"]
    refused = tmp_path / "no.pt"
    for options in (
        ("--schedule", "greg"),
        ("--schedule", "greg", "--dry-run"),
        ("--schedule", "dynamic"),
        ("--target-latency", 0.5),
    ):
        code, _, err = fertool("prune", dynamic, "-o", refused, *BUDGET, *options)
        assert code == 2
        assert "dynamic network" in err
        assert not refused.exists()


@pytest.mark.parametrize("gate", ["statistics", "cascade"])
def test_a_dynamic_network_is_pruned_again_and_trained_further(fertool, tmp_path, model, gate):
    wide, narrow, trained, taught = (tmp_path / f"{name}.pt" for name in "wntd")
    options = ("--schedule", "dynamic", "--gate", gate, "--epochs", 1, "--no-bench")
    code, _, err = fertool("prune", model, "-o", wide, *BUDGET, *options)
    assert code == 0, err
    before = read_spec(wide)

    options = ("--target-flops", 0.7, "--epochs", 1, "--no-bench", "--json")
    code, out, err = fertool("prune", wide, "-o", narrow, *BUDGET, *options)
    assert code == 0, err
    made = json.loads(out)
    after = read_spec(narrow)
    widths = zip(before.gates.profiles, after.gates.profiles, strict=True)
    assert all(len(str(new)) <= len(str(old)) and new != old for old, new in widths)
    assert 0.5 * before.params < after.params < 0.9 * before.params
    # The MACs of a gate stay.
    assert made["macs"] <= 0.75 * before.macs
    assert made["gates"]["routing"]["accuracy"] == made["metrics"]["accuracy"]
    assert [row["phase"] for row in made["history"] if "phase" in row] == []

    data = ("--data", "synth:210", "--epochs", 1, "--json")
    code, out, err = fertool("train-teacher", "--init-from", narrow, "-o", trained, *data)
    assert code == 0, err
    code, out, err = fertool("distill", wide, "--init-from", narrow, "-o", taught, *data)
    assert code == 0, err
    given = load_model(narrow)[1].state_dict()
    for path in (trained, taught):
        spec, module = load_model(path)
        assert spec.gates.profiles == after.gates.profiles
        assert spec.gates.routing.accuracy == spec.metrics.accuracy
        for name, tensor in module.state_dict().items():
            # Profiles learn; what chooses among them is not trained again.
            is_gate = name.startswith("gate.")
            if is_gate or name.endswith("conv.weight"):
                assert torch.equal(tensor, given[name]) == is_gate, name
    assert fertool("export", taught, "-o", tmp_path / "d.onnx")[0] == 0


def test_a_dynamic_network_is_not_trained_for_other_classes(fertool, tmp_path, model):
    cascade = tmp_path / "c.pt"
    options = ("--schedule", "dynamic", "--gate", "cascade", "--no-bench")
    assert fertool("prune", model, "-o", cascade, *BUDGET, *options)[0] == 0
    data = ("--data", "synth:210", "--classes", "happy,sad", "--epochs", 1)
    code, _, err = fertool("train-teacher", "--init-from", cascade, "-o", tmp_path / "n.pt", *data)
    assert code == 1
    assert "dynamic network" in err


def test_a_cascade_says_what_its_choice_is_worth(fertool, tmp_path, model):
    cascade, exported = tmp_path / "c.pt", tmp_path / "c.onnx"
    options = ("--schedule", "dynamic", "--gate", "cascade", "--epochs", 1, "--json")
    code, out, err = fertool("prune", model, "-o", cascade, *BUDGET, *options)
    assert code == 0, err
    made = json.loads(out)
    gates = made["gates"]
    assert gates["kind"] == "cascade"
    assert len(gates["thresholds"]) == 1
    routing = gates["routing"]
    assert routing["cross_fitted"]
    assert routing["accuracy"] == made["metrics"]["accuracy"] == made["change"]["accuracy"]
    assert routing["difference"] == pytest.approx(routing["accuracy"] - routing["random_accuracy"])
    assert "at random" in err
    assert "at random" in fertool("show", cascade)[1]
    assert fertool("export", cascade, "-o", exported)[0] == 0
    code, out, _ = fertool("eval", cascade, exported, "--data", "synth:210", "--json")
    first, second = json.loads(out)["results"]
    assert first["accuracy"] == second["accuracy"]
    assert first["profiles"] == second["profiles"]
    assert sum(profile["n"] for profile in first["profiles"]) == first["n"]
    assert first["routing"]["accuracy"] == first["accuracy"]
    assert second["routing"] is None
    assert "profile 1" in fertool("eval", exported, "--data", "synth:210")[1]


def test_a_cascade_becomes_integers_and_says_so(fertool, tmp_path, model):
    cascade, traces, integer = (tmp_path / name for name in ("c.pt", "s.json", "q.pt"))
    options = ("--schedule", "dynamic", "--gate", "cascade", "--no-bench")
    code, _, err = fertool("prune", model, "-o", cascade, *BUDGET, *options)
    assert code == 0, err
    data = ("--data", "synth:210", "--device", "cpu")
    code, _, err = fertool("hessian-sensitivity", cascade, "-o", traces, *data, "--trace-images", 8)
    assert code == 0, err
    names = [layer["name"] for layer in json.loads(traces.read_text())["layers"]]
    assert {name.split(".")[1] for name in names} == {"0", "1"}
    fast = ("--calibration-images", 56, "--no-bench", "--json")
    mixed = ("--average-bits", 4, "--sensitivity", traces)
    code, out, err = fertool("quantize", cascade, "-o", integer, *data, *mixed, *fast)
    assert code == 0, err
    made = json.loads(out)
    assert made["change"]["average_bits"] == pytest.approx(4, abs=0.05)
    assert made["gates"]["routing"]["n"] == made["metrics"]["n"]
    # Less where the rounded margins of several images are the same.
    assert made["macs"] <= 1.02 * read_spec(cascade).macs
    trained = ("--method", "qat", "--epochs", 1, "--lr", 1e-4)
    code, out, err = fertool("quantize", cascade, "-o", integer, *data, *trained, *fast)
    assert code == 0, err
    assert len(json.loads(out)["history"]) == 1
    code, out, _ = fertool("eval", integer, *data[:2], "--json")
    assert json.loads(out)["routing"]["n"] == made["metrics"]["n"]
    for command in (("prune", "--target-flops", 0.5), ("hessian-sensitivity", *data)):
        code, _, err = fertool(command[0], integer, *command[1:])
        assert code == 1
        assert "quantized" in err


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--epochs", 1, "--profiles", "0.5"), "two or more"),
        (("--gate", "cascade", "--sparsity", 3), "no gate that it would train"),
        (("--epochs", 1, "--profiles", "0.5,x"), "not numbers"),
        ((), "has to be trained"),
    ],
)
def test_a_gate_that_could_not_choose_is_refused(fertool, tmp_path, model, options, reason):
    code, _, err = fertool(
        "prune", model, "-o", tmp_path / "d.pt", *BUDGET, "--schedule", "dynamic", *options
    )
    assert code == 2
    assert reason in err


@pytest.mark.parametrize("schedule", OWN)
def test_every_schedule_meets_the_budget_and_says_what_it_did(fertool, tmp_path, model, schedule):
    output = tmp_path / "p.pt"
    code, out, err = fertool(
        *(
            "prune",
            model,
            "-o",
            output,
            *BUDGET,
            "--epochs",
            1,
            "--schedule",
            schedule,
            *OWN[schedule],
            "--json",
            "--no-bench",
        )
    )
    assert code == 0, err
    printed = json.loads(out)
    assert printed["macs"] / read_spec(model).macs <= 0.6
    assert printed["plan"]["macs_ratio"] == pytest.approx(printed["macs"] / read_spec(model).macs)
    assert printed["metrics"]["split"] == "val"
    options = printed["provenance"][-1]["options"]
    assert options["schedule"] == schedule
    given = {flag.removeprefix("--").replace("-", "_") for flag in OWN[schedule][::2]}
    assert given <= set(options)
    assert not list(tmp_path.glob("*.resume"))
    rounds = [record.get("round", 1) for record in printed["history"]]
    assert rounds == sorted(rounds)
    assert len(rounds) >= (1 if schedule == "one-shot" else 2)


def test_a_killed_schedule_goes_on_to_the_same_bytes(fertool, tmp_path, model, monkeypatch):
    command = ("prune", model, *BUDGET, "--epochs", 1, "--schedule", "iterative", "--steps", 2)
    assert fertool(*command, "-o", tmp_path / "whole.pt")[0] == 0

    class Killed(BaseException):
        pass

    def run_epoch(job, progress):
        if run_epoch.left == 0:
            raise Killed
        run_epoch.left -= 1
        return original(job, progress)

    original, run_epoch.left = engine._run_epoch, 1
    monkeypatch.setattr(engine, "_run_epoch", run_epoch)
    with pytest.raises(Killed):
        fertool(*command, "-o", tmp_path / "killed.pt")
    assert (tmp_path / "killed.pt.round-1.resume").exists()
    # The first training is not repeated: one epoch is enough for the rest.
    run_epoch.left = 1
    assert fertool(*command, "-o", tmp_path / "killed.pt")[0] == 0
    assert (tmp_path / "killed.pt").read_bytes() == (tmp_path / "whole.pt").read_bytes()
    assert not list(tmp_path.glob("*.resume"))


def test_a_budget_beyond_reach_fails_before_any_training(fertool, tmp_path, model):
    command = (
        "prune",
        model,
        "-o",
        tmp_path / "p.pt",
        "--data",
        "synth:210",
        "--target-flops",
        0.0001,
    )
    code, _, err = fertool(*command, "--schedule", "iterative", "--device", "cpu")
    assert code == 1
    assert "error: the smallest reachable network has MACs at 0." in err
    assert "epoch" not in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--schedule", "iterative", "--target-flops", 0.5), "--schedule iterative needs --data"),
        (
            ("--schedule", "greg", "--steps", 3, "--target-flops", 0.5),
            "--steps 3: --schedule greg has none",
        ),
        (
            ("--max-drop", 2, "--steps", 3),
            "--steps 3: what --max-drop allows is removed in one step",
        ),
        (
            ("--schedule", "greg", "--max-drop", 1, "--data", "synth:210"),
            "--max-drop 1.0: --schedule greg has none",
        ),
        (("--schedule", "prj", "--data", "synth:210"), "no budget"),
        (("--criterion", "kl", "--target-flops", 0.5), "--criterion kl needs images"),
        (("--criterion", "kl", "--target-latency", 0.5), "--criterion kl needs images"),
        (
            (
                "--schedule",
                "dynamic",
                "--data",
                "synth:210",
                "--target-flops",
                0.5,
                "--target-latency",
                0.5,
            ),
            "--schedule dynamic: its budget is the mean",
        ),
        (
            (
                "--schedule",
                "slimming",
                "--data",
                "synth:210",
                "--target-flops",
                0.5,
                "--criterion",
                "l1",
            ),
            "--schedule slimming: it has scores of its own",
        ),
    ],
)
def test_what_does_not_go_together_names_the_option(fertool, tmp_path, model, arguments, error):
    code, _, err = fertool("prune", model, "-o", tmp_path / "p.pt", *arguments)
    assert code == 2
    assert err.splitlines()[-2].startswith(f"error: {error}")
    assert not list(tmp_path.iterdir())


def test_the_table_has_costs_latency_and_a_paired_test_and_the_picture_is_a_png(
    fertool, tmp_path, model
):
    output, picture = tmp_path / "p.pt", tmp_path / "w.png"
    code, out, err = fertool(
        "prune", model, "-o", output, *BUDGET, "--plot-widths", picture, "--json"
    )
    assert code == 0, err
    change = json.loads(out)["change"]
    assert change["accuracy"] - change["accuracy_before"] == pytest.approx(change["difference"])
    assert change["speedup"] == pytest.approx(
        change["latency_s_before"] / change["latency_s"], rel=0.5
    )
    assert {"mcnemar_p", "difference_ci95", "speedup_ci95"} <= set(change)
    for expected in ("params", "MACs", "latency", "McNemar p", "before", "after"):
        assert expected in err
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_without_images_and_bench_the_costs_alone_are_told(fertool, tmp_path, model):
    code, out, err = fertool(
        "prune", model, "-o", tmp_path / "p.pt", "--target-flops", 0.5, "--no-bench", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["change"] == {}
    assert "MACs" in err
    assert "latency" not in err
    code, _, err = fertool(
        *(
            "prune",
            model,
            "-o",
            tmp_path / "p.pt",
            "--target-flops",
            0.5,
            "--plot-widths",
            tmp_path / "p.pt",
        )
    )
    assert code == 2
    assert "error: --plot-widths" in err


def test_without_data_it_is_said_that_accuracy_was_not_measured_and_how_far_the_answers_changed(
    fertool, tmp_path, model
):
    command = ("prune", model, "-o", tmp_path / "p.pt", "--no-bench", "--round-to", 1, "--json")
    code, out, err = fertool(*command, "--target-flops", 0.1)
    assert code == 0, err
    told = json.loads(out)["unlabeled"]
    assert told["accuracy"] is None
    assert 0 <= told["top1_agreement"] <= 1
    assert told["kl"] >= 0
    assert 1 / 7 <= told["commonest_share"] <= 1
    assert "not measured" in err
    assert "warning: accuracy was not measured" in err
    predicted, n = told["commonest_class"], told["n"]
    one_class = f"warning: the network predicts {predicted} for all of {n} drawn faces"
    assert (one_class in err) == (told["commonest_share"] == 1)
    code, out, err = fertool(*command, *BUDGET)
    assert code == 0, err
    assert json.loads(out)["unlabeled"] is None
    assert "not measured" not in err


def test_a_budget_of_bytes_is_that_of_the_file(fertool, tmp_path, model):
    size = model.stat().st_size
    for target, most in ((0.6, 0.6 * size), ("300k", 300e3)):
        output = tmp_path / "p.pt"
        code, _, err = fertool(
            "prune", model, "-o", output, "--target-size", target, "--round-to", 1, "--no-bench"
        )
        assert code == 0, err
        assert 0.95 * most < output.stat().st_size <= most
    code, _, err = fertool(
        "prune", model, "-o", tmp_path / "p.pt", "--target-size", "2k", "--no-bench"
    )
    assert code == 2
    assert "error: --target-size 2k: the file's header alone" in err


def test_a_budget_of_latency_is_by_the_clock_of_this_machine(fertool, tmp_path):
    torch.manual_seed(0)
    spec, module = create("mobilenet_v2", {}, InputSpec(), ("angry", "happy", "sad"))
    model, output = tmp_path / "m.pt", tmp_path / "p.pt"
    save_model(model, spec, module)
    code, out, err = fertool(
        "prune", model, "-o", output, "--target-latency", 0.7, "--no-bench", "--json"
    )
    assert code == 0, err
    found = json.loads(out)
    # Other work on the machine moves every measurement, so that only what the table says is
    # certain.
    assert found["plan"]["latency_ratio"] < 1
    assert found["macs"] < read_spec(model).macs
    assert re.search(
        r"a budget of 0\.\d+ by the latency model is 0\.\d+ of the input's latency", err
    )


@pytest.mark.parametrize("target", ["1.5", "fast", "3m"])
def test_a_budget_of_latency_that_is_none_names_the_option(fertool, tmp_path, model, target):
    code, _, err = fertool("prune", model, "-o", tmp_path / "p.pt", "--target-latency", target)
    assert code == 2
    assert err.splitlines()[-2].startswith(f"error: --target-latency {target}")


def test_a_killed_training_goes_on_with_the_latencies_that_it_had(
    fertool, tmp_path, model, monkeypatch
):
    output, state = tmp_path / "p.pt", tmp_path / "p.pt.latency.resume"
    command = (
        "prune",
        model,
        "-o",
        output,
        "--target-latency",
        0.8,
        *BUDGET[:2],
        *BUDGET[4:],
        "--epochs",
        1,
    )

    class Killed(BaseException):
        pass

    def killed(job, progress):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_run_epoch", killed)
        graph = trace_channels(load_model(model)[1])
        timed = SimpleNamespace(comparisons=(SimpleNamespace(speedup=1.25),))
        patch.setattr(
            latency_budget, "learn_latency_model", lambda *_: typical_latency(graph.layers)
        )
        patch.setattr(latency_budget, "bench_networks", lambda *networks, reporter: timed)
        with pytest.raises(Killed):
            fertool(*command)
    assert state.exists()
    with monkeypatch.context() as patch:
        patch.setattr(latency_budget, "learn_latency_model", None)
        patch.setattr(latency_budget, "bench_networks", None)
        code, _, err = fertool(*command, "--no-bench")
    assert code == 0, err
    assert "that the killed run measured" in err
    assert not state.exists()


def test_a_plan_of_dynamic_pruning_is_that_of_every_width(fertool, tmp_path, model):
    command = (
        "prune",
        model,
        *BUDGET,
        "--schedule",
        "dynamic",
        "--epochs",
        1,
        "--dry-run",
        "--json",
    )
    code, out, err = fertool(*command, "--profiles", "1,0.3")
    assert code == 0, err
    whole, narrow = json.loads(out)["profiles"]
    assert whole["widths"] == whole["widths_before"] == narrow["widths_before"]
    assert 0.28 < narrow["macs_ratio"] <= 0.3
    code, _, err = fertool(*command, "--profiles", "0.3,0.2")
    assert code == 2
    assert "not between the profiles" in err


def test_a_loop_that_the_judge_ends_before_the_budget_says_so(
    fertool, tmp_path, model, monkeypatch
):
    accuracies = iter([0.9, 0.9, 0.0])  # The input's, then what each cycle is left with.
    monkeypatch.setattr(ScheduleTrainer, "measure_accuracy", lambda self, net: next(accuracies))
    train = ScheduleTrainer.train
    monkeypatch.setattr(
        ScheduleTrainer,
        "train",
        lambda self, phase, net: (
            next(accuracies) if "reward" in phase.name else train(self, phase, net)
        ),
    )
    options = (
        "--schedule",
        "prj",
        "--punish-epochs",
        1,
        "--punish-share",
        0.05,
        "--reward-epochs",
        1,
        "--no-bench",
    )
    code, out, err = fertool("prune", model, "-o", tmp_path / "p.pt", *BUDGET, *options, "--json")
    assert code == 0, err
    assert json.loads(out)["plan"]["macs_ratio"] > 0.7
    assert "ended it before the budget" in err


def test_a_quantised_model_is_refused_whatever_is_asked(fertool, tmp_path, model):
    integer = tmp_path / "q.pt"
    assert fertool("quantize", model, "-o", integer, "--data", "synth:210", "--no-bench")[0] == 0
    for asked in (("--target-size", 0.5), ("--prune-blocks", 1, "--data", "synth:210")):
        code, _, err = fertool("prune", integer, "-o", tmp_path / "p.pt", *asked)
        assert code == 1
        assert ".pt: the model is quantized already" in err


def test_points_of_accuracy_are_a_budget(fertool, tmp_path, model):
    output = tmp_path / "p.pt"
    data = ("--data", "synth:210", "--scoring-images", 28, "--round-to", 1, "--no-bench")
    code, out, err = fertool(
        "prune",
        model,
        "-o",
        output,
        *data,
        "--max-drop",
        100,
        "--min-channels",
        "classifier.*",
        "--json",
    )
    assert code == 0, err
    channels = json.loads(out)["channels"]
    assert channels["classifier.0"] == read_spec(model).graph.channels["classifier.0"]
    assert json.loads(out)["macs"] < 0.4 * read_spec(model).macs
    both = ("--target-flops", 0.5, "--max-drop", 1)
    code, _, err = fertool("prune", model, "-o", output, *data, *both)
    assert code == 2
    assert "a budget already" in err


def test_blocks_go_and_the_file_still_goes_everywhere(fertool, tmp_path, model):
    output = tmp_path / "p.pt"
    data = ("--data", "synth:210", "--scoring-images", 28, "--no-bench")
    code, out, err = fertool("prune", model, "-o", output, *data, "--prune-blocks", 2, "--json")
    assert code == 0, err
    gone = set(read_spec(model).graph.channels) - set(json.loads(out)["channels"])
    assert len({name.rpartition(".block")[0] for name in gone}) == 2
    assert fertool("export", output, "-o", tmp_path / "p.onnx")[0] == 0
    calibrated = ("--data", "synth:210", "--calibration-images", 28, "--no-bench")
    assert fertool("quantize", output, "-o", tmp_path / "q.pt", *calibrated)[0] == 0
    again = (
        "prune",
        output,
        "-o",
        tmp_path / "r.pt",
        *data,
        "--target-flops",
        0.8,
        "--round-to",
        1,
    )
    code, table, _ = fertool("prune", model, *data, "--prune-blocks", 2, "--dry-run")
    assert code == 0
    assert " 0 " in table
    assert fertool(*again)[0] == 0
    code, _, err = fertool("prune", model, "-o", tmp_path / "no.pt", "--prune-blocks", 1)
    assert code == 2
    assert "needs images" in err


@pytest.mark.parametrize(("speedup", "told"), [(1.2, True), (1.7, False)])
def test_time_that_does_not_follow_the_macs_is_told_with_the_way_out(
    fertool, tmp_path, model, monkeypatch, speedup, told
):
    change = Change(
        speedup=speedup,
        speedup_ci95=(speedup, speedup),
        latency_s_before=1.0,
        latency_s=1.0,
    )
    monkeypatch.setattr(prune, "measure_changes", lambda *_, **__: change)
    code, _, err = fertool(
        "prune", model, "-o", tmp_path / "p.pt", "--target-flops", 0.6, "--round-to", 1
    )
    assert code == 0, err
    assert (
        " of the MACs take 0.83 of the time here" in err and "--target-latency 0.66" in err
    ) == told
