"""The command `cryobridge`: its subcommands, and how every run ends."""

from __future__ import annotations

import os
import sys
import time

import typer
from typer._click.exceptions import Abort, ClickException, NoArgsIsHelpError

from cryobridge.cli import coords, demo, inspect, stacks
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
    sys.exit(code)


def _run() -> int:
    try:
        result = app(standalone_mode=False)
    except CryobridgeError as error:
        if settings.debug:
            raise
        show_error(error)
        return error.exit_code
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
        if settings.debug:
            raise
        show_error(
            CryobridgeError(
                f"unexpected: {type(error).__name__}: {error}",
                hint="This is a mistake in cryobridge. Run the command again with --debug and report what it prints.",
            )
        )
        return EXIT_BAD_DATA
    return result if isinstance(result, int) else 0


def _peak_memory_mb() -> float:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
