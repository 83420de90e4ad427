"""How a command ends when it does not succeed: one line on stderr and a documented exit code."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperCommand

from tasks.errors import DcdctlError, DiskFullError

INTERRUPTED = 130


class Command(TyperCommand):
    """A command whose errors become one line; `--debug`, anywhere on it, adds the traceback."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take `--debug` out of the arguments, and keep the rest for the line after Ctrl-C."""
        if "--debug" in args:
            ctx.find_root().params["debug"] = True
        ctx.meta["words"] = [arg for arg in args if arg != "--debug"]
        return super().parse_args(ctx, list(ctx.meta["words"]))

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            with _interrupts():
                return super().invoke(ctx)
        except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
            raise
        except KeyboardInterrupt as stop:
            # What was interrupted may know better what to say than the command line does.
            said = str(stop) or interrupted(ctx.command_path, ctx.meta["words"])
            typer.echo(f"\n{said}", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            sentence, code = describe(error)
            if ctx.find_root().params.get("debug"):
                traceback.print_exception(error, file=sys.stderr)
            elif code == DcdctlError.exit_code:
                sentence += "; run again with --debug for the traceback"
            typer.echo(f"{typer.style('error:', fg='red', bold=True)} {sentence}", err=True)
            raise typer.Exit(code) from error


@contextmanager
def _interrupts() -> Iterator[None]:
    """End a command in order at the first Ctrl-C or SIGTERM, and at once at the second."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen = 0

    def stop(number: int, frame: object) -> None:
        nonlocal seen
        seen += 1
        if seen > 1:
            os.write(2, b"\nended at once; what was finished before is saved\n")
            os._exit(INTERRUPTED)
        raise KeyboardInterrupt

    before = {}
    for one in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(one) is not signal.SIG_IGN:
            before[one] = signal.signal(one, stop)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def describe(error: BaseException) -> tuple[str, int]:
    """Return the sentence for a person, and the exit code."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, DcdctlError):
            return str(cause), cause.exit_code
    for cause in causes:
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            place = f" for {cause.filename}" if cause.filename else ""
            return f"no space is left{place}; free some and run again", DiskFullError.exit_code
    first = (str(error).strip() or "no message").splitlines()[0]
    name = type(error).__name__
    return f"unexpected {name}: {first}", DcdctlError.exit_code


def interrupted(command: str, words: list[str]) -> str:
    """Return the line after Ctrl-C: how to go on."""
    if not command.endswith(" sweep"):
        return "interrupted; the same command starts again from the stages that are finished"
    rest = [word for word in words if word not in ("--fresh", "--resume")]
    line = shlex.join([*command.split(), *rest, "--resume"])
    return f"interrupted; what is finished is saved, go on with: {line}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it was raised from; what Ray wrapped comes before the wrapper."""
    one: Any = error
    while isinstance(one, BaseException):
        if isinstance(wrapped := getattr(one, "cause", None), BaseException):
            yield wrapped
        yield one
        one = one.__cause__
