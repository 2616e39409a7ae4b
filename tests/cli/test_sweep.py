import json
import os
import statistics
from dataclasses import replace
from zlib import crc32

import pytest
import torch

from fertool import distributed, models
from fertool.cli.options import TrainingOptions
from fertool.cli.provenance import make_step
from fertool.cli.sweep import Sweep, Trained
from fertool.cli.training import TrainingRun, options_of, write_history
from fertool.config.option import with_values
from fertool.config.training import TrainConfig
from fertool.spec import InputSpec, Metrics

TRAINING = TrainingOptions(TrainConfig(epochs=2))
ACCURACIES = {0: 0.5, 1: 0.7, 2: 0.6}


class Killed(BaseException):
    pass


class Trainer:
    """Trains in no time: weights that follow from the options, an accuracy from a table, two epochs."""

    def __init__(self, accuracy, training=TRAINING):
        self.accuracy, self.training, self.trained = accuracy, training, []
        self.kill_at = None

    def describe(self, trial):
        return make_step("train-teacher", options_of(trial.of(self.training)), trial.seed, data="d")

    def train(self, trial):
        if len(self.trained) == self.kill_at:
            raise Killed
        self.trained.append((dict(trial.options), trial.seed))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(crc32(repr(trial.of(self.training)).encode()) + trial.seed)
            spec, module = models.create(
                "micro_expnet", {"width_mult": 0.25}, InputSpec(), ("happy", "sad")
            )
        accuracy = self.accuracy(trial)
        history = [
            {
                "epoch": k,
                "lr": 0.1,
                "train_loss": 1.0,
                "val_loss": 2 - a,
                "val_accuracy": a,
                "seconds": 1.5,
            }
            for k, a in ((1, accuracy), (2, accuracy / 2))
        ]
        write_history(trial.output, history)
        spec = replace(
            spec, metrics=Metrics("val", 100, accuracy, (accuracy - 0.1, accuracy + 0.1), accuracy)
        )
        run = TrainingRun(None, None, trial.of(self.training), trial.output, trial.seed, "cpu")
        return Trained(run, spec, module, history)

    def carry_out(self, sweep, json=False, **training):
        sweep.carry_out(self.describe, self.train, replace(self.training, **training), json)


@pytest.fixture
def by_seed():
    return Trainer(lambda trial: ACCURACIES[trial.seed])


def alone(trainer, sweep, number, path):
    """The bytes that one trial's training gives without any sweep."""
    trial = replace(sweep.trials[number], output=path)
    run, spec, module, history = trainer.train(trial)
    run.save(spec, module, trainer.describe(trial), history)
    return path.read_bytes()


def over_seeds(folder, *seeds):
    return Sweep(folder / "s.pt", {}, seeds, single=False)


def over_grid(folder, *seeds, **axes):
    return Sweep(folder / "s.pt", axes, seeds or (0,), single=False)


def rows(sweep):
    return json.loads(sweep.path.read_text())


