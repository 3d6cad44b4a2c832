"""`cryobridge converge --watch`: a live display in a terminal, a line an iteration elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from cryobridge.cli.converge_view import history_view, iteration_line, refinement_line, warnings_view
from cryobridge.cli.terminal import note, plain, show, show_messages
from cryobridge.report import warning

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cryobridge.cli.converge_command import WatchOptions
    from cryobridge.cli.run import RunOptions
    from cryobridge.jobs.converge.converge import ConvergePlan
    from cryobridge.jobs.converge.watch import Look
    from cryobridge.model.classification import History

_MOST_WARNINGS = 3
# Titles, heads, what is left out, the verdict in two lines, status, and blank lines between them.
_OTHER_LINES = 14


def watch_job(plan: ConvergePlan, watching: WatchOptions, run: RunOptions) -> bool:
    """Follow a job until its end; return whether it was shown in lines, not in a live display."""
    if sys.stdout.isatty() and not run.as_json:
        _watch_live(plan, watching, run)
        return False
    with plan.watching(watching.timeout_s, dry_run=run.dry_run) as looks:
        for look in looks:
            _log(plan, look, run)
    return True


def _log(plan: ConvergePlan, look: Look, run: RunOptions) -> None:
    """Print a line for each new iteration, and write the outputs."""
    if look.new:
        history = plan.history()
        for iteration in history.iterations:
            if iteration.number in look.new:
                line = refinement_line(iteration) if history.is_refinement else iteration_line(iteration)
                (note if run.as_json else _print_line)(line)
        _write(plan, look, run)
    if look.stall:
        show_messages([warning("no-new-iteration", look.stall)])
    if look.end:
        note(look.end)


def _write(plan: ConvergePlan, look: Look, run: RunOptions) -> None:
    if not run.dry_run:
        plan.write(look.new)


def _print_line(line: str) -> None:
    show(plain(line))


def _watch_live(plan: ConvergePlan, watching: WatchOptions, run: RunOptions) -> None:
    console = Console(highlight=False, emoji=False)
    history = plan.history()
    size = console.size
    try:
        with _live(console) as live, plan.watching(watching.timeout_s, dry_run=run.dry_run) as looks:
            live.update(_display(history, console, _waiting(history)), refresh=True)
            for look in looks:
                if look.new or look.stall or console.size != size:
                    size = console.size
                    history = plan.history()
                    live.update(_display(history, console, _waiting(history)), refresh=True)
                if look.new:
                    _write(plan, look, run)
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
