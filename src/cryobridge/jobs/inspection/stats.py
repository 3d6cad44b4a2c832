"""Exact statistics of table columns, in passes that hold a bounded part of the table."""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from cryobridge.formats.fields import judge, lookup
from cryobridge.formats.table import Array, Column, Table
from cryobridge.jobs.inspection.report import FieldSummary
from cryobridge.model.particles import Labels
from cryobridge.progress import Silent
from cryobridge.report import Message, counted, part_of, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryobridge.progress import Reporter

# What one pass over the file may hold; sorting two columns at a time comes on top.
PASS_BYTES = 512 << 20
HISTOGRAM_BINS = 16
_IMPLAUSIBLE = "implausible-values"
_TEXT_BLOCK_BYTES = 32 << 20
_WORKERS = min(4, os.cpu_count() or 1)


def summarise(
    table: Table, columns: tuple[Column, ...], *, statistics: bool = True, reporter: Reporter | None = None
) -> tuple[FieldSummary, ...]:
    """Describe columns of a table.

    Parameters
    ----------
    table
        The table that they are of.
    columns
        The columns to describe, in this order.
    statistics
        Whether to read them; without, only what the header says is given.
    reporter
        Who hears how many columns are done.
    """
    if not statistics or table.n_rows == 0:
        return tuple(header_summary(column) for column in columns)
    numbers = [column for column in columns if not column.is_text]
    reporter = reporter or Silent()
    reporter.start("columns", len(columns))
    found = {}
    for column in columns:
        if column.is_text:
            found[column.name] = _summarise_text(table, column)
            reporter.advance()
    for batch in passes(table.n_rows, numbers):
        reporter.now("reading")
        values = table.read([column.name for column in batch])
        reporter.now("")
        with ThreadPoolExecutor(_WORKERS) as pool:
            arrays = (values.pop(column.name) for column in batch)
            for summary in pool.map(summarise_values, batch, arrays):
                found[summary.name] = summary
                reporter.advance()
    # Zeros beside empty names are of no files, such as micrographs of imported movies.
    unused = {name.removesuffix("/path") for name, one in found.items() if one.distinct == 1 and one.example == ""}
    for name, one in found.items():
        if name.partition("/")[0] in unused:
            found[name] = replace(one, problems=tuple(said for said in one.problems if said.code != _IMPLAUSIBLE))
    return tuple(found[column.name] for column in columns)


def header_summary(column: Column) -> FieldSummary:
    """Describe a column by its header alone."""
    spec = lookup(column.name)
    return FieldSummary(
        column.name,
        column.dtype,
        column.shape,
        unit=spec.unit if spec else "",
        meaning=spec.meaning if spec else "",
    )


def summarise_values(column: Column, values: Array | Labels) -> FieldSummary:
    """Describe a column of numbers by its values, which are sorted in place.

    All elements of a row count alike; identifiers (uids) get no minimum, median or maximum, which mean nothing.
    """
    assert isinstance(values, np.ndarray)
    head = header_summary(column)
    if values.size == 0:
        return head
    example = _example(values[0])
    if values.dtype.kind == "c":
        with np.errstate(over="ignore"):
            values = np.abs(values)
    # Sorting in place saves a copy of what was read for this purpose alone.
    ordered: Array = values.reshape(-1) if values.flags.writeable and values.flags.c_contiguous else values.flatten()
    ordered.sort()
    n_nan = ordered.size - _place(ordered, np.nan) if ordered.dtype.kind == "f" else 0
    ordered = ordered[: ordered.size - n_nan]
    distinct = int(np.count_nonzero(ordered[1:] != ordered[:-1])) + 1 if ordered.size else 0
    finite, problems = _finite(ordered)
    if n_nan:
        problems.append(warning("nan-values", counted(n_nan, "NaN value")))
    head = replace(head, distinct=distinct, nan=n_nan, example=example)
    if is_identifier(column) or finite.size == 0:
        if column.name == "uid" and distinct < ordered.size:
            text = (
                f"{part_of(ordered.size - distinct, ordered.size, 'row', 'repeat', of_one='repeats')} another row's uid"
            )
            problems.append(warning("uid-repeated", text))
        return replace(head, problems=tuple(problems))
    minimum, maximum = finite[0].item(), finite[-1].item()
    spec = lookup(column.name)
    verdict = judge(spec, float(minimum), float(maximum)) if spec else None
    return replace(
        head,
        minimum=minimum,
        median=_median(finite),
        maximum=maximum,
        histogram=_histogram(finite) if distinct > 1 else (),
        problems=(*((warning(_IMPLAUSIBLE, verdict),) if verdict else ()), *problems),
    )


