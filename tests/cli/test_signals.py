"""However a command is stopped, it takes its children and temporary files along and says no more
than it should.
"""

import os
import signal
import subprocess
import sys
import time

import pytest

from fertool.cli import signals
from fertool.cli.reporting import CONSOLE
from fertool.reporter import noting_resume

COMMAND = (
    "import subprocess, sys, time\n"
    "from fertool.artifact.atomic import temporary_folder\n"
    "from fertool.cli import app\n"
    "def work(arguments):\n"
    "    with temporary_folder():\n"
    "        WORK\n"
    "    return 0\n"
    "app.run = work\n"
    "app.main()\n"
)
CHILD = (
    "subprocess.run([sys.executable, '-c', 'import time; print(1, flush=True); time.sleep(60)'])"
)
NATIVE = "print(1, flush=True); import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 10 ** 9)"


def listen():
    """Undo what nohup, or a shell that starts the tests in its background,
    has set to be ignored.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def start(tmp_path, work, preexec_fn=listen, **options):
    """Start a command of which only the work is replaced; returns when the work has begun."""
    code = COMMAND.replace("WORK", work)
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=preexec_fn,
        **options,
    )
    assert process.stdout.readline() == "1\n"
    return process


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]
)
def test_children_and_temporary_folders_go_with_the_command(tmp_path, number, code):
    process = start(tmp_path, CHILD, start_new_session=True)
    assert os.listdir(tmp_path)
    process.send_signal(number)
    # A child that lived on would hold the pipes open.
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == code
    assert not os.listdir(tmp_path)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_the_exit_code_is_that_of_the_signal_wherever_it_comes(tmp_path):
    process = start(tmp_path, "exec('print(1, flush=True); time.sleep(60)')")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143


@pytest.mark.parametrize("pause_s", [0, 0.02, 0.1])
def test_more_signals_change_nothing(tmp_path, pause_s):
    process = start(tmp_path, "print(1, flush=True); time.sleep(60)")
    for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        process.send_signal(number)
        time.sleep(pause_s)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode in (130, 143)


def test_native_code_that_does_not_listen_ends_too(tmp_path):
    work = f"from fertool.cli import signals; {NATIVE}"
    begin = time.monotonic()
    process = start(tmp_path, work)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert time.monotonic() - begin < 25


def test_a_signal_that_the_parent_ignores_stays_ignored(tmp_path):
    process = start(
        tmp_path,
        "print(1, flush=True); time.sleep(2); print(2)",
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=30) == ("2\n", "")
    assert process.returncode == 0


def test_only_where_there_is_a_state_it_is_said_how_to_go_on(tmp_path, capsys):
    state = tmp_path / "a.pt.resume"
    for states in ([], [state]):
        with pytest.raises(KeyboardInterrupt), noting_resume(CONSOLE, lambda found=states: found):
            raise KeyboardInterrupt
        said = capsys.readouterr().err
        assert said == (f"note: stopped; the same command goes on from {state}\n" if states else "")


def test_the_patience_is_less_than_that_of_who_stops_containers():
    assert signals._PATIENCE_S < 10
