"""How work reports its progress; silent unless somebody listens."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from cryobridge.errors import shown
from cryobridge.report import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cryobridge.caller import Show
    from cryobridge.report import Message

LOADING_TORCH = "loading torch"
# Between two lines of progress in a log.
LINE_EVERY_S = 60.0
# Workers that have a row of their own.
_MOST_ROWS = 16
# What takes longer is announced: torch, which nobody asked for; and other work whose steps can't be counted.
_TORCH_S, _UNCOUNTED_S = 0.5, 10.0


class Reporter(Protocol):
    """Whom the work talks to. The terminal's one lives in `cryobridge.cli`."""

    def start(self, what: str, total: int | None) -> None:
        """Say that a piece of work of ``total`` steps begins; None where their number is not known."""

    def advance(self, steps: int = 1) -> None:
        """Say that so many steps are done."""

    def now(self, part: str) -> None:
        """Say which part of the work is in hand, in a few words."""

    def done_by(self, worker: str, steps: int, seconds: float) -> None:
        """Say that one of several workers has done a task of so many steps, in that time; they are advanced besides."""

    def note(self, message: Message) -> None:
        """Show the user something worth knowing."""


class Silent:
    """The reporter that says nothing."""

    def start(self, what: str, total: int | None) -> None:
        """Ignore the beginning."""

    def advance(self, steps: int = 1) -> None:
        """Ignore the steps."""

    def now(self, part: str) -> None:
        """Ignore the part."""

    def done_by(self, worker: str, steps: int, seconds: float) -> None:
        """Ignore the worker."""

    def note(self, message: Message) -> None:
        """Ignore the note."""


class Both:
    """Passes what is reported on to two reporters."""

    def __init__(self, first: Reporter, second: Reporter) -> None:
        self._reporters = (first, second)

    def start(self, what: str, total: int | None) -> None:
        """Pass on that work begins."""
        for reporter in self._reporters:
            reporter.start(what, total)

    def advance(self, steps: int = 1) -> None:
        """Pass steps on."""
        for reporter in self._reporters:
            reporter.advance(steps)

    def now(self, part: str) -> None:
        """Pass the part on."""
        for reporter in self._reporters:
            reporter.now(part)

    def done_by(self, worker: str, steps: int, seconds: float) -> None:
        """Pass on what a worker has done, to who listens for it."""
        for reporter in self._reporters:
            if hasattr(reporter, "done_by"):
                reporter.done_by(worker, steps, seconds)

    def note(self, message: Message) -> None:
        """Pass a note on."""
        for reporter in self._reporters:
            reporter.note(message)


