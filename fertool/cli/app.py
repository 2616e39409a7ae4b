"""The fertool command: its subcommands, and the one boundary where errors become messages and exit codes."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Annotated, cast

import typer

from fertool import __version__
from fertool.cli import (
    bench,
    data,
    distill,
    evaluate,
    export,
    hessian,
    importing,
    predict,
    prune,
    quantize,
    report,
    show,
    streams,
    train,
)
from fertool.cli.allocator import keep_freed_memory
from fertool.cli.flags import with_flags
from fertool.cli.memory_limit import limit_growth
from fertool.cli.processes import Crew, Outcome
from fertool.cli.signals import Stop
from fertool.errors import FertoolError
from fertool.onnx_runtime import guard_memory, has_running_pass
from fertool.workflows.processes import process_count

app = typer.Typer(
    name="fertool",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start here: fertool train-teacher -o teacher.pt --data synth",
)
_PANELS = {
    "Make a model": (importing.import_, train.train_teacher, distill.distill),
    "Make it smaller and faster": (
        prune.prune,
        hessian.hessian_sensitivity,
        quantize.quantize,
        export.export,
    ),
    "Use it": (predict.predict,),
    "Measure and look": (bench.bench, evaluate.evaluate, show.show, report.report),
}
for _panel, _commands in _PANELS.items():
    for _command in _commands:
        _name = (
            "eval"
            if _command is evaluate.evaluate
            else _command.__name__.strip("_").replace("_", "-")
        )
        app.command(_name, rich_help_panel=_panel, no_args_is_help=True)(_command)
app.add_typer(data.app, rich_help_panel="Measure and look")
_TRAINING = {"train-teacher", "distill", "prune", "quantize"}
"""The commands that may train."""

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
    # Of the whole process, so that library code leaves it alone.
    if context.invoked_subcommand in _TRAINING:
        keep_freed_memory()


def main() -> None:
    """Run the command line.

    Exit codes: 0 done, 1 the work failed, 2 wrong usage; 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
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
    if has_running_pass():
        _leave_at_once(stop.exit_code or code)
    sys.exit(stop.exit_code or code)


def _leave_at_once(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; errors become one `error:` and one `hint:` line on stderr."""
    if process_count() == 1:
        outcome = _outcome(arguments, nullcontext())
        _tell(outcome)
        return outcome.code
    crew = Crew()
    return crew.report(_outcome(arguments, crew.at_work()), _tell)


def _outcome(arguments: list[str], where: AbstractContextManager[None]) -> Outcome:
    try:
        with where, guard_memory(limit_growth):
            code = app(arguments, prog_name="fertool", standalone_mode=False)
            streams.flush_stdout()
    except FertoolError as error:
        return Outcome(error.exit_code, with_flags(error.message), with_flags(error.hint))
    except _CLICK_ERROR as error:
        if refusal := _refused_split(error):
            return Outcome(2, refusal.message, refusal.hint)
        message = error.format_message()
        if not message:  # a group called without a subcommand has printed its help
            return Outcome(2)
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "fertool"
        return Outcome(2, message.rstrip("."), f"see: {path} --help")
    except KeyboardInterrupt:
        return Outcome(130)
    except BrokenPipeError:
        return Outcome(1)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return Outcome(
            1,
            f"{place}{error.strerror or error}",
            "check the path, its permissions and the free space",
        )
    except (MemoryError, RuntimeError) as error:
        if not _is_lack_of_memory(error):
            raise
        return Outcome(
            1, "not enough memory", "give smaller images, fewer of them, or a smaller --batch-size"
        )
    return Outcome(code if isinstance(code, int) else 0)


def _is_lack_of_memory(error: Exception) -> bool:
    """Tell what Python, torch's allocator and a GPU's raise; torch's own is a plain RuntimeError."""
    said = str(error)
    return (
        isinstance(error, MemoryError) or "can't allocate memory" in said or "out of memory" in said
    )


def _refused_split(error: Exception) -> FertoolError | None:
    from fertool.cli.splits import refused_split

    command = getattr(getattr(error, "ctx", None), "command", None)
    return refused_split(getattr(command, "name", None), getattr(error, "option_name", None))


def _tell(outcome: Outcome) -> None:
    from fertool.report.console import error

    if outcome.message:
        error(outcome.message, outcome.hint)
