import json
import os
import statistics
from dataclasses import replace
from zlib import crc32

import pytest
import torch

from fertool import distributed, models
from fertool.config.option import with_values
from fertool.config.sweep import with_options
from fertool.config.training import TrainConfig
from fertool.errors import FertoolError, UsageError
from fertool.reporter import SILENT
from fertool.results import Epoch
from fertool.spec import InputSpec, Metrics
from fertool.workflows.data import open_data
from fertool.workflows.distill import distill
from fertool.workflows.model import Model
from fertool.workflows.outputs import write_history
from fertool.workflows.provenance import make_step, recorded_options
from fertool.workflows.sweep import SweepPlan, join_trials, run_trials, sweep
from fertool.workflows.train import train
from fertool.workflows.training_run import TrainingRun
from fertool.workflows.training_task import PreparedTraining, Trained

TRAINING = TrainConfig(epochs=2)
ACCURACIES = {0: 0.5, 1: 0.7, 2: 0.6}


class Killed(BaseException):
    pass


class Trainer:
    """Trains in no time: weights that follow from the options, an accuracy from a table,
    two epochs.
    """

    def __init__(self, accuracy, training=TRAINING):
        self.accuracy, self.training, self.trained = accuracy, training, []
        self.kill_at = None

    def prepare(self, trial):
        options = recorded_options(with_options(self.training, trial.options))
        step = make_step("train-teacher", options, trial.seed, data="d")
        return PreparedTraining(step, lambda: self.fit(trial))

    def fit(self, trial):
        if len(self.trained) == self.kill_at:
            raise Killed
        self.trained.append((dict(trial.options), trial.seed))
        training = with_options(self.training, trial.options)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(crc32(repr(training).encode()) + trial.seed)
            spec, module = models.create(
                "micro_expnet", {"width_mult": 0.25}, InputSpec(), ("happy", "sad")
            )
        accuracy = self.accuracy(trial)
        history = [
            Epoch(epoch=k, lr=0.1, train_loss=1.0, val_loss=2 - a, val_accuracy=a, seconds=1.5)
            for k, a in ((1, accuracy), (2, accuracy / 2))
        ]
        write_history(trial.output, history)
        spec = replace(
            spec, metrics=Metrics("val", 100, accuracy, (accuracy - 0.1, accuracy + 0.1), accuracy)
        )
        return Trained(
            TrainingRun(None, None, training, output=trial.output), spec, module, history
        )

    def carry_out(self, plan, resume=True, reporter=SILENT):
        return run_trials(plan, self.prepare, resume=resume, reporter=reporter).results


@pytest.fixture
def by_seed():
    return Trainer(lambda trial: ACCURACIES[trial.seed])


def alone(trainer, plan, number, path):
    """The bytes that one trial's training gives without any sweep."""
    trial = replace(plan.trials[number], output=path)
    prepared = trainer.prepare(trial)
    run, spec, module, history = prepared.fit()
    run.save(Model(spec.with_step(prepared.step), module), history)
    return path.read_bytes()


def over_seeds(folder, *seeds):
    return SweepPlan(folder / "s.pt", {}, seeds)


def over_grid(folder, *seeds, **axes):
    return SweepPlan(folder / "s.pt", axes, seeds or (0,))


def rows(plan):
    return json.loads(plan.path.read_text())