def is_identifier(column: Column) -> bool:
    """Whether a column's numbers only distinguish things."""
    return column.dtype == "u8" and column.name.endswith(("uid", "import_sig"))


def passes(n_rows: int, columns: list[Column]) -> Iterator[list[Column]]:
    """Cut the columns into groups of at most `PASS_BYTES`, one column at least."""
    batch: list[Column] = []
    total = 0
    for column in columns:
        n_bytes = n_rows * int(column.dtype[1:]) * int(np.prod(column.shape, dtype=np.int64))
        if batch and total + n_bytes > PASS_BYTES:
            yield batch
            batch, total = [], 0
        batch.append(column)
        total += n_bytes
    if batch:
        yield batch


def _summarise_text(table: Table, column: Column) -> FieldSummary:
    """Count distinct texts block by block; their hashes are kept, not the texts."""
    seen: set[int] = set()
    example = ""
    rows_a_block = max(1, _TEXT_BLOCK_BYTES // max(256, column.width))
    for first in range(0, table.n_rows, rows_a_block):
        labels = table.read([column.name], slice(first, first + rows_a_block))[column.name]
        assert isinstance(labels, Labels)
        if first == 0:
            example = labels[0]
        seen.update(map(hash, labels.values))
    return replace(header_summary(column), distinct=len(seen), nan=0, example=example)


def _finite(ordered: Array) -> tuple[Array, list[Message]]:
    """Return the finite part of sorted values, and what there is to say of the rest."""
    if ordered.dtype.kind != "f":
        return ordered, []
    low = _place(ordered, -np.inf, side="right")
    high = _place(ordered, np.inf)
    n_infinite = low + ordered.size - high
    text = counted(n_infinite, "infinite value")
    return ordered[low:high], [warning("infinite-values", text)] if n_infinite else []


def _place(ordered: Array, value: float, side: Literal["left", "right"] = "left") -> int:
    # In the type of the array: a double among singles would make NumPy copy all of them as doubles.
    return int(np.searchsorted(ordered, ordered.dtype.type(value), side))


def _median(ordered: Array) -> float:
    middle = ordered.size // 2
    if ordered.size % 2:
        return float(ordered[middle])
    low, high = float(ordered[middle - 1]), float(ordered[middle])
    return (low + high) / 2 if math.isfinite(low + high) else low / 2 + high / 2


def _histogram(ordered: Array) -> tuple[int, ...]:
    low, high = float(ordered[0]), float(ordered[-1])
    # The span of the largest numbers is itself beyond all numbers.
    scale = 1.0 if math.isfinite(high - low) else 0.5
    edges = np.linspace(low * scale, high * scale, HISTOGRAM_BINS + 1)[1:-1] / scale
    if ordered.dtype.kind == "f":
        edges = edges.astype(ordered.dtype)
    elif ordered.dtype.itemsize < 8:
        # A whole number is below an edge when it is below the next whole number; no double of it is needed.
        edges = np.ceil(edges).astype(ordered.dtype)
    cuts = np.searchsorted(ordered, edges)
    return tuple(int(count) for count in np.diff(cuts, prepend=0, append=ordered.size))


def _example(value: Array) -> str:
    return " ".join(f"{item:g}" if isinstance(item, float) else str(item) for item in np.ravel(value)[:9].tolist())
