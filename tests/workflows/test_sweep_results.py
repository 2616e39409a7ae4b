"""OUT.seeds.json and OUT.grid.json as a killed sweep left them: other content is refused,
never taken over.
"""

import json
from dataclasses import replace

import pytest
from mutations import mutations

from fertool.errors import FertoolError
from fertool.results import Epoch, TrialResult
from fertool.workflows.sweep_results import SweepFile

EPOCH = Epoch(epoch=1, lr=0.1, train_loss=2.0, val_loss=2.1, val_accuracy=0.5, seconds=1.0)
RESULT = TrialResult(
    options={"lr": 0.1},
    seed=0,
    split="val",
    n=30,
    accuracy=0.5,
    accuracy_ci95=(0.4, 0.6),
    loss=2.1,
    best_epoch=1,
    epochs=1,
    seconds=1.0,
    digest="ab",
    fingerprint="cd",
    history=(EPOCH,),
)
WANTED = {"cd": {"lr": 0.1}}


def sweep_file(tmp_path):
    return SweepFile(tmp_path / "o.pt.grid.json", tmp_path / "o.pt", {"lr": (0.1,)}, (0,))


def test_a_result_comes_back_as_it_was(tmp_path):
    sweep_file(tmp_path).add(RESULT)
    again = sweep_file(tmp_path)
    again.resume(WANTED)
    assert again.trials == [RESULT]


def test_every_wrong_value_is_refused_or_can_be_gone_on_from(tmp_path):
    first = sweep_file(tmp_path)
    first.add(RESULT)
    content, refused = json.loads(first.path.read_text()), 0
    for what, changed in list(mutations(content))[::3]:
        first.path.write_text(json.dumps(changed))
        again = sweep_file(tmp_path)
        message = message_of(again)
        if message:
            refused += 1
            assert message.startswith(f"{first.path}: the rows of a killed run, but "), what
        elif again.trials:
            json.dumps(again.results.as_dict(), allow_nan=False)
    assert refused > 100


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 50_000])
def test_what_is_no_json_is_refused(tmp_path, content):
    one = sweep_file(tmp_path)
    one.path.write_bytes(content)
    assert "not readable" in message_of(one)


def test_a_round_is_in_the_json_of_an_epoch_only_where_there_are_several():
    keys = ["epoch", "lr", "train_loss", "val_loss", "val_accuracy", "seconds"]
    assert list(EPOCH.as_dict()) == keys
    assert list(replace(EPOCH, round=1, phase="round 1/2").as_dict()) == ["round", "phase", *keys]


def test_a_training_of_another_grid_is_taken_over_with_the_options_of_this_one(tmp_path):
    first = sweep_file(tmp_path)
    first.finished = True
    first.add(RESULT)
    wider = replace(first, axes={"lr": (0.1,), "ema-decay": (0.0, 0.9)}, trials=[])
    wider.resume({"cd": {"lr": 0.1, "ema-decay": 0.0}})
    assert [trial.options for trial in wider.trials] == [{"lr": 0.1, "ema-decay": 0.0}]
    wider.write()


def message_of(one):
    try:
        one.resume(WANTED)
    except FertoolError as error:
        return error.message
    return ""
