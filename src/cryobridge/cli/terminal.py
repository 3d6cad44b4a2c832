"""Talking to the terminal: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryobridge.errors import CryobridgeError
    from cryobridge.progress import Reporter

# Wide enough that nothing is cut where no terminal sets the width.
_PIPED_WIDTH = 140


@dataclass
class Settings:
    """What -q, -v and --debug asked for."""

    quiet: bool = False
    verbose: bool = False
    debug: bool = False


settings = Settings()


def stdout() -> Console:
    """Return the console for results."""
    return _console(sys.stdout)


def stderr() -> Console:
    """Return the console for progress, notes and errors."""
    return _console(sys.stderr)


def _console(stream: Any) -> Console:
    piped = not stream.isatty() and "COLUMNS" not in os.environ
    return Console(file=stream, highlight=False, emoji=False, width=_PIPED_WIDTH if piped else None)


def plain(text: object, style: str = "") -> Text:
    """Return text from a file or a user as it may be shown: no markup, and control characters made visible."""
    shown = "".join(char if char.isprintable() or char in "\n\t" else repr(char)[1:-1] for char in str(text))
    return Text(shown, style=style)


def print_json(data: Any) -> None:
    """Print JSON, and only JSON, on stdout."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def note(message: str) -> None:
    """Tell the user something worth knowing, unless -q."""
    if not settings.quiet:
        stderr().print(plain(message, "dim"))


def warn(message: str) -> None:
    """Tell the user something that may be wrong, unless -q."""
    if not settings.quiet:
        stderr().print(Text("! ", style="yellow").append_text(plain(message, "yellow")), soft_wrap=True)


def show_report(title: str, facts: list[tuple[str, str]]) -> None:
    """Print the closing table of a job on stdout, unless -q."""
    if settings.quiet:
        return
    from rich.table import Table

    table = Table(
        title=title, title_justify="left", title_style="bold", show_header=False, box=None, padding=(0, 2, 0, 0)
    )
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(plain(name), plain(value))
    stdout().print(table)


def show_error(error: CryobridgeError) -> None:
    """Print an error and what to do next."""
    console = stderr()
    console.print(Text("Error: ", style="bold red").append_text(plain(str(error))), soft_wrap=True)
    if error.count is not None and error.count > 1:
        console.print(plain(f"  {error.count:,} in all", "dim"))
    if error.hint:
        console.print(Text("  → ", style="cyan").append_text(plain(error.hint)), soft_wrap=True)


@contextmanager
def progress() -> Iterator[Reporter]:
    """Show a progress bar on stderr while work runs; nothing where there is no terminal, or with -q."""
    from cryobridge.progress import Silent

    console = stderr()
    if settings.quiet or not console.is_terminal:
        yield Silent()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        yield _BarReporter(bar)


class _BarReporter:
    """The Reporter whose steps move a Rich progress bar."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._task: Any = None

    def start(self, what: str, total: int) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(what, total=total)

    def advance(self, steps: int = 1) -> None:
        self._bar.advance(self._task, steps)

    def note(self, message: str) -> None:
        self._bar.console.print(plain(message, "dim"))
