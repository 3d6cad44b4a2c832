"""The command `cryobridge`: its subcommands, and how every run ends."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time

import typer
from typer._click.exceptions import Abort, ClickException, NoArgsIsHelpError

from cryobridge.cli import converge, convert, coords, demo, inspect, select, stacks
from cryobridge.cli.common import BridgeCommand, BridgeGroup
from cryobridge.cli.terminal import ReaderGoneError, note, prepare_streams, settings, show_error
from cryobridge.errors import CryobridgeError, UsageError

EXIT_INTERRUPTED = 130
EXIT_BAD_DATA = 1


app = typer.Typer(
    cls=BridgeGroup,
    help="Carry cryo-EM particles between cryoSPARC, RELION, CryoLike and RECOVAR/cryoDRGN.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("inspect", cls=BridgeCommand)(inspect.inspect)
app.command("coords", cls=BridgeCommand)(coords.coords)
app.command("convert", cls=BridgeCommand)(convert.convert)
app.command("converge", cls=BridgeCommand)(converge.converge)
app.command("select", cls=BridgeCommand)(select.select)
app.add_typer(stacks.app, name="stacks")
app.command("demo", cls=BridgeCommand)(demo.demo)


@app.callback()
def _root() -> None:
    pass


def main() -> None:
    """Run the command line and exit: 0 done, 1 bad data, 2 usage, 3 the answer to a check is no, 130 interrupted."""
    started = time.monotonic()
    prepare_streams()
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
    except NoArgsIsHelpError as error:
        return error.exit_code
    except ClickException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "cryobridge"
        show_error(UsageError(error.format_message(), hint=f"`{command} -h` shows how it is used."))
        return error.exit_code
    except (Abort, KeyboardInterrupt) as error:
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
            raise
        explained = _explained(error)
        show_error(explained)
        return explained.exit_code
    return result if isinstance(result, int) else 0


def _follows_interrupt(error: BaseException | None) -> bool:
    """Whether an error arose while an interrupt was dealt with: torch's writer complains of its unfinished file."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _explained(error: Exception) -> CryobridgeError:
    """Return the error with what to do next."""
    if isinstance(error, CryobridgeError):
        return error
    # torch has errors of its own for this, on the GPU and on the CPU.
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or "allocate memory" in str(error):
        return CryobridgeError(f"not enough memory ({error})", hint="Ask for less at a time, or for a smaller grid.")
    # A file or disk that failed in the middle of the work, wherever that was noticed.
    if isinstance(error, OSError) and error.errno is not None:
        return CryobridgeError(
            f"the system reports: {error.strerror}",
            path=None if error.filename is None else os.fsdecode(error.filename),
            hint="Check that the file or folder is still there, that you may use it, and that the disk has space left.",
        )
    return CryobridgeError(
        f"unexpected: {type(error).__name__}: {error}",
        hint="This is a mistake in cryobridge. Run the command again with --debug and report what it prints.",
    )


def _peak_memory_mb() -> float:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
