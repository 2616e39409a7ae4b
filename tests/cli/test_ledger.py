"""OUT.seeds.json and OUT.grid.json as a killed sweep left them: other content is refused, never taken over."""

import json

import pytest
from mutations import mutations

from fertool.cli.ledger import Ledger, Row
from fertool.errors import FertoolError

EPOCH = {
    "epoch": 1,
    "lr": 0.1,
    "train_loss": 2.0,
    "val_loss": 2.1,
    "val_accuracy": 0.5,
    "seconds": 1.0,
}
ROW = Row({"lr": 0.1}, 0, "val", 30, 0.5, (0.4, 0.6), 2.1, 1, 1, 1.0, "ab", "cd", [EPOCH])


def ledger(tmp_path):
    return Ledger(tmp_path / "o.pt.grid.json", tmp_path / "o.pt", {"lr": (0.1,)}, (0,))


def test_a_row_comes_back_as_it_was(tmp_path):
    ledger(tmp_path).add(ROW)
    again = ledger(tmp_path)
    again.resume({"cd"})
    assert again.rows == [ROW]


def test_every_wrong_value_is_refused_or_can_be_gone_on_from(tmp_path):
    first = ledger(tmp_path)
    first.add(ROW)
    content, refused = json.loads(first.path.read_text()), 0
    for what, changed in list(mutations(content))[::3]:
        first.path.write_text(json.dumps(changed))
        again = ledger(tmp_path)
        message = message_of(again)
        if message:
            refused += 1
            assert message.startswith(f"{first.path}: the rows of a killed run, but "), what
        elif again.rows:
            json.dumps(again.as_json(histories=True), allow_nan=False)
    assert refused > 100


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 50_000])
def test_what_is_no_json_is_refused(tmp_path, content):
    one = ledger(tmp_path)
    one.path.write_bytes(content)
    assert "not readable" in message_of(one)


def message_of(one):
    try:
        one.resume({"cd"})
    except FertoolError as error:
        return error.message
    return ""
