"""`cryobridge converge --watch`: a live display in a terminal, a line an iteration elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from cryobridge.cli.converge_view import history_view, iteration_line, warnings_view
from cryobridge.cli.terminal import note, plain, show
from cryobridge.jobs.converge.watch import watch

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cryobridge.jobs.converge.follow import Follower
    from cryobridge.jobs.converge.outputs import OutputFiles
    from cryobridge.jobs.converge.verdict import Rule
    from cryobridge.model.classification import History

_MOST_WARNINGS = 3
# Titles, heads, what is left out, the verdict in two lines, status, and blank lines between them.
_OTHER_LINES = 14


@dataclass(frozen=True)
class Watching:
    """How to watch.

    Parameters
    ----------
    limit
        The last iteration to wait for, or None.
    settle_s, timeout_s
        How long a file must be still, and how long to watch.
    as_json
        Whether stdout is for JSON.
    """

    limit: int | None
    settle_s: float
    timeout_s: float | None
    as_json: bool


def watch_job(follower: Follower, outputs: OutputFiles, rule: Rule, watching: Watching) -> bool:
    """Follow a job until its end; return whether it was shown in lines, not in a live display."""
    if sys.stdout.isatty() and not watching.as_json:
        _watch_live(follower, outputs, rule, watching)
        return False
    for look in watch(follower, watching.limit, watching.settle_s, watching.timeout_s):
        if look.new:
            history = follower.history(rule)
            for iteration in history.iterations:
                if iteration.number in look.new:
                    (note if watching.as_json else _print_line)(iteration_line(iteration))
            outputs.write(history, look.new)
        if look.end:
            note(look.end)
    return True


def _print_line(line: str) -> None:
    show(plain(line))


def _watch_live(follower: Follower, outputs: OutputFiles, rule: Rule, watching: Watching) -> None:
    console = Console(highlight=False, emoji=False)
    history = follower.history(rule)
    size = console.size
    try:
        with _live(console) as live:
            live.update(_display(history, console, _waiting(history)), refresh=True)
            for look in watch(follower, watching.limit, watching.settle_s, watching.timeout_s):
                if look.new or console.size != size:
                    size = console.size
                    history = follower.history(rule)
                    live.update(_display(history, console, _waiting(history)), refresh=True)
                if look.new:
                    outputs.write(history, look.new)
                end = look.end
    except KeyboardInterrupt:
        # What was on the display is gone with it.
        if history.iterations:
            show(history_view(history, console.width))
        raise
    note(end)


@contextmanager
def _live(console: Console) -> Iterator[Live]:
    with Live(console=console, auto_refresh=False, transient=True, vertical_overflow="ellipsis") as live:
        yield live


def _display(history: History, console: Console, status: str) -> RenderableType:
    if not history.iterations:
        return plain(status, "dim")
    warnings = Group(*warnings_view(history, _MOST_WARNINGS))
    n_warning_lines = len(console.render_lines(warnings)) if history.messages else 0
    free = max(4, console.height - _OTHER_LINES - n_warning_lines)
    n_classes = min(history.n_classes, free // 2)
    view = history_view(history, console.width, free - n_classes, n_classes, with_rule=False)
    return Group(view, warnings, Text(), plain(status, "dim"))


def _waiting(history: History) -> str:
    what = "the next iteration" if history.iterations else "the first iteration"
    return f"{time.strftime('%H:%M:%S')} waiting for {what} in {history.folder}; Ctrl-C stops"
