"""The fertool command: its subcommands, and the boundary where errors become exit codes."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Annotated, ClassVar, cast

import typer

from fertool import __version__
from fertool.cli import streams
from fertool.cli.allocator import keep_freed_memory
from fertool.cli.commands import CommandGroup, Entry
from fertool.cli.flags import with_flags
from fertool.cli.memory_limit import limit_growth
from fertool.cli.processes import MultiProcessRun, Outcome
from fertool.cli.signals import Stop
from fertool.errors import FertoolError, is_lack_of_memory
from fertool.onnx_runtime import guard_memory, has_running_pass
from fertool.workflows.processes import process_count

_MAKE = "Make a model"
_SHRINK = "Make it smaller and faster"
_USE = "Use it"
_LOOK = "Measure and look"


class _Commands(CommandGroup):
    table: ClassVar = {
        "import": Entry("importing.import_", _MAKE),
        "train-teacher": Entry("train.train_teacher", _MAKE, is_shared=True),
        "distill": Entry("distill.distill", _MAKE, is_shared=True),
        "prune": Entry("prune.prune", _SHRINK, is_shared=True),
        "hessian-sensitivity": Entry("hessian.hessian_sensitivity", _SHRINK),
        "quantize": Entry("quantize.quantize", _SHRINK, is_shared=True),
        "cascade": Entry("cascade.cascade", _SHRINK),
        "export": Entry("export.export", _SHRINK),
        "predict": Entry("predict.predict", _USE),
        "app": Entry("webapp.app", _USE),
        "bench": Entry("bench.bench", _LOOK),
        "eval": Entry("evaluate.evaluate", _LOOK),
        "show": Entry("show.show", _LOOK),
        "report": Entry("report.report", _LOOK),
        "data": Entry("data.app", _LOOK),
    }


app = typer.Typer(
    name="fertool",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start here: fertool train-teacher -o teacher.pt --data synth",
)

# ClickException, wherever this version of Typer keeps it.
_CLICK_ERROR = cast(type[typer.BadParameter], typer.BadParameter.__mro__[2])


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"fertool {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Take a facial-expression model from training to a small device.

    Each command reads model files and writes one file, so that steps compose in shell, Make and CI.
    """
    # The allocator is the whole process's, so that library code leaves it alone. It is of use to
    # the commands that train, which are those that several processes can share.
    entry = _Commands.table.get(context.invoked_subcommand or "")
    if entry is not None and entry.is_shared:
        keep_freed_memory()


def main() -> None:
    """Run the command line.

    Exit codes: 0 done, 1 the work failed, 2 wrong usage, 3 a limit that the user set is missed; 130
    after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
    """
    streams.open_missing()
    streams.forget_useless_size()
    streams.allow_narrow_charsets()
    stop = Stop()
    try:
        # torchrun has its own way of ending the processes of a run; see processes.py.
        with stop.awaited() if process_count() == 1 else nullcontext():
            code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    streams.abandon_broken()
    # A thread in native code would keep the interpreter from ending.
    if has_running_pass():
        _leave_at_once(stop.exit_code or code)
    sys.exit(stop.exit_code or code)


def _leave_at_once(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code.

    Errors become one `error:` and one `hint:` line on stderr.
    """
    if process_count() == 1:
        outcome = _outcome(arguments, nullcontext())
        _print_outcome(outcome)
        return outcome.code
    processes = MultiProcessRun()
    outcome = _outcome(arguments, processes.connected())
    return processes.report(outcome, _print_outcome)


def _outcome(arguments: list[str], context: AbstractContextManager[None]) -> Outcome:
    try:
        with context, guard_memory(limit_growth):
            code = app(arguments, prog_name="fertool", standalone_mode=False)
            streams.flush_stdout()
    except (Exception, KeyboardInterrupt) as error:
        outcome = _failure(error)
        if outcome is None:
            raise
        return outcome
    # Help and --version end with a code of their own.
    return Outcome(code) if isinstance(code, int) else Outcome(0)


def _failure(error: BaseException) -> Outcome | None:
    """Return the outcome of an error that a user can cause, None for a bug."""
    if isinstance(error, FertoolError):
        return Outcome(error.exit_code, with_flags(error.message), with_flags(error.hint))
    if isinstance(error, _CLICK_ERROR):
        return _wrong_usage(error)
    if isinstance(error, KeyboardInterrupt):
        return Outcome(130)
    # Who reads the output has ended, and wants to hear nothing.
    if isinstance(error, BrokenPipeError):
        return Outcome(1)
    if isinstance(error, OSError):
        return _failed_file(error)
    if is_lack_of_memory(error):
        hint = "give smaller images, fewer of them, or a smaller --batch-size"
        return Outcome(1, "not enough memory", hint)
    return None


def _wrong_usage(error: typer.BadParameter) -> Outcome:
    if refusal := _refused_split(error):
        return Outcome(2, with_flags(refusal.message), with_flags(refusal.hint))
    message = error.format_message().replace("Value error, ", "")
    # A group that is called without a subcommand has printed its help.
    if not message:
        return Outcome(2)
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "fertool"
    return Outcome(2, message.rstrip("."), f"see: {path} --help")


def _failed_file(error: OSError) -> Outcome:
    message = str(error.strerror or error)
    if error.filename:
        message = f"{error.filename}: {message}"
    return Outcome(1, message, "check the path, its permissions and the free space")


def _refused_split(error: Exception) -> FertoolError | None:
    # Only an error of an unknown option names one, and the command that it was given to.
    from fertool.config.splits import refused_split

    command = getattr(getattr(error, "ctx", None), "command", None)
    return refused_split(getattr(command, "name", None), getattr(error, "option_name", None))


def _print_outcome(outcome: Outcome) -> None:
    from fertool.report.console import error

    if outcome.message:
        error(outcome.message, outcome.hint)
