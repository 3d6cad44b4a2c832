"""What a job says: messages as data, and the one report that every job returns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any, Literal

from cryobridge.errors import shown

Severity = Literal["note", "warning"]


@dataclass(frozen=True)
class Message:
    """A note or a warning.

    Parameters
    ----------
    code
        What it is about, in words with hyphens, such as ``"images-not-found"``; it stays when the wording changes.
    severity
        ``"note"`` for what was assumed or done, ``"warning"`` for what may make the result wrong or unusable.
    text
        A sentence without full stop; it may hold references to options (`cryobridge.errors.option`).
    where
        The file or folder that it is about, or None.
    option
        The option that it is about, by the name of its keyword, or None.

    Examples
    --------
    >>> str(warning("images-not-found", "3 of 15 stacks are not found", where="J4"))
    '3 of 15 stacks are not found'
    """

    code: str
    severity: Severity
    text: str
    where: str | None = None
    option: str | None = None

    def __str__(self) -> str:
        return shown(self.text)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        return {
            "code": self.code,
            "severity": self.severity,
            "text": str(self),
            "where": self.where,
            "option": self.option,
        }


def note(code: str, text: str, *, where: Path | str | None = None, option: str | None = None) -> Message:
    """Return a message on what was assumed or done."""
    return Message(code, "note", text, None if where is None else str(where), option)


def warning(code: str, text: str, *, where: Path | str | None = None, option: str | None = None) -> Message:
    """Return a message on what may make the result wrong or unusable."""
    return Message(code, "warning", text, None if where is None else str(where), option)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a job found and made. Its attributes are the keys of its JSON.

    Parameters
    ----------
    rows_in
        Rows of the input: particles, picks or images.
    rows_out
        Rows that are written.
    left_out
        How many of the others there are, by reason; with ``rows_out`` they make up ``rows_in``.
    messages
        All notes and warnings, in the order in which they arose; in JSON they are ``notes`` and ``warnings``.
    outputs
        The files that are written, the main one first.
    dry_run
        Whether nothing was written.
    """

    rows_in: int
    rows_out: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    messages: tuple[Message, ...] = ()
    outputs: tuple[Path, ...] = ()
    dry_run: bool = False

    @property
    def notes(self) -> tuple[Message, ...]:
        """What was assumed or done."""
        return tuple(message for message in self.messages if message.severity == "note")

    @property
    def warnings(self) -> tuple[Message, ...]:
        """What may make the result wrong or unusable."""
        return tuple(message for message in self.messages if message.severity == "warning")

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON-ready data."""
        data: dict[str, Any] = {}
        for item in fields(self):
            if item.name == "messages":
                data |= {"notes": jsonable(self.notes), "warnings": jsonable(self.warnings)}
            else:
                data[item.name] = jsonable(getattr(self, item.name))
        return data


def jsonable(value: Any) -> Any:
    """Return a value of a report as JSON-ready data: dataclasses as objects, paths as texts, tuples as lists.

    Raises
    ------
    TypeError
        If it is of a type that no report holds.
    """
    if hasattr(value, "to_json"):
        return value.to_json()
    if value is None or isinstance(value, str | int | float):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if hasattr(value, "__dataclass_fields__"):
        return {item.name: jsonable(getattr(value, item.name)) for item in fields(value)}
    if hasattr(value, "tolist"):  # numpy's scalars and arrays
        return jsonable(value.tolist())
    if isinstance(value, Iterable):
        return [jsonable(item) for item in value]
    raise TypeError(f"a report holds {type(value).__name__}, which JSON has no place for")
