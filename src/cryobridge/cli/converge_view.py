"""How the iterations of a classification look in a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cryobridge.cli.build import flag
from cryobridge.cli.terminal import plain, warning
from cryobridge.errors import shown
from cryobridge.jobs.converge.tables import iteration_row, metrics_row
from cryobridge.report import counted

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cryobridge.jobs.converge.files import FoundJob
    from cryobridge.jobs.converge.outputs import OutputFile
    from cryobridge.model.classification import Counts, History, Iteration, Verdict

_WIDE = 120
_WIDEST_BAR = 40
MOST_ITERATIONS, MOST_CLASSES = 30, 20
_EIGHTHS = " ▏▎▍▌▋▊▉"


def history_view(
    history: History,
    width: int,
    most_iterations: int = MOST_ITERATIONS,
    most_classes: int = MOST_CLASSES,
    *,
    with_rule: bool = True,
) -> Group:
    """Show the iterations, the populations of the classes where there are several, and the verdict.

    Parameters
    ----------
    history
        With one iteration at least.
    width
        Characters in a line.
    most_iterations, most_classes
        So many rows at most; a line says how many are left out.
    with_rule
        Whether to show the rule that the verdict follows.
    """
    parts: list[RenderableType] = [*_iterations(history, width, most_iterations), Text()]
    if not history.is_refinement:
        parts += [*_classes(history, width, most_classes), Text()]
    return Group(*parts, verdict_view(history.verdict, with_rule=with_rule))


def verdict_view(verdict: Verdict, *, with_rule: bool = True) -> Group:
    """Show the answer, what decided, and the rule."""
    answers = {True: ("Converged", "green"), False: ("Not converged", "red"), None: ("Too early to decide", "")}
    word, style = answers[verdict.converged]
    left = verdict.iterations_left
    more = f" About {left:,} more {'iteration' if left == 1 else 'iterations'}." if left else ""
    answer = Text.assemble((f"{word}. ", f"bold {style}"), plain(verdict.reason), more)
    return Group(answer, plain(f"Rule: {verdict.rule}", "dim")) if with_rule else Group(answer)


def files_view(files: Sequence[OutputFile], *, dry_run: bool) -> Group:
    """Name the files that are written, or would be, with what is in each; those of one kind in one row.

    Parameters
    ----------
    files
        One at least, those of the folder before those that were named.
    dry_run
        Whether they are only told.
    """
    folder = files[0].path.parent
    title = plain(f"{'Would be written' if dry_run else 'Written'} to {folder}", "bold")
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(style="dim", overflow="fold")
    rows = []
    for content, same in groupby(files, key=lambda file: file.content):
        names = [str(file.path.name if file.path.parent == folder else file.path) for file in same]
        # The last of several stands in a line of its own: a column as wide as both leaves no place for what is in them.
        rows += [(name, content) for name in names[:1]]
        rows += [(f"… {names[-1]}", f"{len(names):,} pictures")] if len(names) > 1 else []
    for row in rows:
        table.add_row(*map(plain, row))
    return Group(Text(), title, table)


def jobs_view(jobs: Sequence[FoundJob]) -> Group:
    """List jobs that have iterations."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("job", overflow="fold")
    for name in ("iterations", "last"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("ended", no_wrap=True)
    for job in jobs:
        table.add_row(plain(job.job), f"{job.iterations:,}", str(job.last), job.ended or "—")
    return Group(plain("Jobs that have iterations; give one of them", "bold"), table, Text())


def iteration_line(iteration: Iteration) -> str:
    """Return one line on an iteration, for a log."""
    fraction = iteration.changed_fraction
    changed = (
        f"{counted(iteration.particles, 'particle')}"
        if fraction is None
        else f"{iteration.changed:,} of {iteration.compared:,} particles changed class ({100 * fraction:.2f} %)"
    )
    return (
        f"iteration {iteration.number}: {changed}, "
        f"{iteration.occupied} of {len(iteration.populations)} classes occupied, "
        f"effective number {iteration.effective_classes:.1f}"
    )


def refinement_line(iteration: Iteration) -> str:
    """Return one line on an iteration of a refinement, for a log."""
    metrics = iteration.metrics
    parts = [
        _with("resolution", metrics.resolution_A, " Å"),
        _with("orientations changed by", metrics.orientation_change_deg, "°"),
        _with("offsets changed by", metrics.offset_change_A, " Å"),
        _with("accuracy of rotations", metrics.rotation_accuracy_deg, "°"),
        _with("of translations", metrics.translation_accuracy_A, " Å"),
    ]
    known = [part for part in parts if part] or [f"{counted(iteration.particles, 'particle')}"]
    return f"iteration {iteration.number}: {', '.join(known)}"


def _with(name: str, value: float | None, unit: str) -> str:
    return "" if value is None else f"{name} {value:.2f}{unit}"


def _iterations(history: History, width: int, most: int) -> list[RenderableType]:
    shown = history.iterations[-most:]
    rows = [iteration_row(iteration) for iteration in shown]
    columns, heads = _refined_columns(width) if history.is_refinement else _class_columns(width)
    if history.final is not None:
        unknown = dict.fromkeys(rows[-1]) if rows else {}
        rows.append({**unknown, "iteration": "final", **metrics_row(history.final.metrics)})
    columns = {name: form for name, form in columns.items() if any(row[name] is not None for row in rows)}
    title = " ".join(part for part in (history.program, history.kind, str(history.folder)) if part)
    table = _table(title)
    for name in columns:
        table.add_column(heads.get(name, name), justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*("—" if row[name] is None else f"{row[name]:{form}}" for name, form in columns.items()))
    return [table, *_left_out(len(history.iterations) - len(shown), "earlier iterations", "converge.csv")]


_METRIC_HEADS = {
    "resolution_A": "Å",
    "orientation_change_deg": "angles °",
    "offset_change_A": "shifts Å",
    "rotation_accuracy_deg": "acc. °",
    "translation_accuracy_A": "acc. Å",
    "log_likelihood": "log L",
}
_METRIC_FORMS = {name: ".5g" if name == "log_likelihood" else ".2f" for name in _METRIC_HEADS}


def _refined_columns(width: int) -> tuple[dict[str, str], dict[str, str]]:
    """Return the columns of a refinement with their formats, and what stands above them."""
    columns = {"iteration": "", "particles": ",", **_METRIC_FORMS}
    heads = {"iteration": "it", **_METRIC_HEADS}
    if width >= _WIDE:
        heads |= {
            "resolution_A": "resolution Å",
            "orientation_change_deg": "angles changed °",
            "offset_change_A": "shifts changed Å",
            "rotation_accuracy_deg": "accuracy °",
            "translation_accuracy_A": "accuracy Å",
        }
    return columns, heads


def _class_columns(width: int) -> tuple[dict[str, str], dict[str, str]]:
    """Return the columns of a classification with their formats, and what stands above them."""
    columns = {
        "iteration": "",
        "particles": ",",
        "changed": ",",
        "changed_percent": ".2f",
        "occupied": "",
        "effective_classes": ".1f",
        "largest": ",",
        "smallest": ",",
        "relion_changed_percent": ".2f",
        "resolution_A": ".2f",
    }
    heads = {
        "iteration": "it",
        "changed_percent": "%",
        "occupied": "classes",
        "effective_classes": "eff.",
        "relion_changed_percent": "RELION %",
    }
    if width >= _WIDE:
        columns |= _METRIC_FORMS
    return columns, heads | _METRIC_HEADS


def _classes(history: History, width: int, most: int) -> list[RenderableType]:
    last = history.iterations[-1]
    before = history.iterations[-2].populations if len(history.iterations) > 1 else None
    order = np.argsort(-last.populations, kind="stable")
    shown = order[:most]
    bar_width = max(8, min(_WIDEST_BAR, width - (96 if width >= _WIDE else 64)))
    table = _table(f"Classes in iteration {last.number}, the largest first")
    for name in ("class", "", "particles", "%", "change", "kept %"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    if last.transitions is not None:
        table.add_column("most went to", no_wrap=True)
    if width >= _WIDE and last.transitions is not None:
        table.add_column("most came from", no_wrap=True)
    if width >= _WIDE and len(last.metrics.class_resolution_A):
        table.add_column("Å", justify="right", no_wrap=True)
    largest = max(1, int(last.populations.max(initial=0)))
    for place in shown:
        count = int(last.populations[place])
        cells = [
            str(place + 1),
            Text(_bar(count / largest, bar_width), style="cyan"),
            f"{count:,}",
            f"{100 * count / max(1, last.particles):.2f}",
            "—" if before is None else _change(count - int(before[place])),
            *_moves(last, int(place), width),
        ]
        if width >= _WIDE and len(last.metrics.class_resolution_A):
            values = last.metrics.class_resolution_A
            known = place < len(values) and np.isfinite(values[place])
            cells.append(f"{values[place]:.2f}" if known else "—")
        table.add_row(*cells)
    rest = int(last.populations[order[most:]].sum())
    return [
        table,
        *_left_out(len(order) - len(shown), f"smaller classes ({counted(rest, 'particle')})", "converge_classes.csv"),
    ]


def _moves(last: Iteration, place: int, width: int) -> list[str]:
    """Return how many particles a class kept, where most others went, and came from."""
    if last.transitions is None:
        return ["—"]
    row, column = last.transitions[place].copy(), last.transitions[:, place].copy()
    stayed, was = int(row[place]), int(row.sum())
    row[place] = column[place] = 0
    cells = [f"{100 * stayed / was:.1f}" if was else "—", _most(row)]
    return [*cells, _most(column)] if width >= _WIDE else cells


def _most(counts: Counts) -> str:
    best = int(counts.argmax())
    return f"{best + 1} ({int(counts[best]):,})" if counts[best] else "—"


def _bar(share: float, width: int) -> str:
    eighths = round(8 * share * width)
    # A live display stands in for sys.stdout, and has no encoding.
    if "utf" not in (getattr(sys.__stdout__, "encoding", None) or "").lower():
        return "#" * round(eighths / 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _change(difference: int) -> Text:
    style = "green" if difference > 0 else "red" if difference < 0 else "dim"
    return Text(f"{difference:+,}" if difference else "0", style=style)


def _left_out(count: int, what: str, where: str) -> list[RenderableType]:
    return [plain(f"… and {count:,} {what}, in {where}", "dim")] if count > 0 else []


def _table(title: str) -> Table:
    return Table(
        title=plain(title, "bold"),
        title_justify="left",
        box=None,
        padding=(0, 2, 0, 0),
        header_style="bold",
        pad_edge=False,
    )


def warnings_view(history: History, most: int) -> list[RenderableType]:
    """Show the last warnings."""
    return [warning(shown(message.text, flag)) for message in history.messages[-most:]]