class TestSeeds:
    def test_all_rows_the_mean_and_the_best_model(self, by_seed, tmp_path):
        plan = over_seeds(tmp_path, 0, 1, 2)
        results = by_seed.carry_out(plan)
        assert [(row.seed, row.accuracy, row.best_epoch) for row in results.rows] == [
            (1, 0.7, 1),
            (2, 0.6, 1),
            (0, 0.5, 1),
        ]
        (point,) = results.points
        assert point.accuracy_mean == pytest.approx(0.6)
        assert point.accuracy_sd == pytest.approx(statistics.stdev(ACCURACIES.values()))
        assert (point.seeds, point.n) == ((0, 1, 2), 100)
        models_written = ["s.pt", "s.seed0.pt", "s.seed1.pt", "s.seed2.pt"]
        histories = [f"{name}.history.json" for name in models_written]
        assert sorted(os.listdir(tmp_path)) == sorted(
            [*models_written, *histories, "s.pt.seeds.json"]
        )
        assert (tmp_path / "s.pt").read_bytes() == (tmp_path / "s.seed1.pt").read_bytes()
        assert (tmp_path / "s.pt").read_bytes() == alone(by_seed, plan, 1, tmp_path / "alone.pt")
        assert (
            json.loads((tmp_path / "s.pt.history.json").read_text())["history"][0]["val_accuracy"]
            == 0.7
        )

    @pytest.mark.parametrize("kill_at", [0, 1, 2])
    def test_a_killed_run_trains_no_finished_seed_again(self, by_seed, tmp_path, kill_at):
        plan = over_seeds(tmp_path, 0, 1, 2)
        by_seed.kill_at = kill_at
        with pytest.raises(Killed):
            by_seed.carry_out(plan)
        assert not (tmp_path / "s.pt").exists()
        before = {path.name: path.read_bytes() for path in tmp_path.glob("s.seed*.pt")}
        assert len(before) == kill_at
        by_seed.kill_at = None
        by_seed.carry_out(plan)
        assert [seed for _, seed in by_seed.trained] == [0, 1, 2]
        assert all((tmp_path / name).read_bytes() == content for name, content in before.items())
        assert (tmp_path / "s.pt").read_bytes() == alone(by_seed, plan, 1, tmp_path / "alone.pt")
        assert rows(plan)["finished"]

    def test_more_seeds_keep_the_rows_that_are_there(self, by_seed, tmp_path):
        by_seed.carry_out(over_seeds(tmp_path, 0, 1))
        by_seed.carry_out(over_seeds(tmp_path, 0, 1, 2))
        assert [seed for _, seed in by_seed.trained] == [0, 1, 2]

    def test_no_resume_trains_all_again(self, by_seed, tmp_path):
        by_seed.carry_out(over_seeds(tmp_path, 0, 1))
        by_seed.carry_out(over_seeds(tmp_path, 0, 1), resume=False)
        assert [seed for _, seed in by_seed.trained] == [0, 1, 0, 1]

    def test_the_output_is_made_again_when_it_is_gone(self, by_seed, tmp_path):
        plan = over_seeds(tmp_path, 0, 1)
        by_seed.carry_out(plan)
        content = (tmp_path / "s.pt").read_bytes()
        (tmp_path / "s.pt").unlink()
        by_seed.carry_out(plan)
        assert len(by_seed.trained) == 2
        (tmp_path / "s.pt").unlink()
        (tmp_path / "s.seed1.pt").write_bytes(content[:-9])
        by_seed.carry_out(plan)
        assert [seed for _, seed in by_seed.trained] == [0, 1, 1]
        assert (tmp_path / "s.pt").read_bytes() == content

    def test_rows_of_another_unfinished_sweep_are_refused_and_of_a_finished_one_replaced(
        self, tmp_path
    ):
        first = Trainer(lambda trial: 0.5)
        first.kill_at = 1
        with pytest.raises(Killed):
            first.carry_out(over_seeds(tmp_path, 0, 1))
        other = Trainer(lambda trial: 0.5, with_values(TRAINING, {"lr": 0.5}))
        with pytest.raises(FertoolError, match=r"s.pt.seeds.json: .* other options") as error:
            other.carry_out(over_seeds(tmp_path, 0, 1))
        assert "resume=False" in error.value.hint
        first.kill_at = None
        first.carry_out(over_seeds(tmp_path, 0, 1))
        other.carry_out(over_seeds(tmp_path, 0, 1))
        assert len(other.trained) == 2
        assert len(rows(over_seeds(tmp_path, 0, 1))["rows"]) == 2

    def test_a_damaged_list_of_rows_is_refused(self, by_seed, tmp_path):
        (tmp_path / "s.pt.seeds.json").write_text('{"rows": [')
        with pytest.raises(FertoolError, match="not readable"):
            by_seed.carry_out(over_seeds(tmp_path, 0, 1))


