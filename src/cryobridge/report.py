"""What a job says: messages as data, and the one report that every job returns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from cryobridge.caller import Show
from cryobridge.errors import shown

# Of the files that a message is about.
_MOST_NAMED = 3
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


def note(code: str, text: str, *, where: Path | str | None = None, option: str | None = None) -> Message:
    """Return a message on what was assumed or done."""
    return Message(code, "note", text, None if where is None else str(where), option)


def warning(code: str, text: str, *, where: Path | str | None = None, option: str | None = None) -> Message:
    """Return a message on what may make the result wrong or unusable."""
    return Message(code, "warning", text, None if where is None else str(where), option)


def counted(n: int, noun: str, plural: str = "") -> str:
    """Return a number of things, with a verb where they have one.

    Examples
    --------
    >>> counted(1, "file"), counted(2, "file"), counted(2, "batch", "batches")
    ('1 file', '2 files', '2 batches')
    >>> counted(1, "row has", "rows have")
    '1 row has'
    """
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def part_of(n: int, n_all: int, noun: str, verb: str = "are", *, of_one: str = "is", plural: str = "") -> str:
    """Return how many of some things, with the verb that follows.

    Examples
    --------
    >>> part_of(1, 1, "stack"), part_of(1, 30, "stack"), part_of(7, 30, "stack")
    ('1 of 1 stack is', '1 of 30 stacks is', '7 of 30 stacks are')
    """
    return f"{n:,} of {counted(n_all, noun, plural)} {of_one if n == 1 or n_all == 1 else verb}"


def size_text(n_bytes: int) -> str:
    """Return a size in bytes with the unit that suits it.

    Examples
    --------
    >>> size_text(1), size_text(3_300_000_000_000)
    ('1 byte', '3.3 TB')
    """
    size = float(n_bytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}" if unit != "bytes" else counted(n_bytes, "byte")
        size /= 1000
    return f"{size:.3g} TB"


def distinct(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Return messages, each said once: what is said of several files alike becomes one message that names them.

    Examples
    --------
    >>> found = [warning("file-empty", f"{name} is empty", where=name) for name in ("a.star", "b.star", "c.star")]
    >>> [str(message) for message in distinct(found)]
    ['a.star is empty (also b.star, c.star)']
    """
    alike: dict[tuple[str, ...], dict[str, Message]] = {}
    for message in messages:
        key = (message.code, message.severity, _without_name(message))
        alike.setdefault(key, {}).setdefault(message.where or "", message)
    return tuple(_of_all(list(by_file.values())) for by_file in alike.values())


def _without_name(message: Message) -> str:
    """Return the text of a message without the name of its file."""
    if message.where is None:
        return message.text
    return message.text.replace(message.where, "\0").replace(Path(message.where).name or message.where, "\0")


def _of_all(messages: list[Message]) -> Message:
    """Return one message for those that say the same of several files."""
    first, *others = messages
    places = [message.where for message in others if message.where is not None]
    if first.where is None or not places:
        return first
    names = [Path(place).name for place in (first.where, *places)]
    if len(set(names)) < len(names):
        names = [first.where, *places]
    is_named = _without_name(first) != first.text
    named = names[1:] if is_named else names
    more = f" and {len(named) - _MOST_NAMED:,} more" if len(named) > _MOST_NAMED else ""
    said = f"{'also' if is_named else 'in'} {', '.join(named[:_MOST_NAMED])}{more}"
    return replace(first, text=f"{first.text} ({said})")


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
        All notes and warnings, in the order in which they arose, each once (`distinct`); in JSON they are ``notes`` and
        ``warnings``.
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "messages", distinct(self.messages))

    @property
    def notes(self) -> tuple[Message, ...]:
        """What was assumed or done."""
        return tuple(message for message in self.messages if message.severity == "note")

    @property
    def warnings(self) -> tuple[Message, ...]:
        """What may make the result wrong or unusable."""
        return tuple(message for message in self.messages if message.severity == "warning")

    def require(self) -> None:
        """Raise where the result is not what it should be, such as an output that was read back and differs.

        Raises
        ------
        CryobridgeError
            Only reports of jobs that check their output do so.
        """

    def to_json(self, show: Show | None = None) -> dict[str, Any]:
        """Return the report as JSON-ready data.

        Parameters
        ----------
        show
            How references to options in texts are shown (`cryobridge.errors.shown`).
        """
        data: dict[str, Any] = {}
        for item in fields(self):
            key = json_key(item)
            if item.name == "messages":
                data |= {"notes": jsonable(self.notes, show), "warnings": jsonable(self.warnings, show)}
            elif key is not None:
                data[key] = jsonable(getattr(self, item.name), show)
        return data


def json_key(item: Field[Any]) -> str | None:
    """Return the JSON key of a field: its name, unless its metadata have another under ``json``; None for no key."""
    key: str | None = item.metadata.get("json", item.name)
    return key


def jsonable(value: Any, show: Show | None = None) -> Any:
    """Return a value of a report as JSON-ready data: dataclasses as objects, paths as texts, tuples as lists.

    Numbers that JSON does not know, such as NaN, become null.

    Raises
    ------
    TypeError
        If it is of a type that no report holds.
    """
    if isinstance(value, str):
        return shown(value, show)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {shown(str(key), show): jsonable(item, show) for key, item in value.items()}
    if hasattr(value, "__dataclass_fields__"):
        keys = ((json_key(item), item.name) for item in fields(value))
        return {key: jsonable(getattr(value, name), show) for key, name in keys if key is not None}
    if hasattr(value, "tolist"):  # numpy's scalars and arrays
        return jsonable(value.tolist(), show)
    if isinstance(value, Iterable):
        return [jsonable(item, show) for item in value]
    raise TypeError(f"a report holds {type(value).__name__}, which JSON has no place for")
