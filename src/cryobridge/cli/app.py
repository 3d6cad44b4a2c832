"""The command `cryobridge`: its subcommands, and how every run ends."""

from __future__ import annotations

import gc
import os
import re
import sys
import time
from typing import Annotated

import typer

from cryobridge.cli.commands import RootGroup
from cryobridge.cli.completion import install_completion, prepare_completion, show_completion
from cryobridge.cli.examples import page_path
from cryobridge.cli.failure import explained
from cryobridge.cli.interrupts import CTRL_C, exit_code, ignore_signals, raise_interrupts, words
from cryobridge.cli.limits import check_limits
from cryobridge.cli.terminal import (
    ReaderGoneError,
    has_warned,
    note,
    prepare_streams,
    settings,
    show_error,
    show_traceback,
)
from cryobridge.errors import UsageError, is_interrupt

EXIT_BAD_DATA = 1
_KINDS = {"int": "integer", "integer": "integer", "float": "number"}

app = typer.Typer(
    cls=RootGroup,
    help="Carry cryo-EM particles between cryoSPARC, RELION, CryoLike and RECOVAR/cryoDRGN.",
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root(
    install: Annotated[
        bool,
        typer.Option(
            "--install-completion",
            callback=install_completion,
            expose_value=False,
            is_eager=True,
            help="Set up Tab completion for this shell.",
            rich_help_panel="Tab completion",
        ),
    ] = False,
    script: Annotated[
        bool,
        typer.Option(
            "--show-completion",
            callback=show_completion,
            expose_value=False,
            is_eager=True,
            help="Print the script that does it, to set it up by hand.",
            rich_help_panel="Tab completion",
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line and exit.

    0 done, 1 bad data, 2 usage, 3 the answer to a check is no, 130 interrupted (143 by SIGTERM, 129 by SIGHUP).
    """
    raise_interrupts()
    started = time.monotonic()
    try:
        try:
            check_limits()
            code = _run()
        finally:
            # All is said and done: an interrupt would only make libraries complain while they are put away.
            ignore_signals()
    except KeyboardInterrupt:  # also one that came just before signals were ignored
        ignore_signals()
        code = exit_code()
    if code == exit_code():
        _say_last(words())
    if settings.verbose:
        if has_warned():
            note(f"what warnings mean: {page_path('troubleshooting.md')}")
        note(f"{time.monotonic() - started:.2f} s, at most {_peak_memory_mb():.0f} MB of memory")
    # Python would look once more for cycles among all of torch's objects, which takes longer than a small job.
    gc.freeze()
    sys.exit(code)


def _run() -> int:
    prepare_streams()
    prepare_completion()
    try:
        result = app(standalone_mode=False)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "cryobridge"
        show_error(UsageError(_reworded(error.format_message()), hint=f"`{command} -h` shows how it is used."))
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt) as error:
        # An answer that never came (end of input) is no interruption.
        return EXIT_BAD_DATA if isinstance(error.__cause__, EOFError) else exit_code()
    except ReaderGoneError:
        # What is still in the buffer must not fail again when Python closes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if is_interrupt(error):  # torch's writer complains of its unfinished file
            return exit_code()
        if settings.debug:
            show_traceback(error)
        problem = explained(error)
        show_error(problem)
        return problem.exit_code
    # Typer has this number for every interrupt.
    if result == CTRL_C:
        return exit_code()
    return result if isinstance(result, int) else 0


def _say_last(text: str) -> None:
    try:
        note(text)
        sys.stdout.flush()
    except OSError:  # the terminal is gone; Python must not fail on what it still has for it
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for number in (1, 2):
            os.dup2(nowhere, number)


def _reworded(message: str) -> str:
    """Say of what is no number just that, not that it is a "valid integer range" or "float"."""
    return re.sub(r"valid (int|integer|float)( range)?\b", lambda found: f"valid {_KINDS[found[1]]}", message)


def _peak_memory_mb() -> float:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
