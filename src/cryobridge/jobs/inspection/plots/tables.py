"""Histograms of the columns of tables, from evenly spaced rows where there are many."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cryobridge.errors import UsageError
from cryobridge.formats import folders as folder_kinds
from cryobridge.formats import registry
from cryobridge.formats.cryosparc.cs import CsNpyFile
from cryobridge.formats.cryosparc.job import read_job
from cryobridge.formats.open import open_particles
from cryobridge.formats.table import Array, Column, Table
from cryobridge.jobs.inspection.folders import particles_of
from cryobridge.jobs.inspection.options import InspectOptions
from cryobridge.jobs.inspection.stats import is_identifier, passes, summarise_values
from cryobridge.jobs.inspection.tables import chosen_columns
from cryobridge.plots.inspection import draw_histograms
from cryobridge.plots.page import (
    LARGEST,
    MAX_PANELS,
    PageNotes,
    Panel,
    Sheet,
    path_title,
)
from cryobridge.report import counted

# What is drawn of a long table or a large array: so many rows in so many evenly spaced runs, and no more bytes.
_MAX_ROWS = 200_000
_N_RUNS = 1000
_SAMPLE_BYTES = 64 << 20
# Components of a vector that still have a colour each.
MAX_COMPONENTS = 10


def _job_table(path: Path) -> Table:
    """Return the particles that a cryoSPARC job put out, joined with their passthrough."""
    files, _ = particles_of(read_job(path))
    if files is None:
        raise UsageError("this job has no particles to draw", path=path, hint="Name one of its .cs or .mrc files.")
    return files.columns


def _table(path: Path) -> Table:
    return open_particles(path, join=False).columns


TABLES: dict[str, Callable[[Path], Table]] = {
    registry.CS: _table,
    registry.CSG: _table,
    registry.STAR: _table,
    folder_kinds.CRYOSPARC_JOB: _job_table,
}


def table_sheet(path: Path, table: Table, options: InspectOptions) -> Sheet:
    """Draw the distributions of a table's columns."""
    found = PageNotes()
    columns = []
    for column in chosen_columns(table, options):
        if column.is_text or is_identifier(column):
            found.leave_out("text" if column.is_text else "identifiers", [column.name])
        else:
            columns.append(column)
    sample, n_drawn = _sample_table(table, columns)
    if n_drawn < table.n_rows:
        found.sentences.append(
            f"Drawn and judged from {n_drawn:,} of {counted(table.n_rows, 'row')}, in evenly spaced runs."
        )
    panels: list[Panel] = []
    for column in columns:
        values = sample.pop(column.name)
        if len(panels) == MAX_PANELS:
            found.leave_out(f"beyond {MAX_PANELS} panels", [column.name])
        elif panel := distribution(column, values, found):
            panels.append(panel)
    return Sheet(f"{path_title(path)}: {counted(table.n_rows, 'row')}", tuple(panels), found.notes())


def _sample_table(table: Table, columns: list[Column]) -> tuple[dict[str, Array], int]:
    """Read evenly spaced rows of columns of numbers; return them, and how many rows they are."""
    names = [column.name for column in columns]
    row_bytes = sum(int(column.dtype[1:]) * math.prod(column.shape) for column in columns)
    runs = even_runs(table.n_rows, row_bytes)
    n_drawn = sum(run.stop - run.start for run in runs)
    sample: dict[str, Array] = {}
    if isinstance(table, CsNpyFile):
        parts = [table.read(names, run) for run in runs]
        for name in names:
            sample[name] = np.concatenate([np.asarray(part.pop(name)) for part in parts])
        return sample, n_drawn
    # Other tables unpack or look up a whole column for each read: once is enough.
    for batch in passes(table.n_rows, columns):
        whole = table.read([column.name for column in batch])
        for column in batch:
            values = np.asarray(whole.pop(column.name))
            sample[column.name] = np.concatenate([values[run] for run in runs])
    return sample, n_drawn


def even_runs(n_rows: int, row_bytes: int) -> list[slice]:
    """Choose runs of rows that are spread evenly: all rows, or as many as the limits allow."""
    n_wanted = min(_MAX_ROWS, max(1, _SAMPLE_BYTES // max(1, row_bytes)))
    if n_rows <= n_wanted:
        return [slice(0, n_rows)]
    n_runs = min(_N_RUNS, n_wanted)
    starts = np.linspace(0, n_rows, n_runs, endpoint=False).astype(np.int64).tolist()
    return [slice(start, start + n_wanted // n_runs) for start in starts]


def distribution(column: Column, values: Array, found: PageNotes) -> Panel | None:
    """Draw how the values of a column, (n, …), are distributed; None where there is nothing to see."""
    if values.size == 0 or bool((values == values[:1]).all()):
        found.leave_out("constant" if values.size else "empty", [column.name])
        return None
    summary = summarise_values(column, values.copy())
    found.sentences += [f"⚠ {column.name}: {problem}." for problem in summary.problems]
    if summary.minimum is None:
        found.leave_out("no finite number", [column.name])
        return None
    if max(-summary.minimum, summary.maximum or 0) >= LARGEST:
        found.sentences.append(f"{column.name}: numbers beyond {LARGEST:g} are not drawn.")
    rows = values.reshape(len(values), -1)
    if rows.shape[1] > MAX_COMPONENTS:
        rows = rows.reshape(-1, 1)
    return Panel(column.name, draw_histograms(rows, summary.unit), is_marked=bool(summary.problems))
