"""The command `cryobridge`: its subcommands, and how every run ends."""

from __future__ import annotations

import gc
import os
import re
import signal
import sys
import time
from typing import Annotated

import typer

from cryobridge.cli.commands import RootGroup
from cryobridge.cli.completion import install_completion, prepare_completion, show_completion
from cryobridge.cli.failure import explained
from cryobridge.cli.terminal import ReaderGoneError, note, prepare_streams, settings, show_error, show_traceback
from cryobridge.errors import UsageError

EXIT_INTERRUPTED = 130
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
        ),
    ] = False,
    script: Annotated[
        bool,
        typer.Option(
            "--show-completion",
            callback=show_completion,
            expose_value=False,
            is_eager=True,
            help="Print the script that does it.",
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line and exit: 0 done, 1 bad data, 2 usage, 3 the answer to a check is no, 130 interrupted."""
    started = time.monotonic()
    prepare_streams()
    prepare_completion()
    code = _run()
    if code == EXIT_INTERRUPTED:
        note("interrupted")
    if settings.verbose:
        note(f"{time.monotonic() - started:.2f} s, at most {_peak_memory_mb():.0f} MB of memory")
    # All is said and done: an interrupt would only make libraries complain while they are put away.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Python would look once more for cycles among all of torch's objects, which takes longer than a small job.
    gc.freeze()
    sys.exit(code)


def _run() -> int:
    try:
        result = app(standalone_mode=False)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "cryobridge"
        show_error(UsageError(_reworded(error.format_message()), hint=f"`{command} -h` shows how it is used."))
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt) as error:
        # An answer that never came (end of input) is no interruption.
        return EXIT_BAD_DATA if isinstance(error.__cause__, EOFError) else EXIT_INTERRUPTED
    except ReaderGoneError:
        # What is still in the buffer must not fail again when Python closes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if _follows_interrupt(error):
            return EXIT_INTERRUPTED
        if settings.debug:
            show_traceback(error)
        problem = explained(error)
        show_error(problem)
        return problem.exit_code
    return result if isinstance(result, int) else 0


def _reworded(message: str) -> str:
    """Say of what is no number just that, not that it is a "valid integer range" or "float"."""
    return re.sub(r"valid (int|integer|float)( range)?\b", lambda found: f"valid {_KINDS[found[1]]}", message)


def _follows_interrupt(error: BaseException | None) -> bool:
    """Whether an error arose while an interrupt was dealt with: torch's writer complains of its unfinished file."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _peak_memory_mb() -> float:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