class Crew:
    """Several workers, and what each has done: a row for each, of a few of them where they are many.

    Parameters
    ----------
    clock
        Seconds, from any beginning.

    Examples
    --------
    >>> crew = Crew(iter((10.0, 20.0)).__next__)
    >>> crew.add("node7/0", 500, 10.0)
    >>> crew.add("node7/0", 500, 10.0)
    >>> crew.rows()
    [('node7/0', '2 tasks, 50/s')]
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._done: dict[str, tuple[int, int, float, float]] = {}

    def add(self, worker: str, steps: int, seconds: float) -> None:
        """Count a task that a worker has done just now, in that time."""
        now = self._clock()
        tasks, before, began, _ = self._done.get(worker, (0, 0, now - seconds, now))
        self._done[worker] = (tasks + 1, before + steps, min(began, now - seconds), now)

    def rows(self) -> list[tuple[str, str]]:
        """Return the name of each worker, and what it has done."""
        names = sorted(self._done)
        rows = [(name, self._row(*self._done[name])) for name in names[:_MOST_ROWS]]
        others = [self._done[name] for name in names[_MOST_ROWS:]]
        if others:
            rows.append((f"{len(others):,} more", counted(sum(tasks for tasks, *_ in others), "task")))
        return rows

    def _row(self, tasks: int, steps: int, began: float, ended: float) -> str:
        rate = f", {_rate(steps / (ended - began))}" if ended > began else ""
        return counted(tasks, "task") + rate


class LineReporter:
    """Reports in lines, for a log: when work begins, at most once a minute while it goes on, and when it ends.

    Of work whose steps can't be counted there is one line, and only if it takes long.

    Parameters
    ----------
    write
        Called with each line, from any thread.
    after_s
        Counted work that is done sooner leaves no line.
    show
        How references to options in notes are shown (`cryobridge.errors.shown`).
    clock
        Seconds, from any beginning.

    Examples
    --------
    >>> reporter = LineReporter(print)
    >>> reporter.start("images", 300)
    images: 300 to do
    """

    def __init__(
        self,
        write: Callable[[str], None],
        *,
        after_s: float = 0,
        show: Show | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write, self._after_s, self._show, self._clock = write, after_s, show, clock
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._total: int | None = None
        self._what = self._part = ""
        self._is_announced = False

    def start(self, what: str, total: int | None) -> None:
        """Write that work begins, at once or when it has taken some time."""
        with self._lock:
            self.end()
            self._what, self._total, self._part, self._done, self._done_before = what, total, "", 0, 0
            self._began = self._last = self._clock()
            self._crew = Crew(self._clock)
            wait_s = self._after_s if total is not None else _TORCH_S if what == LOADING_TORCH else _UNCOUNTED_S
            if wait_s == 0:
                self._announce(what)
                return
            timer = self._timer = threading.Timer(wait_s, self._announce, [what])
            timer.daemon = True
            timer.start()

    def _announce(self, what: str) -> None:
        with self._lock:
            if what == self._what and not self._is_announced:
                self._is_announced = True
                self._write(what if self._total is None else f"{what}: {self._total:,} to do")

    def advance(self, steps: int = 1) -> None:
        """Count steps, and write how far the work is where the last line is old."""
        with self._lock:
            self._done += steps
            now = self._clock()
            if self._total is None or now - self._last < LINE_EVERY_S or self._done >= self._total:
                return
            self._is_announced = True
            rows = self._crew.rows()
            # Workers end their tasks at one time, or long after each other: of all that was done, then.
            before, since = (0, self._began) if rows else (self._done_before, self._last)
            per_s = (self._done - before) / (now - since)
            left = f", {in_words((self._total - self._done) / per_s)} left" if per_s > 0 else ""
            part = f", {self._part}" if self._part else ""
            self._write(f"{self._what}: {self._done:,} of {self._total:,}{part}, {_rate(per_s)}{left}")
            self._write_rows(rows)
            self._last, self._done_before = now, self._done

    def _write_rows(self, rows: list[tuple[str, str]]) -> None:
        for worker, done in rows:
            self._write(f"  {worker}: {done}")

    def done_by(self, worker: str, steps: int, seconds: float) -> None:
        """Keep what a worker has done for the next lines."""
        with self._lock:
            self._crew.add(worker, steps, seconds)

    def now(self, part: str) -> None:
        """Keep the part for the next line."""
        with self._lock:
            self._part = part

    def note(self, message: Message) -> None:
        """Write a note, behind what was done of the work in hand, which is over then."""
        with self._lock:
            self.end()
            self._write(shown(message.text, self._show))

    def end(self) -> None:
        """Write what was done of the work in hand, if anything was written of it."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            if self._is_announced and self._total is not None:
                took_s = self._clock() - self._began
                count = f"{self._done:,}" if self._done >= self._total else f"{self._done:,} of {self._total:,}"
                rate = f", {_rate(self._done / took_s)}" if took_s > 0 and self._done else ""
                self._write(f"{self._what}: {count} in {in_words(took_s)}{rate}")
                self._write_rows(self._crew.rows())
            self._timer, self._is_announced, self._what, self._total = None, False, "", None


@contextmanager
def in_lines(write: Callable[[str], None], *, after_s: float = 0, show: Show | None = None) -> Iterator[LineReporter]:
    """Yield a `LineReporter`, which writes its last line at the end, whatever that is."""
    reporter = LineReporter(write, after_s=after_s, show=show)
    try:
        yield reporter
    finally:
        reporter.end()


def in_words(seconds: float) -> str:
    """Return a time in two units at most.

    Examples
    --------
    >>> in_words(3700), in_words(95), in_words(0.42)
    ('1 h 2 min', '1 min 35 s', '0.4 s')
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}/s" if per_s >= 10 else f"{per_s:.2g}/s"
