"""What an inspection found, as plain data for the terminal, for JSON and for notebooks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

# The jobs that a file can serve, as --check names them, and as they are shown.
USE_TITLES = {
    "coords": "coords",
    "stacks": "stacks (indexed)",
    "stacks-job": "stacks (job)",
    "poses": "poses",
    "ctf": "ctf",
    "recovar": "recovar",
}
USE_NAMES = tuple(USE_TITLES)


@dataclass(frozen=True)
class FieldSummary:
    """A column in numbers.

    Parameters
    ----------
    name, dtype, shape, unit, meaning
        As the file and the catalogue have them; ``unit`` and ``meaning`` are empty for an unknown column.
    minimum, median, maximum
        Over all finite elements; None for text, for identifiers, and where statistics were not asked for.
    distinct
        Number of distinct elements; None where not counted.
    nan
        Number of NaN elements.
    histogram
        Counts in equal bins from minimum to maximum; empty where there is nothing to show.
    example
        The first value, as text.
    problems
        What is implausible, in sentences.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] = ()
    unit: str = ""
    meaning: str = ""
    minimum: float | int | None = None
    median: float | None = None
    maximum: float | int | None = None
    distinct: int | None = None
    nan: int | None = None
    histogram: tuple[int, ...] = ()
    example: str = ""
    problems: tuple[str, ...] = ()

    @property
    def is_constant(self) -> bool:
        """Whether all elements are one value."""
        return self.distinct == 1 and not self.nan

    def to_json(self) -> dict[str, Any]:
        """Return the summary as JSON-ready data, with the names that are documented."""
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "unit": self.unit,
            "meaning": self.meaning,
            "min": self.minimum,
            "median": self.median,
            "max": self.maximum,
            "distinct": self.distinct,
            "nan": self.nan,
            "histogram": list(self.histogram),
            "example": self.example,
            "problems": list(self.problems),
        }


@dataclass(frozen=True)
class Use:
    """Whether a file serves a job.

    Parameters
    ----------
    name
        The job: ``coords``, ``stacks``, ``stacks-job``, ``poses``, ``ctf`` or ``recovar``.
    ready
        Whether nothing is missing.
    missing
        The columns or files that are missing.
    hint
        Where they are, or what to do.
    """

    name: str
    ready: bool
    missing: tuple[str, ...] = ()
    hint: str = ""


@dataclass(frozen=True)
class Inspection:
    """A file or folder, described.

    Parameters
    ----------
    path
        As it was given.
    kind
        ``cs``, ``star``, ``mrc`` …, or a kind of folder.
    title
        What it is, in a few words.
    rows
        Number of rows, images or elements; None where there are none to count.
    facts
        Name and value of what is worth knowing, in reading order.
    fields
        Its columns or arrays.
    uses
        What it can be used for.
    problems
        What is wrong or was assumed, in sentences.
    details
        What is special to the kind, for JSON.
    """

    path: str
    kind: str
    title: str
    rows: int | None = None
    facts: tuple[tuple[str, str], ...] = ()
    fields: tuple[FieldSummary, ...] = ()
    uses: tuple[Use, ...] = ()
    problems: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the inspection as JSON-ready data: the documented keys, then what is special to the kind."""
        return {
            "path": self.path,
            "kind": self.kind,
            "title": self.title,
            "rows": self.rows,
            "facts": dict(self.facts),
            "fields": [_plain(summary.to_json()) for summary in self.fields],
            "uses": {
                use.name: {"ready": use.ready, "missing": list(use.missing), "hint": use.hint} for use in self.uses
            },
            "problems": list(self.problems),
            **_plain(self.details),
        }


def _plain(value: Any) -> Any:
    """Return data that strict JSON can hold: infinities and NaN become text."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
