"""Options in messages of the library, as the command line shows them."""

import pytest

from fertool.cli.flags import with_flags


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("``epochs=5``: fine-tuning needs data", "--epochs 5: fine-tuning needs data"),
        ("give ``target_flops`` or ``round_to=8``", "give --target-flops or --round-to 8"),
        ("``packed=True``: not with ``simplify=False``", "--packed: not with --no-simplify"),
        ("``mean=0.5,0.5``: 2 values", "--mean 0.5,0.5: 2 values"),
        ("a key of a file: `classes`, x.pt", "a key of a file: `classes`, x.pt"),
    ],
)
def test_options_in_backticks_become_flags(message, shown):
    assert with_flags(message) == shown
