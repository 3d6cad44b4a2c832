"""What an inspection returns, as plain data for the terminal, for JSON and for notebooks."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from cryobridge.caller import Show
from cryobridge.errors import CryobridgeError, FormatError, shown
from cryobridge.jobs.inspection.use_list import TITLES, CheckName
from cryobridge.report import Message, jsonable, warning

if TYPE_CHECKING:
    from cryobridge.jobs.inspection.json_keys import FieldKeys, InspectionKeys


# The code of what says that a file ends too early.
CUT_OFF = "file-cut-off"


class NotReadyError(CryobridgeError):
    """A file is not ready for what it is checked for."""

    exit_code: ClassVar[int] = 3


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
        What is implausible.
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
    problems: tuple[Message, ...] = ()

    @property
    def is_constant(self) -> bool:
        """Whether all elements are one value."""
        return self.distinct == 1 and not self.nan

    def to_json(self) -> FieldKeys:
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
            "problems": list(map(str, self.problems)),
        }


@dataclass(frozen=True)
class Use:
    """Whether a file is ready for a job.

    Parameters
    ----------
    name
        One of `cryobridge.jobs.inspection.use_list`; ``whole`` for an output that was asked to be as it was written.
    ready
        Whether nothing is missing or refused.
    missing
        The columns or files that are missing.
    hint
        Where they are, or what to do.
    reasons
        Why what is there would be refused, or read wrongly.
    commands
        What does it, word by word: one command, or several that follow each other.
    no_images
        Why it has no command though it is ready: its images are not where they are looked for.
    applies
        Whether it makes sense for this kind of file.
    """

    name: CheckName
    ready: bool
    missing: tuple[str, ...] = ()
    hint: str = ""
    reasons: tuple[str, ...] = ()
    commands: tuple[tuple[str, ...], ...] = ()
    no_images: str = ""
    applies: bool = True

    @property
    def title(self) -> str:
        """How it is shown; empty for what is a part of another use, or makes no sense for this kind of file."""
        return TITLES.get(self.name, "") if self.applies else ""

    def why_not(self) -> str:
        """Return what is missing, and what is wrong with what is there."""
        missing = [f"{', '.join(self.missing)} missing"] if self.missing else []
        return "; ".join([*missing, *self.reasons])


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
    messages
        What is wrong, or was assumed, of the whole; what is implausible in a column is with that column.
    details
        What is special to the kind, for JSON (`cryobridge.jobs.inspection.json_keys`).

    Examples
    --------
    >>> import cryobridge as cb
    >>> found = cb.inspect("J4/J4_003_particles.cs")
    >>> found.is_ready("poses")
    True
    """

    path: str
    kind: str
    title: str
    rows: int | None = None
    facts: tuple[tuple[str, str], ...] = ()
    fields: tuple[FieldSummary, ...] = ()
    uses: tuple[Use, ...] = ()
    messages: tuple[Message, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def all_messages(self) -> tuple[Message, ...]:
        """Notes and warnings on the columns, each with the name of its column, then those on the whole."""
        of_columns = [
            replace(message, text=f"{summary.name}: {message.text}")
            for summary in self.fields
            for message in summary.problems
        ]
        return (*of_columns, *self.messages)

    @property
    def notes(self) -> tuple[Message, ...]:
        """What was assumed."""
        return tuple(message for message in self.all_messages if message.severity == "note")

    @property
    def warnings(self) -> tuple[Message, ...]:
        """What is wrong."""
        return tuple(message for message in self.all_messages if message.severity == "warning")

    @property
    def damage(self) -> CryobridgeError | None:
        """What is wrong with a file that ends too early, which can be described but not used; None for others."""
        texts = [message.text for message in self.messages if message.code == CUT_OFF]
        hint = "Copy the file again from where it was made; the copy or the program that wrote it was interrupted."
        return FormatError("; ".join(texts), path=self.path, hint=hint) if texts else None

    @property
    def listed_uses(self) -> tuple[Use, ...]:
        """The uses that make sense for it and are no parts of others, in the order in which they are shown."""
        by_name = {use.name: use for use in self.uses if use.title}
        return tuple(by_name[name] for name in TITLES if name in by_name)

    def is_ready(self, name: CheckName) -> bool:
        """Whether it can be used for a job as it is."""
        return any(use.ready for use in self.uses if use.name == name)

    def not_ready(self, names: Iterable[CheckName]) -> tuple[Message, ...]:
        """Return what is missing for jobs, as a warning for each that it is not ready for."""
        uses = {use.name: use for use in self.uses}
        found = []
        for name in names:
            if name not in uses:
                found.append(warning("not-ready", f"{self.path}: {self.title}: nothing for {name}"))
            elif not uses[name].ready:
                found.append(warning("not-ready", f"{self.path}: not ready for {name}: {uses[name].why_not()}"))
        return tuple(found)

    def require(self, names: Iterable[CheckName]) -> None:
        """Raise unless it is ready for all of these jobs.

        Raises
        ------
        NotReadyError
            Which says what is missing.
        """
        missing = self.not_ready(names)
        if missing:
            raise NotReadyError("; ".join(message.text for message in missing), hint=self._hint(names))

    def _hint(self, names: Iterable[CheckName]) -> str | None:
        hints = [use.hint for use in self.uses if use.name in set(names) and not use.ready and use.hint]
        return " ".join(hints) or None

    def to_json(self, show: Show | None = None) -> dict[str, Any]:
        """Return the inspection as JSON-ready data: the documented keys, then what is special to the kind.

        Parameters
        ----------
        show
            How references to options in texts are shown (`cryobridge.errors.shown`).
        """
        common: InspectionKeys = {
            "path": self.path,
            "kind": self.kind,
            "title": self.title,
            "rows": self.rows,
            "facts": dict(self.facts),
            "fields": [_plain(summary.to_json(), show) for summary in self.fields],
            "uses": {
                use.name: {
                    "title": use.title,
                    "ready": use.ready,
                    "missing": list(use.missing),
                    "hint": shown(use.hint, show),
                    "reasons": [shown(reason, show) for reason in use.reasons],
                    "no_images": shown(use.no_images, show),
                    "commands": [shlex.join(command) for command in use.commands],
                }
                for use in self.uses
            },
            "problems": [shown(message.text, show) for message in self.messages],
            "notes": jsonable(self.notes, show),
            "warnings": jsonable(self.warnings, show),
        }
        return {**common, **_plain(self.details, show)}


def _plain(value: Any, show: Show | None) -> Any:
    """Return data that strict JSON can hold: infinities and NaN become text."""
    if isinstance(value, dict):
        return {str(key): _plain(item, show) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, show) for item in value]
    if isinstance(value, str):
        return shown(value, show)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
