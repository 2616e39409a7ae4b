"""`--seeds` and `--grid` on the command line; see tests/workflows/test_sweep.py."""

import json
import os

import pytest


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--grid", "learning-rate=1"], "unknown option in --grid 'learning-rate'"),
            (["--grid", "lr=0.1;weight-deca=0"], "unknown option in --grid 'weight-deca'"),
            (["--grid", "ema-decay=-1"], "--ema-decay -1.0: must be 0 or more"),
            (["--grid", "lr=fast"], "--lr fast: not a number"),
            (["--grid", "epochs=1.5"], "--epochs 1.5: not a whole number"),
            (["--grid", "nesterov=maybe"], "--nesterov maybe: not true or false"),
            (["--grid", "optimizer=sgd,adm"], "unknown --optimizer 'adm'"),
            (["--grid", "epochs=3,6;freeze-epochs=2,4"], "--freeze-epochs 4: must be"),
            (["--grid", "label-smoothing=0,1"], "--label-smoothing 1.0"),
            (["--grid", "lr"], "--grid lr: 'lr' is not NAME=VALUE"),
            (["--grid", "lr=1,"], "--grid lr=1,: 'lr=1,' is not NAME=VALUE"),
            (["--grid", "lr=0.1,0.10"], "repeats"),
            (["--grid", "seed=1,2"], "a seed is no axis"),
            (["--grid", ""], "names no option"),
            (["--grid", "lr=0.1", "--lr", "0.1"], "--lr: --grid gives its values"),
            (["--grid", "resume=true,false"], "unknown option in --grid 'resume'"),
            (["--seeds", "0,1", "--seed", "0"], "--seed 0 and --seeds 0,1 exclude each other"),
            (["--seed", "3", "--seeds", "0,1"], "--seed 3 and --seeds 0,1 exclude each other"),
            (["--seeds", "0,1,x"], "--seeds 0,1,x"),
            (["--seeds", "2,2"], "--seeds 2,2"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_what_makes_no_sense_is_refused_before_any_work(
        self, fertool, tmp_path, arguments, message
    ):
        code, out, err = fertool(
            "train-teacher", "--data", tmp_path / "none", "-o", tmp_path / "o.pt", *arguments
        )
        assert (code, out) == (2, "")
        assert message in err.splitlines()[-2]
        assert os.listdir(tmp_path) == []

    def test_a_misspelt_name_is_guessed(self, fertool, tmp_path):
        _, _, err = fertool(
            "train-teacher", "--data", "synth", "-o", tmp_path / "o.pt", "--grid", "weight-deca=0"
        )
        assert "did you mean 'weight-decay'?" in err
        _, _, err = fertool(
            "distill", "t.pt", "--data", "synth", "-o", tmp_path / "o.pt", "--grid", "temprature=4"
        )
        assert "did you mean 'temperature'?" in err

    def test_the_names_are_those_of_numbers_switches_and_choices(self, fertool, tmp_path):
        _, _, err = fertool(
            "distill", "t.pt", "--data", "synth", "-o", tmp_path / "o.pt", "--grid", "x=1"
        )
        names = err.splitlines()[-1].partition("choices: ")[2].split(", ")
        assert {
            "alpha",
            "beta",
            "rounds",
            "method",
            "lr",
            "optimizer",
            "flip",
            "start-size",
        } <= set(names)
        assert not {"plot", "resume", "init", "arch", "arch-arg", "format", "seed", "data"} & set(
            names
        )

    def test_what_a_method_does_not_have_is_refused_before_any_work(self, fertool, tmp_path):
        common = ("distill", "t.pt", "--data", "synth", "-o", tmp_path / "o.pt")
        code, _, err = fertool(*common, "--method", "iterative", "--grid", "lr=0.1;beta=1,2")
        assert (code, err.splitlines()[-2]) == (2, "error: --beta 1.0: --method iterative has none")

    def test_flags_win_over_a_recipe_between_seed_and_seeds(self, fertool, tmp_path, monkeypatch):
        planned = []

        def remember(*inputs, seeds, grid, **settings):
            planned.append((seeds, grid))
            raise ZeroDivisionError

        monkeypatch.setattr("fertool.workflows.sweep.sweep", remember)
        (tmp_path / "one.yaml").write_text("train-teacher: {seed: 7}\n")
        (tmp_path / "many.yaml").write_text(
            "train-teacher: {seeds: '0,1', grid: 'lr=0.1,0.2', lr: 0.3}\n"
        )
        for arguments in (
            ("--recipe", tmp_path / "one.yaml", "--seeds", "0,1"),
            ("--recipe", tmp_path / "many.yaml", "--seed", 5),
            ("--recipe", tmp_path / "many.yaml"),
        ):
            with pytest.raises(ZeroDivisionError):
                fertool("train-teacher", "--data", "synth", "-o", tmp_path / "o.pt", *arguments)
        grid = {"lr": (0.1, 0.2)}
        assert planned == [((0, 1), {}), ((5,), grid), ((0, 1), grid)]


def test_a_seed_of_a_sweep_is_the_model_of_that_seed_alone(fertool, tmp_path):
    common = (
        "train-teacher",
        "--data",
        "synth:140",
        "--arch",
        "micro_expnet",
        "--arch-arg",
        "width_mult=0.25",
    )
    common += ("--device", "cpu", "--epochs", 1)
    code, out, err = fertool(
        *common, "-o", tmp_path / "s.pt", "--seeds", "3,4", "--grid", "ema-decay=0,0.5", "--json"
    )
    assert code == 0, err
    found = json.loads(out)["sweep"]["best"]
    options = ("--seed", found["seed"], "--ema-decay", found["options"]["ema-decay"])
    assert fertool(*common, "-o", tmp_path / "one.pt", *options)[0] == 0
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "s.pt").read_bytes()


def test_the_table_and_the_picture_of_a_sweep(fertool, tmp_path):
    pytest.importorskip("matplotlib")
    code, out, err = fertool(
        *("train-teacher", "--data", "synth:140", "--arch", "micro_expnet"),
        *("--arch-arg", "width_mult=0.25", "--epochs", 1, "--grid", "lr=0.01,0.02"),
        *("-o", tmp_path / "s.pt", "--plot", tmp_path / "s.png", "--seeds", "0,1"),
    )
    assert code == 0, err
    assert out == f"{tmp_path / 's.pt'}\n"
    assert "note: training 4 of 4: lr 0.02, seed 1" in err
    assert " ± " in err
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