class TestGrid:
    @staticmethod
    def trainer():
        return Trainer(
            lambda trial: round(0.9 - 100 * abs(trial.options["lr"] - 0.002) - 0.1 * trial.seed, 6)
        )

    def test_every_combination_has_a_row_and_the_best_one_is_kept(self, tmp_path):
        trainer, plan = (
            self.trainer(),
            over_grid(tmp_path, lr=(0.001, 0.002, 0.003), optimizer=("sgd", "adam")),
        )
        trainer.carry_out(plan)
        assert len(trainer.trained) == len(rows(plan)["rows"]) == 6
        assert rows(plan)["best"] == {"options": {"lr": 0.002, "optimizer": "sgd"}, "seed": 0}
        assert sorted(os.listdir(tmp_path)) == ["s.pt", "s.pt.grid.json", "s.pt.history.json"]
        assert (tmp_path / "s.pt").read_bytes() == alone(trainer, plan, 2, tmp_path / "alone.pt")

    def test_the_step_of_the_best_model_names_the_options_that_made_it(self, tmp_path):
        trainer = self.trainer()
        trainer.carry_out(over_grid(tmp_path, lr=(0.001, 0.002)))
        spec, _ = models.load_model(tmp_path / "s.pt")
        assert spec.provenance[-1].options == {**recorded_options(TRAINING), "lr": 0.002}

    @pytest.mark.parametrize("kill_at", [1, 3])
    def test_a_killed_grid_goes_on(self, tmp_path, kill_at):
        trainer, plan = self.trainer(), over_grid(tmp_path, lr=(0.003, 0.002, 0.001, 0.004))
        trainer.kill_at = kill_at
        with pytest.raises(Killed):
            trainer.carry_out(plan)
        # Of the finished ones only the best is kept.
        assert len(list(tmp_path.glob("*.pt"))) == 1
        trainer.kill_at = None
        trainer.carry_out(plan)
        assert [options["lr"] for options, _ in trainer.trained] == [0.003, 0.002, 0.001, 0.004]
        assert rows(plan)["best"]["options"] == {"lr": 0.002}

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
        plan = over_grid(tmp_path, 0, 1, **{"ema-decay": (0.1, 0.2)})
        trainer.carry_out(plan)
        assert rows(plan)["best"] == {"options": {"ema-decay": 0.2}, "seed": 1}
        assert [point["accuracy_mean"] for point in rows(plan)["points"]] == pytest.approx(
            [0.65, 0.5]
        )
        assert sorted(path.name for path in tmp_path.glob("*.pt")) == [
            "s.ema-decay-0.2.seed0.pt",
            "s.ema-decay-0.2.seed1.pt",
            "s.pt",
        ]


def test_no_file_of_a_sweep_replaces_an_input(tmp_path):
    teacher = tmp_path / "s.seed1.pt"
    teacher.write_text("")
    with pytest.raises(FertoolError, match="also an input"):
        over_seeds(tmp_path, 0, 1).require_outputs([teacher])


