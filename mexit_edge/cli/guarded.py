"""How a command ends: honest exit codes, and a message on standard error in place of a traceback."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, NoReturn

import typer

from mexit_edge.errors import InputError

EXIT_FAILED, EXIT_INPUT, EXIT_INTERRUPTED = 1, 2, 130
EXIT_CODES = (
    f"Exit codes: 0 done, {EXIT_FAILED} failed at run time, {EXIT_INPUT} the input is wrong, "
    f"{EXIT_INTERRUPTED} interrupted."
)

Command = Callable[..., None]


def guarded(command: Command) -> Command:
    """Turn what a command raises into a message on standard error and an exit code."""

    @functools.wraps(command)
    def run_guarded(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except InputError as error:
            _stop(f"Error: {error}", EXIT_INPUT)
        except KeyboardInterrupt:
            _stop("Interrupted. What was there before is still whole.", EXIT_INTERRUPTED)
        except typer.Exit:
            raise
        except Exception as error:
            if os.environ.get("MEXIT_DEBUG"):
                raise
            _stop(f"Failed: {type(error).__name__}: {error}\nSet MEXIT_DEBUG=1 for details.", EXIT_FAILED)

    return run_guarded


def _stop(message: str, code: int) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(code)