class TestSeeds:
    def test_all_rows_the_mean_and_the_best_model(self, by_seed, tmp_path, capsys):
        sweep = over_seeds(tmp_path, 0, 1, 2)
        by_seed.carry_out(sweep, json=True)
        captured = capsys.readouterr()
        printed = json.loads(captured.out)
        assert [
            (row["seed"], row["accuracy"], row["best_epoch"]) for row in printed["sweep"]["rows"]
        ] == [
            (1, 0.7, 1),
            (2, 0.6, 1),
            (0, 0.5, 1),
        ]
        (point,) = printed["sweep"]["points"]
        assert point["accuracy_mean"] == pytest.approx(0.6)
        assert point["accuracy_sd"] == pytest.approx(statistics.stdev(ACCURACIES.values()))
        assert (point["seeds"], point["n"]) == ([0, 1, 2], 100)
        assert "60.00 ± 10.00 %" in captured.err
        assert printed["metrics"]["accuracy"] == 0.7
        models_written = ["s.pt", "s.seed0.pt", "s.seed1.pt", "s.seed2.pt"]
        histories = [f"{name}.history.json" for name in models_written]
        assert sorted(os.listdir(tmp_path)) == sorted(
            [*models_written, *histories, "s.pt.seeds.json"]
        )
        assert (tmp_path / "s.pt").read_bytes() == (tmp_path / "s.seed1.pt").read_bytes()
        assert (tmp_path / "s.pt").read_bytes() == alone(by_seed, sweep, 1, tmp_path / "alone.pt")
        assert (
            json.loads((tmp_path / "s.pt.history.json").read_text())["history"][0]["val_accuracy"]
            == 0.7
        )

    @pytest.mark.parametrize("kill_at", [0, 1, 2])
    def test_a_killed_run_trains_no_finished_seed_again(self, by_seed, tmp_path, kill_at):
        sweep = over_seeds(tmp_path, 0, 1, 2)
        by_seed.kill_at = kill_at
        with pytest.raises(Killed):
            by_seed.carry_out(sweep)
        assert not (tmp_path / "s.pt").exists()
        before = {path.name: path.read_bytes() for path in tmp_path.glob("s.seed*.pt")}
        assert len(before) == kill_at
        by_seed.kill_at = None
        by_seed.carry_out(sweep)
        assert [seed for _, seed in by_seed.trained] == [0, 1, 2]
        assert all((tmp_path / name).read_bytes() == content for name, content in before.items())
        assert (tmp_path / "s.pt").read_bytes() == alone(by_seed, sweep, 1, tmp_path / "alone.pt")
        assert rows(sweep)["finished"]

    def test_more_seeds_keep_the_rows_that_are_there(self, by_seed, tmp_path):
        by_seed.carry_out(over_seeds(tmp_path, 0, 1))
        by_seed.carry_out(over_seeds(tmp_path, 0, 1, 2))
        assert [seed for _, seed in by_seed.trained] == [0, 1, 2]

    def test_no_resume_trains_all_again(self, by_seed, tmp_path):
        by_seed.carry_out(over_seeds(tmp_path, 0, 1))
        by_seed.carry_out(over_seeds(tmp_path, 0, 1), resume=False)
        assert [seed for _, seed in by_seed.trained] == [0, 1, 0, 1]

    def test_the_output_is_made_again_when_it_is_gone(self, by_seed, tmp_path):
        sweep = over_seeds(tmp_path, 0, 1)
        by_seed.carry_out(sweep)
        content = (tmp_path / "s.pt").read_bytes()
        (tmp_path / "s.pt").unlink()
        by_seed.carry_out(sweep)
        assert len(by_seed.trained) == 2
        (tmp_path / "s.pt").unlink()
        (tmp_path / "s.seed1.pt").write_bytes(content[:-9])
        by_seed.carry_out(sweep)
        assert [seed for _, seed in by_seed.trained] == [0, 1, 1]
        assert (tmp_path / "s.pt").read_bytes() == content

    def test_rows_of_another_unfinished_sweep_are_refused_and_of_a_finished_one_replaced(
        self, tmp_path
    ):
        from fertool.errors import FertoolError

        first = Trainer(lambda trial: 0.5)
        first.kill_at = 1
        with pytest.raises(Killed):
            first.carry_out(over_seeds(tmp_path, 0, 1))
        other = Trainer(lambda trial: 0.5, with_values(TRAINING, {"lr": 0.5}))
        with pytest.raises(FertoolError, match=r"s.pt.seeds.json: .* other options") as error:
            other.carry_out(over_seeds(tmp_path, 0, 1))
        assert "--no-resume" in error.value.hint
        first.kill_at = None
        first.carry_out(over_seeds(tmp_path, 0, 1))
        other.carry_out(over_seeds(tmp_path, 0, 1))
        assert len(other.trained) == 2
        assert len(rows(over_seeds(tmp_path, 0, 1))["rows"]) == 2

    def test_a_damaged_list_of_rows_is_refused(self, by_seed, tmp_path):
        from fertool.errors import FertoolError

        (tmp_path / "s.pt.seeds.json").write_text('{"rows": [')
        with pytest.raises(FertoolError, match="not readable"):
            by_seed.carry_out(over_seeds(tmp_path, 0, 1))


