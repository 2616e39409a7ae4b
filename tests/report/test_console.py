from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.table import Table
from rich.text import Text

from fertool.report import console

RECORD = SimpleNamespace(
    epoch=3, train_loss=1.0214, val_loss=1.1, val_accuracy=0.6417, seconds=12.345
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_messages_are_single_whole_lines_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    path = "/data/[bold]run[/bold]/" + "x" * 200 + ".pt"
    console.error(f"{path}: no such\nfile", "check\x1b[31m the path")
    console.warn("noisy [1]")
    console.note("reading")
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [
        f"error: {path}: no such file",
        "hint: check [31m the path",
        "warning: noisy [1]",
        "note: reading",
    ]
    assert captured.out == ""


def test_no_hint_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    console.error("broken")
    assert capsys.readouterr().err == "error: broken\n"


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colour_on_terminals_only_and_not_with_no_color(
    monkeypatch: pytest.MonkeyPatch, no_color: str, coloured: bool
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    console.error("broken")
    assert ("\033[" in terminal.getvalue()) == coloured


def test_epochs_are_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with console.TrainingProgress(30) as progress:
        progress.batch(1, 2)
        progress.epoch(RECORD)
    captured = capsys.readouterr()
    assert captured.err == "epoch 3/30  loss 1.021  acc 0.642  12.3 s\n"
    assert captured.out == ""


def test_epochs_of_a_part_say_of_which(capsys: pytest.CaptureFixture[str]) -> None:
    with console.TrainingProgress(30, "round 2/3") as progress:
        progress.epoch(RECORD)
    assert capsys.readouterr().err == "round 2/3  epoch 3/30  loss 1.021  acc 0.642  12.3 s\n"


def test_the_bar_of_a_terminal_leaves_the_epoch_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with console.TrainingProgress(30) as progress:
        progress.batch(1, 2)
        progress.epoch(RECORD)
    assert "epoch 3/30  loss 1.021  acc 0.642  12.3 s" in terminal.getvalue()
    with console.progress("bench [a]") as on_progress:
        on_progress(1, 2)
        on_progress(2, 2)
    assert "bench [a]" in terminal.getvalue()


def test_progress_elsewhere_is_one_line_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress("bench") as on_progress:
        on_progress(1, 100)
        on_progress(100, 100)
    assert capsys.readouterr().err.startswith("bench  100/100  ")
    with console.progress("nothing to do"):
        pass
    assert capsys.readouterr().err == ""


def test_long_work_elsewhere_says_how_much_time_is_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([100.0, 105.0, 112.0, 112.0, 140.0, 140.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(now))
    with console.progress("calibration") as on_progress:
        on_progress(1, 8)
        on_progress(2, 8)
        on_progress(8, 8)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "calibration  2/8  12.0 s, about 36 s left"
    assert lines[1].startswith("calibration  8/8  ")
    assert "left" not in lines[1]


def test_results_go_to_stdout_in_the_asked_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    table = Table("name")
    table.add_row(Text("a[b] " * 20))
    console.result(table)
    console.result("plain")
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert max(map(len, lines)) <= 40
    assert all(line == line.rstrip() for line in lines)
    assert "a[b]" in captured.out
    assert lines[-1] == "plain"
    assert captured.err == ""


def test_a_stdout_without_the_signs_gets_question_marks() -> None:
    code = "from fertool.report.console import result; result('41 \\u00b5s \\u2500')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "41 ?s ?\n"


def test_messages_need_no_rich() -> None:
    code = (
        "import sys; from fertool.report import console; console.error('a', 'b');"
        " console.note('c');"
        "t = console.TrainingProgress(1); t.__enter__(); t.__exit__(None, None, None);"
        "assert 'rich' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


HOSTILE = "happy\x1b[31m\x9b1m\u202e\udce9\u200b"


def everything_printed(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return captured.out + captured.err


def test_no_door_lets_a_terminal_obey_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("name")
    table.add_row(Text(HOSTILE))
    console.result(table)
    console.story(table)
    console.json_result({HOSTILE: HOSTILE})
    console.path_result(Path(HOSTILE))
    console.error(HOSTILE, HOSTILE)
    with console.progress(HOSTILE) as on_progress:
        on_progress(1, 1)
    with console.TrainingProgress(1, HOSTILE) as progress:
        progress.epoch(RECORD)
    printed = everything_printed(capsys)
    assert printed.count("happy") == 9
    assert printed.replace("\n", " ").isprintable()


def test_a_terminal_shows_colours_but_none_that_a_file_asks_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    table = Table("name", header_style="bold")
    table.add_row(Text(HOSTILE))
    console.result(table)
    assert "\x1b[1m" in terminal.getvalue()
    assert "\x1b[31m" not in terminal.getvalue()
    assert not {"\x9b", "\u202e", "\udce9", "\u200b"} & set(terminal.getvalue())


def test_long_work_says_how_far_it_is_and_short_work_need_say_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "LINE_EVERY_S", 0.0)
    with console.progress("scores", brief=True) as on_progress:
        on_progress(1, 3)
        on_progress(2, 3)
        on_progress(3, 3)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[:2] for line in lines] == [
        ["scores", "1/3"],
        ["scores", "2/3"],
        ["scores", "3/3"],
    ]
    monkeypatch.setattr(console, "LINE_EVERY_S", 100.0)
    with console.progress("scores", brief=True) as on_progress:
        on_progress(1, 3)
        on_progress(3, 3)
    assert everything_printed(capsys) == ""


def test_long_epochs_say_how_far_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "LINE_EVERY_S", 0.0)
    with console.TrainingProgress(30, "round 1/2") as progress:
        progress.batch(1, 2)
        progress.batch(2, 2)
        progress.epoch(RECORD)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[1] for line in lines] == ["batch", "epoch 3/30"]


@pytest.mark.parametrize(
    ("columns", "width"),
    [("abc", 100), ("0", 100), ("-5", 100), ("²", 100), ("3", 20), ("9" * 30, 1000)],
)
def test_a_width_that_is_no_number_of_use_is_not_followed(
    columns: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert console._pipe_width() == width


def test_a_stderr_that_is_full_stops_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            tried.append(text)
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stderr", Full())
    console.note("a")
    console.story("b")
    with console.progress("c") as on_progress:
        on_progress(1, 1)
    assert tried
