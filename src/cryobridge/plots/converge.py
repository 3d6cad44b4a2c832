"""Pages on a classification: populations up to an iteration, the summary, the flows between classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

from cryobridge.errors import MissingDataError
from cryobridge.model.classification import (
    History,
    Iteration,
    last_iterations,
    numbers_of,
    population_table,
    summed_transitions,
)
from cryobridge.plots.converge_flow import draw_bands, draw_matrix, draw_moves, moved_particles
from cryobridge.plots.converge_metrics import (
    draw_changed,
    draw_changes,
    draw_effective,
    draw_resolution,
    draw_sentence,
)
from cryobridge.plots.converge_populations import (
    MOST_COLOURS,
    class_colours,
    draw_population_bars,
    draw_population_lines,
    draw_population_map,
    percent,
)
from cryobridge.plots.page import Panel, Sheet, path_title, png
from cryobridge.report import counted

Which: TypeAlias = Literal["summary", "flow"] | int
_MOST_WARNINGS = 4
_ITERATION_CELL_IN = (5.8, 3.7)
_SUMMARY_CELL_IN = (5.6, 3.2)
# Texts of about 18 characters stand at the right of a panel.
_MARGIN_IN = (0.75, 0.5, 1.3, 0.3)
_BARS_MARGIN_IN = (0.75, 0.5, 1.55, 0.3)
_BANDS_CELL_IN, _MATRIX_CELL_IN = (5.9, 4.7), (5.4, 4.9)
_BANDS_MARGIN_IN, _MATRIX_MARGIN_IN = (0.6, 0.55, 1.35, 0.3), (0.7, 0.55, 0.85, 0.3)

_BANDS_NOTE = (
    "A band has the colour of the class that its particles leave; pale bands stay. Gray cells: particles that stay."
)
_MATRIX_NOTE = "Particles that stay, on the diagonal, are not drawn."


def sheet_of(history: History, which: Which) -> Sheet:
    """Return the sheet of a picture.

    Parameters
    ----------
    history
        The iterations.
    which
        ``"summary"``, ``"flow"``, or the number of an iteration.

    Raises
    ------
    MissingDataError
        If the history has no such iteration, or none with classes.
    """
    if which == "summary":
        return summary_sheet(history)
    return flow_sheet(history) if which == "flow" else iteration_sheet(history, which)


def draw(history: History, which: Which) -> bytes:
    """Return a picture as the content of a PNG file; see `sheet_of`."""
    return png(sheet_of(history, which))


def prepare() -> None:
    """Load what every picture needs, which takes as long as several of them."""
    png(Sheet(" ", (Panel(" ", draw_sentence(" ")),)))


def iteration_sheet(history: History, number: int) -> Sheet:
    """Return the class populations so far, up to the iteration of this number; of a refinement what it is judged by.

    Raises
    ------
    MissingDataError
        If the history has no such iteration, or none with classes.
    """
    _require_classes(history)
    numbers = numbers_of(history.iterations)
    if number not in numbers:
        raise MissingDataError(
            f"there is no iteration {number}",
            path=history.folder,
            hint=f"The iterations are {numbers[0]} to {numbers[-1]}, {len(numbers)} of them.",
        )
    shown = history.iterations[: numbers.index(number) + 1]
    if history.is_refinement:
        so_far = replace(history, iterations=shown, final=None, messages=())
        return _refinement_sheet(so_far, f"iteration {number}")
    now, before = shown[-1], shown[-2] if len(shown) > 1 else None
    colours = class_colours(now.populations)
    lines = Panel("Particles in each class", draw_population_lines(shown, colours))
    if history.n_classes <= MOST_COLOURS:
        change = ", change in percentage points" if before is not None else ""
        detail = Panel(f"Iteration {number}: particles, share{change}", draw_population_bars(now, before, colours))
        notes = ["Black marks: the iteration before."] if before is not None else []
        margin = _BARS_MARGIN_IN
    else:
        detail = Panel("Each class in each iteration", draw_population_map(shown))
        notes = [_many_classes_note(colours, history.n_classes)]
        notes += ["Pale gray in the map: no particles."] if (population_table(shown) == 0).any() else []
        margin = _MARGIN_IN
    heading = f"{_job(history)}, {iteration_sentence(now, history.n_classes)}"
    return Sheet(heading, (lines, detail), (" ".join(notes),), _ITERATION_CELL_IN, margin)


def summary_sheet(history: History) -> Sheet:
    """Return populations, changed fraction, effective number of classes and resolution over the iterations.

    Of a refinement resolution, changes of angles and shifts, and accuracies.

    Raises
    ------
    MissingDataError
        If the history has no iteration with classes.
    """
    _require_classes(history)
    if history.is_refinement:
        return _refinement_sheet(history, verdict_sentence(history))
    colours = class_colours(history.iterations[-1].populations)
    panels = (
        Panel("Particles in each class", draw_population_lines(history.iterations, colours)),
        Panel("Particles that changed class since the iteration before", draw_changed(history)),
        Panel("Classes with particles, and effective number of classes", draw_effective(history)),
        Panel("Resolution (finer is higher)", draw_resolution(history, colours)),
    )
    notes = [history.verdict.rule, "The effective number of classes is exp(entropy of the populations)."]
    if len(colours) < history.n_classes:
        notes.append(_many_classes_note(colours, history.n_classes))
    heading = f"{_job(history)}: {verdict_sentence(history)}"
    return Sheet(heading, panels, (" ".join(notes), *warning_notes(history)), _SUMMARY_CELL_IN, _MARGIN_IN)


def _refinement_sheet(history: History, what: str) -> Sheet:
    """Return resolution, changes and accuracies of a refinement."""
    panels = (
        Panel("Resolution (finer is higher)", draw_resolution(history, {}), is_wide=True),
        Panel("Orientations: change since the iteration before, and accuracy", draw_changes(history, "°")),
        Panel("Offsets: change since the iteration before, and accuracy", draw_changes(history, "Å")),
    )
    notes = ["Changes and accuracies are RELION's own (rlnChangesOptimal…, rlnAccuracy…); of two half sets the worse."]
    heading = f"{_job(history)}: {what}"
    return Sheet(heading, panels, (" ".join(notes), *warning_notes(history)), _SUMMARY_CELL_IN, _MARGIN_IN)


def flow_sheet(history: History) -> Sheet:
    """Return which classes the particles went to over the last five steps.

    Raises
    ------
    MissingDataError
        If the history has no iteration with classes.
    """
    _require_classes(history)
    shown = last_iterations(history.iterations)
    numbers = numbers_of(shown)
    colours = class_colours(shown[-1].populations)
    is_banded = history.n_classes <= MOST_COLOURS
    span = f"Iterations {numbers[0]} to {numbers[-1]}" if len(shown) > 1 else f"Iteration {numbers[0]}"
    n_steps, total = summed_transitions(shown[1:])
    panels = [Panel(span, draw_bands(shown, colours), is_wide=n_steps > 1)] if is_banded else []
    last = shown[-1].transitions
    if total is None or last is None or len(shown) < 2:
        panels.append(Panel("", draw_sentence("Moves are known from the second iteration on.")))
    else:
        most = int(moved_particles(total).max())
        has_sum = n_steps > 1
        step = draw_matrix(last, colours, most, has_scale=not has_sum)
        panels.append(Panel(_step_title(shown[-2], shown[-1]), step))
        if has_sum:
            panels.append(Panel(f"{span}, {n_steps} steps added up", draw_matrix(total, colours, most)))
        if not is_banded:
            panels.append(Panel(f"{span}: largest moves", draw_moves(total), is_wide=has_sum))
    heading = f"{_job(history)}: where the particles of each class go"
    cell_in, margin_in = (_BANDS_CELL_IN, _BANDS_MARGIN_IN) if is_banded else (_MATRIX_CELL_IN, _MATRIX_MARGIN_IN)
    return Sheet(
        heading, tuple(panels), _flow_notes(shown, _BANDS_NOTE if is_banded else _MATRIX_NOTE), cell_in, margin_in
    )


def _step_title(before: Iteration, now: Iteration) -> str:
    return f"Iteration {before.number} to {now.number}: {percent(now.changed or 0, now.compared)} changed class"


def _flow_notes(shown: Sequence[Iteration], first: str) -> tuple[str, ...]:
    notes = [first]
    arrived, departed = sum(step.arrived for step in shown[1:]), sum(step.departed for step in shown[1:])
    if arrived or departed:
        notes.append(
            f"{counted(arrived, 'particle')} came and {departed:,} went in these steps; they are in no class's moves."
        )
    return (" ".join(notes),)


def _many_classes_note(colours: dict[int, str], n_classes: int) -> str:
    return (
        f"Coloured: the largest classes of the last iteration drawn, {len(colours)} of {n_classes}; gray: the others."
    )


def _require_classes(history: History) -> None:
    if history.n_classes == 0:
        raise MissingDataError(
            "there is no iteration with classes to draw",
            path=history.folder,
            hint="Wait until the job has written its first one.",
        )


def _job(history: History) -> str:
    return " ".join(part for part in (history.program, history.kind, path_title(history.folder)) if part)


def iteration_sentence(iteration: Iteration, n_classes: int) -> str:
    """Say what an iteration holds."""
    parts = [f"iteration {iteration.number}", f"{counted(iteration.particles, 'particle')}"]
    if iteration.changed is not None and iteration.compared:
        parts.append(f"{percent(iteration.changed, iteration.compared)} changed class")
    return ", ".join([*parts, f"{iteration.occupied} of {n_classes} classes occupied"])


def verdict_sentence(history: History) -> str:
    """Say whether the job has converged, with the reason."""
    verdict = history.verdict
    answer = {True: "converged", False: "not converged", None: "too early to decide"}[verdict.converged]
    left = verdict.iterations_left
    more = f" About {left} more iteration{'s' if left != 1 else ''}." if left and not verdict.converged else ""
    return f"{answer}. {verdict.reason}{more}"


def warning_notes(history: History) -> list[str]:
    """Return the first warnings, and how many more there are."""
    notes = [f"⚠ {message}." for message in history.messages[:_MOST_WARNINGS]]
    more = len(history.messages) - len(notes)
    return [*notes, f"… and {more} more warnings."] if more > 0 else notes
