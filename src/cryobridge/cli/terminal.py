"""Talking to the terminal: results on stdout, everything else on stderr."""

from __future__ import annotations

import io
import json
import shlex
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from threading import Timer
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleDimensions
from rich.markup import escape
from rich.text import Text

from cryobridge.cli.build import flag
from cryobridge.errors import CombinedError, CryobridgeError, shown
from cryobridge.interruption import uninterrupted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import RenderableType

    from cryobridge.progress import LineReporter, Reporter
    from cryobridge.report import Message

# Where there is no terminal nothing is cut or wrapped, whatever COLUMNS says: some shells and test runners export it.
_PIPED_WIDTH = 10_000
# Tables and commands are laid out for this width there, which fits most terminals that they are read in later.
_READABLE_WIDTH = 119
_SHORTEST_PATH = 24
# Work that is done sooner needs no sign that it goes on, loading torch included: on a terminal, and in a log.
PATIENCE_S = 0.5
LINES_AFTER_S = 10.0


@dataclass
class Settings:
    """What -q, -v and --debug asked for."""

    quiet: bool = False
    verbose: bool = False
    debug: bool = False


settings = Settings()
# The sentences of messages that were shown, with their severity.
_said: dict[str, str] = {}
# Of the bar that is shown, if one is: what is printed otherwise would be mixed with it.
_bars: list[Console] = []


class ReaderGoneError(Exception):
    """Whoever reads our output (head, less) has seen enough."""


def prepare_streams() -> None:
    """Make the output streams safe to write to: closed ones swallow, narrow encodings escape what they lack."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, io.StringIO())
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def output_width() -> int:
    """Return how many characters a line of results may have."""
    return _console(sys.stdout).width


def readable_width() -> int:
    """Return how many characters a line of text may have, also where no terminal cuts it."""
    return output_width() if sys.stdout.isatty() else _READABLE_WIDTH


def narrowed(result: RenderableType) -> RenderableType:
    """Return a table or text whose lines fit a terminal, also where there is none."""
    from rich.constrain import Constrain

    return Constrain(result, readable_width())


def shortened(text: str, width: int) -> str:
    """Return a text in which paths are cut in the middle until it fits, the longest first; others stay whole."""
    words = text.split(" ")
    while (excess := len(" ".join(words)) - width) > 0:
        place = max(range(len(words)), key=lambda number: len(words[number]) if "/" in words[number] else 0)
        kept = max(_SHORTEST_PATH, len(words[place]) - excess)
        if "/" not in words[place] or kept >= len(words[place]):
            break
        head = (kept - 1) // 3
        words[place] = f"{words[place][:head]}…{words[place][head + 1 - kept :]}"
    return " ".join(words)


def _stderr() -> Console:
    """Return the console for progress, notes and errors."""
    return _bars[-1] if _bars else _console(sys.stderr)


def _console(stream: Any, file: Any = None) -> Console:
    """Return a console that suits a stream, and writes to it or to another file."""
    is_terminal = stream.isatty()
    width = None if is_terminal else _PIPED_WIDTH
    return Console(file=file or stream, force_terminal=is_terminal or None, highlight=False, emoji=False, width=width)


def plain(text: object, style: str = "") -> Text:
    """Return text from a file or a user as it may be shown: no markup, and control characters made visible."""
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in str(text))
    return Text(shown, style=style)


def show(*results: RenderableType) -> None:
    """Print results on stdout; where that is no terminal, without the blanks that fill up the lines of tables."""
    rendered = io.StringIO()
    console = _console(sys.stdout, rendered)
    for result in results:
        console.print(result)
    text = rendered.getvalue()
    lines = text.removesuffix("\n").split("\n")
    _write(text if console.is_terminal else "".join(f"{line.rstrip()}\n" for line in lines))


def show_command(command: list[str], folder: str | None = None) -> None:
    """Print a command as it is typed; one that is too long for a line goes on in the next, after a backslash.

    Parameters
    ----------
    command
        Its words.
    folder
        Where it is typed, if not in the current folder.
    """
    before, after = ("$ ", "") if folder is None else (f"$ (cd {shlex.quote(folder)} && ", ")")
    show(*(plain(line, "bold") for line in command_lines(command, before, after, output_width())))


def command_lines(command: Sequence[str], before: str = "", after: str = "", width: int | None = None) -> list[str]:
    """Return a command as it is typed, in lines that fit the terminal, each but the last with a backslash at its end.

    Parameters
    ----------
    command
        Its words.
    before, after
        What stands before the first of them, and after the last.
    width
        Of a line, in characters; that of `readable_width` if not given.
    """
    words = _with_values([shlex.quote(word) for word in command])
    words[-1] += after
    lines = [f"{before}{words[0]}"]
    for word in words[1:]:
        if len(lines[-1]) + len(word) + 3 > (width or readable_width()):
            lines[-1] += " \\"
            lines.append("   ")
        lines[-1] += f" {word}"
    return lines


def _with_values(words: list[str]) -> list[str]:
    """Put options together with what follows them, so that they stand in one line."""
    joined: list[str] = []
    for number, word in enumerate(words):
        if number > 1 and words[number - 1].startswith("-") and not word.startswith("-"):
            joined[-1] += f" {word}"
        else:
            joined.append(word)
    return joined


def print_json(data: Any) -> None:
    """Print JSON, and only JSON, on stdout."""
    _write(json.dumps(data, indent=2, allow_nan=False) + "\n")


def print_text(text: str) -> None:
    """Print text of our own, such as a script, on stdout as it is: neither wrapped nor coloured."""
    _write(text)


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise ReaderGoneError from error
    except OSError as error:
        raise CryobridgeError(
            f"the output can't be written ({error.strerror or error})", hint="Check that the disk has space left."
        ) from error


def note(message: str) -> None:
    """Show the user something worth knowing, unless -q."""
    if not settings.quiet:
        _stderr().print(plain(message, "dim"))


def warn(message: str) -> None:
    """Show the user something that may be wrong, even with -q."""
    _stderr().print(warning(message))


def show_messages(messages: Iterable[Message]) -> None:
    """Show messages, notes first; none that this run has shown already."""
    for message in sorted(messages, key=lambda item: item.severity == "warning"):
        sentence = shown(message.text, flag)
        if sentence not in _said:
            _said[sentence] = message.severity
            (warn if message.severity == "warning" else note)(sentence)


def has_warned() -> bool:
    """Whether this run has shown a warning."""
    return "warning" in _said.values()


def forget_messages() -> None:
    """Let messages be shown again: another run begins."""
    _said.clear()


def show_aside(aside: RenderableType) -> None:
    """Print something that is no result on stderr, even with -q: a question follows it."""
    _stderr().print(aside)


def ask(question: str) -> bool:
    """Ask a yes-or-no question on stderr; where nobody can answer, the answer is no."""
    if not can_answer():
        return False
    from rich.prompt import Confirm

    return Confirm.ask(plain(question), console=_stderr(), default=False)


def ask_which(question: str, n: int) -> int | None:
    """Ask for a number from 1 to n on stderr; None for no, which is the answer where nobody can answer."""
    if not can_answer():
        return None
    from rich.prompt import Prompt

    choices = [*map(str, range(1, n + 1)), "n"]
    answer = Prompt.ask(plain(question), console=_stderr(), choices=choices, default="n")
    return None if answer == "n" else int(answer)


def can_answer() -> bool:
    """Whether somebody is there to answer a question."""
    return bool(sys.stdin and sys.stdin.isatty() and sys.stderr.isatty())


def warning(message: str) -> RenderableType:
    """Return a warning as it is shown. Only its mark is yellow, which can't be read on a white background."""
    return marked("! ", "bold yellow", plain(message))