class TestGrid:
    @staticmethod
    def trainer():
        return Trainer(
            lambda trial: round(0.9 - 100 * abs(trial.options["lr"] - 0.002) - 0.1 * trial.seed, 6)
        )

    def test_every_combination_has_a_row_and_the_best_one_is_kept(self, tmp_path, capsys):
        trainer, sweep = (
            self.trainer(),
            over_grid(tmp_path, lr=(0.001, 0.002, 0.003), optimizer=("sgd", "adam")),
        )
        trainer.carry_out(sweep)
        captured = capsys.readouterr()
        assert captured.out == f"{tmp_path / 's.pt'}\n"
        assert len(trainer.trained) == len(rows(sweep)["rows"]) == 6
        assert rows(sweep)["best"] == {"options": {"lr": 0.002, "optimizer": "sgd"}, "seed": 0}
        assert sorted(os.listdir(tmp_path)) == ["s.pt", "s.pt.grid.json", "s.pt.history.json"]
        assert (tmp_path / "s.pt").read_bytes() == alone(trainer, sweep, 2, tmp_path / "alone.pt")
        lines = [line.split() for line in captured.err.splitlines()]
        assert [line[2] for line in lines if line[:2] == ["0.002", "sgd"]] == ["90.0"]
        shown = [line[2] for line in lines if len(line) > 4 and line[1] in {"sgd", "adam"}]
        assert shown == sorted(shown, reverse=True)
        assert len(shown) == 6

    def test_the_step_of_the_best_model_names_the_options_that_made_it(self, tmp_path):
        trainer = self.trainer()
        trainer.carry_out(over_grid(tmp_path, lr=(0.001, 0.002)))
        spec, _ = models.load_model(tmp_path / "s.pt")
        assert spec.provenance[-1].options == {**options_of(TRAINING), "lr": 0.002}

    @pytest.mark.parametrize("kill_at", [1, 3])
    def test_a_killed_grid_goes_on(self, tmp_path, kill_at):
        trainer, sweep = self.trainer(), over_grid(tmp_path, lr=(0.003, 0.002, 0.001, 0.004))
        trainer.kill_at = kill_at
        with pytest.raises(Killed):
            trainer.carry_out(sweep)
        # Of the finished ones only the best is kept.
        assert len(list(tmp_path.glob("*.pt"))) == 1
        trainer.kill_at = None
        trainer.carry_out(sweep)
        assert [options["lr"] for options, _ in trainer.trained] == [0.003, 0.002, 0.001, 0.004]
        assert rows(sweep)["best"]["options"] == {"lr": 0.002}

    def test_a_grid_that_grows_trains_what_is_new(self, tmp_path):
        trainer = self.trainer()
        trainer.carry_out(over_grid(tmp_path, lr=(0.001, 0.002)))
        content = (tmp_path / "s.pt").read_bytes()
        trainer.carry_out(over_grid(tmp_path, lr=(0.001, 0.002, 0.003)))
        assert [options["lr"] for options, _ in trainer.trained] == [0.001, 0.002, 0.003]
        assert (tmp_path / "s.pt").read_bytes() == content

    def test_the_mean_over_the_seeds_decides(self, tmp_path):
        # The single best training belongs to the combination with the lower mean.
        table = {(0.1, 0): 0.9, (0.1, 1): 0.1, (0.2, 0): 0.6, (0.2, 1): 0.7}
        trainer = Trainer(lambda trial: table[trial.options["ema-decay"], trial.seed])
        sweep = over_grid(tmp_path, 0, 1, **{"ema-decay": (0.1, 0.2)})
        trainer.carry_out(sweep)
        assert rows(sweep)["best"] == {"options": {"ema-decay": 0.2}, "seed": 1}
        assert [point["accuracy_mean"] for point in rows(sweep)["points"]] == pytest.approx(
            [0.65, 0.5]
        )
        assert sorted(path.name for path in tmp_path.glob("*.pt")) == [
            "s.ema-decay-0.2.seed0.pt",
            "s.ema-decay-0.2.seed1.pt",
            "s.pt",
        ]

    @pytest.mark.parametrize(
        "axes",
        [{}, {"lr": (0.001, 0.002)}, {"lr": (0.001, 0.002), "ema-decay": (0.1, 0.2)}],
        ids=len,
    )
    def test_plots(self, tmp_path, axes):
        pytest.importorskip("matplotlib")
        trainer = Trainer(lambda trial: 0.1 * (1 + trial.seed))
        sweep = Sweep(tmp_path / "s.pt", axes, (0, 1), single=False)
        trainer.carry_out(sweep, plot=tmp_path / "s.png")
        assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_sweep_there_is_one_training_and_no_list(by_seed, tmp_path, capsys):
    Sweep(tmp_path / "s.pt", {}, (1,), single=True).carry_out(
        by_seed.describe, by_seed.train, TRAINING, True
    )
    assert sorted(os.listdir(tmp_path)) == ["s.pt", "s.pt.history.json"]
    assert "sweep" not in json.loads(capsys.readouterr().out)