def test_other_processes_train_what_the_first_one_still_has_to_train_and_write_nothing(
    by_seed, tmp_path, monkeypatch
):
    first, other, told = (
        over_seeds(tmp_path / "first", 0, 1, 2),
        over_seeds(tmp_path / "other", 0, 1, 2),
        [],
    )
    for plan in (first, other):
        plan.output.parent.mkdir()
    by_seed.kill_at = 1
    with pytest.raises(Killed):
        by_seed.carry_out(first)

    again, follower = Trainer(by_seed.accuracy), Trainer(by_seed.accuracy)
    monkeypatch.setattr(
        distributed,
        "broadcast_scalars",
        lambda numbers: told.append(numbers) or numbers,  # type: ignore[func-returns-value]
    )
    again.carry_out(first)
    told.append([-1])
    monkeypatch.setattr(distributed, "broadcast_scalars", lambda numbers: told.pop(0))
    join_trials(other, follower.prepare)
    assert follower.trained == again.trained == [({}, 1), ({}, 2)]
    assert not told
    assert not list(other.output.parent.glob("*.pt"))
    assert not other.path.exists()


SMALL = {
    "arch": "micro_expnet",
    "arch_args": {"width_mult": 0.25},
    "epochs": 1,
    "device": "cpu",
}


def test_the_function_gives_the_files_of_the_command(fertool, tmp_path):
    flags = ("--arch", "micro_expnet", "--arch-arg", "width_mult=0.25", "--epochs", 1)
    flags += ("--device", "cpu", "--seeds", "3,4", "--grid", "ema-decay=0,0.5")
    code, _, err = fertool(
        "train-teacher", "--data", "synth:140", *flags, "-o", tmp_path / "a" / "s.pt"
    )
    assert code == 0, err
    grid = {"ema_decay": (0, 0.5)}
    found = sweep(
        train,
        open_data("synth:140"),
        seeds=(3, 4),
        grid=grid,
        output=tmp_path / "b" / "s.pt",
        **SMALL,
    )
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == names
    for name in names:
        one, other = ((tmp_path / folder / name).read_bytes() for folder in "ab")
        if name.endswith(".json"):
            one, other = (_without_times(json.loads(content)) for content in (one, other))
        assert one == other, name
    assert found.path == tmp_path / "b" / "s.pt"
    assert len(found.trials) == 4
    assert found.summaries[0].options == found.results.best.options


def _without_times(value):
    if isinstance(value, dict):
        return {key: _without_times(part) for key, part in value.items() if key != "seconds"}
    return [_without_times(part) for part in value] if isinstance(value, list) else value


def test_a_sweep_in_memory_writes_nothing_and_its_model_is_that_of_its_seed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = open_data("synth:140")
    found = sweep(train, data, seeds=(3, 4), **SMALL)
    alone = train(data, seed=found.results.best.seed, **SMALL)
    assert found.path is None
    assert found.spec == alone.spec
    assert os.listdir() == []
    student = sweep(distill, found, data, grid={"alpha": [0.5]}, **SMALL)
    assert student.lineage[-1].inputs["teacher.0"] == found.spec.digest
    assert student.lineage[-1].options["alpha"] == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "neither ``seeds`` nor ``grid``"),
        ({"seeds": [1, 1]}, "``seeds=1,1``"),
        ({"grid": {"learning_rate": [1]}}, "unknown option in ``grid`` 'learning-rate'"),
        ({"grid": {"lr": []}}, "``grid=lr=``: no value"),
        ({"grid": {"lr": [0.1, 0.1]}}, "``grid=lr=0.1,0.1``"),
        ({"grid": {"seed": [1, 2]}}, "a seed is no axis"),
        ({"grid": {"arch": ["resnet18"]}}, "unknown option in ``grid`` 'arch'"),
        ({"grid": {"lr": [-1]}}, "``lr=-1.0``: must be above 0"),
        ({"grid": {"lr": [1]}, "epoch": 1}, "unknown option 'epoch'"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_before_any_work(options, message):
    with pytest.raises(UsageError) as error:
        sweep(train, open_data("synth:140"), **options)
    assert error.value.message.startswith(message) or message in error.value.message


def test_other_functions_are_not_repeated():
    with pytest.raises(UsageError, match=r"sweep\(print\): repeats train and distill only"):
        sweep(print, seeds=[1])