def marked(mark: str, style: str, text: RenderableType) -> RenderableType:
    """Return text behind a mark, with the lines that it takes more indented as far."""
    from rich.table import Table

    grid = Table.grid()
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text(mark, style=style), text)
    return grid


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
    show(table)


def show_error(error: CryobridgeError) -> None:
    """Print an error and what to do next."""
    if isinstance(error, CombinedError):
        for one in error.errors:
            show_error(one)
        return
    console = _stderr()
    console.print(marked("Error: ", "bold red", plain(error.text(flag))))
    if error.count is not None and error.count > 1 and str(error.count) not in error.message.replace(",", ""):
        console.print(plain(f"  {error.count:,} in all", "dim"))
    if error.hint:
        console.print(marked("  → ", "cyan", plain(error.hint_text(flag))))


def show_traceback(error: BaseException) -> None:
    """Print where an error arose, after what it followed from, each message as harmless as elsewhere."""
    import traceback

    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        show_traceback(cause)
    frames = "".join(traceback.format_tb(error.__traceback__)).splitlines()
    for line in ("Traceback (most recent call last):", *frames, f"{type(error).__name__}: {error}", ""):
        _stderr().print(plain(line), soft_wrap=True)


@contextmanager
def working(what: str) -> Iterator[Reporter]:
    """Show what is under way, as `progress` does, where no steps of it can be counted."""
    with progress(PATIENCE_S) as reporter:
        reporter.start(what, None)
        yield reporter