def test_no_file_of_a_sweep_replaces_an_input(tmp_path):
    from fertool.errors import FertoolError

    teacher = tmp_path / "s.seed1.pt"
    teacher.write_text("")
    with pytest.raises(FertoolError, match="also an input"):
        over_seeds(tmp_path, 0, 1).require_outputs(TRAINING, teacher)


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--grid", "learning-rate=1"], "unknown option in --grid 'learning-rate'"),
            (["--grid", "lr=0.1;weight-deca=0"], "unknown option in --grid 'weight-deca'"),
            (["--grid", "ema-decay=-1"], "'--ema-decay'"),
            (["--grid", "lr=fast"], "'--lr'"),
            (["--grid", "optimizer=sgd,adm"], "'--optimizer'"),
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
        monkeypatch.setattr(
            Sweep, "require_outputs", lambda sweep, *_: planned.append(sweep) or 1 / 0
        )
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
        assert [sweep.seeds for sweep in planned] == [(0, 1), (5,), (0, 1)]
        assert [dict(sweep.axes) for sweep in planned] == [
            {},
            {"lr": (0.1, 0.2)},
            {"lr": (0.1, 0.2)},
        ]


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


def test_other_processes_train_what_the_first_one_still_has_to_train_and_write_nothing(
    by_seed, tmp_path, monkeypatch
):
    first, other, told = (
        over_seeds(tmp_path / "first", 0, 1, 2),
        over_seeds(tmp_path / "other", 0, 1, 2),
        [],
    )
    for sweep in (first, other):
        sweep.output.parent.mkdir()
    by_seed.kill_at = 1
    with pytest.raises(Killed):
        by_seed.carry_out(first)

    again, follower = Trainer(by_seed.accuracy), Trainer(by_seed.accuracy)
    monkeypatch.setattr(
        distributed, "broadcast_scalars", lambda numbers: told.append(numbers) or numbers
    )
    again.carry_out(first)
    monkeypatch.setattr(distributed, "broadcast_scalars", lambda numbers: told.pop(0))
    monkeypatch.setattr(distributed, "is_main_process", lambda: False)
    follower.carry_out(other)
    assert follower.trained == again.trained == [({}, 1), ({}, 2)]
    assert not told
    assert not list(other.output.parent.glob("*.pt"))
    assert not other.path.exists()