@contextmanager
def progress(after_s: float = 0, *, lines_after_s: float = LINES_AFTER_S) -> Iterator[Reporter]:
    """Show a progress bar on stderr while work runs; lines where there is no terminal; nothing with -q.

    Parameters
    ----------
    after_s
        Show the bar only once the work has taken so many seconds.
    lines_after_s
        Write the first line only then.
    """
    from cryobridge.progress import Silent

    console = _BarConsole(highlight=False, emoji=False, stderr=True, force_terminal=True)
    if settings.quiet:
        yield Silent()
        return
    # A dumb terminal can't take back what it shows.
    if not sys.stderr.isatty() or console.is_dumb_terminal:
        lines = _lines_reporter(lines_after_s)
        try:
            yield lines
        finally:
            lines.end()
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        SpinnerColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )

    class SpeedColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = _speed_of_all(task) if task.fields["is_shared"] else task.speed
            return Text("" if speed is None else f"{speed:,.0f}/s")

    class LeftColumn(TimeRemainingColumn):
        def render(self, task: Task) -> Text:
            speed = _speed_of_all(task) if task.fields["is_shared"] else None
            if speed is None or task.remaining is None:
                return super().render(task)
            return Text(str(timedelta(seconds=round(task.remaining / speed))), style="progress.remaining")

    class Counted(ProgressColumn):
        """A column that says nothing of work whose steps can't be counted."""

        def __init__(self, column: ProgressColumn) -> None:
            super().__init__()
            self._column = column

        def render(self, task: Task) -> RenderableType:
            return "" if task.total is None else self._column(task)

    columns = (
        # A step may take long, and then nothing else moves.
        SpinnerColumn("line"),
        TextColumn("{task.description}"),
        *map(Counted, (BarColumn(), MofNCompleteColumn(), SpeedColumn(), LeftColumn())),
        TextColumn("{task.fields[part]}", style="dim"),
    )
    bar = Progress(*columns, console=console, transient=True)
    timer = Timer(after_s, bar.start)
    # Where the program ends by force, nobody waits for the bar.
    timer.daemon = True
    if after_s:
        timer.start()
    else:
        bar.start()
    _bars.append(console)
    try:
        yield _BarReporter(bar)
    finally:
        _bars.remove(console)

        @uninterrupted
        def take_down() -> None:
            timer.cancel()
            if after_s:
                timer.join()
            if bar.live.is_started:
                bar.stop()

        take_down()


def _lines_reporter(after_s: float) -> LineReporter:
    """Return the Reporter whose lines go to stderr."""
    from cryobridge.progress import LineReporter

    class Lines(LineReporter):
        def note(self, message: Message) -> None:
            self.end()
            with suppress(OSError, ValueError):
                show_messages([message])

    return Lines(_write_line, after_s=after_s)


def _speed_of_all(task: Any) -> float | None:
    """Return the speed since the beginning, for workers that end large tasks at one time, or long after each other."""
    return task.completed / task.elapsed if task.completed and task.elapsed else None


def _write_line(line: str) -> None:
    # Whoever reads the lines may be gone; the work goes on.
    with suppress(OSError, ValueError):
        note(line)


class _BarConsole(Console):
    """Leaves space for the ^C that terminals show: behind a full line it begins another, and the bar stays."""

    @property  # type: ignore[misc]
    def size(self) -> ConsoleDimensions:
        width, height = super().size
        return ConsoleDimensions(max(1, width - 3), height)


class _BarReporter:
    """The Reporter whose steps move a Rich progress bar, with a row below for each worker that reports."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._task: Any = None
        self._rows: list[Any] = []

    def start(self, what: str, total: int | None) -> None:
        from cryobridge.progress import Crew

        for row in (*self._rows, *([] if self._task is None else [self._task])):
            self._bar.remove_task(row)
        self._rows, self._crew = [], Crew()
        self._task = self._bar.add_task(what, total=total, part="", is_shared=False)

    def advance(self, steps: int = 1) -> None:
        self._bar.advance(self._task, steps)

    def now(self, part: str) -> None:
        self._bar.update(self._task, part=part)

    def done_by(self, worker: str, steps: int, seconds: float) -> None:
        self._crew.add(worker, steps, seconds)
        self._bar.update(self._task, is_shared=True)
        rows = self._crew.rows()
        while len(self._rows) < len(rows):
            self._rows.append(self._bar.add_task("", total=None, part="", is_shared=False))
        for row, (name, done) in zip(self._rows, rows, strict=True):
            self._bar.update(row, description=f"  {escape(name)}", part=done)

    def note(self, message: Message) -> None:
        show_messages([message])
