"""The errors that leave cryobridge.

Each one says what is wrong, where, and what to do next. The command line prints the message and the hint
and exits with ``exit_code``; nothing else is ever shown unless ``--debug`` is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike


class CryobridgeError(Exception):
    """Bad data or a bad request.

    Parameters
    ----------
    message
        What is wrong, in one sentence, with what was found.
    path
        The file or folder that it is wrong in.
    field
        The column, key or block.
    rows
        The first rows (0-based) that are wrong, where rows are.
    count
        How many of them there are in all.
    hint
        What to do next.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        message: str,
        *,
        path: str | PathLike[str] | None = None,
        field: str | None = None,
        rows: tuple[int, ...] = (),
        count: int | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.path = None if path is None else str(path)
        self.field = field
        self.rows = rows
        self.count = count
        self.hint = hint

    def __str__(self) -> str:
        place = [self.path] if self.path else []
        if self.field:
            place.append(self.field)
        if self.rows:
            more = " …" if self.count is not None and self.count > len(self.rows) else ""
            place.append("row " + ", ".join(str(row) for row in self.rows) + more)
        return ": ".join([*place, self.message])


class CombinedError(CryobridgeError):
    """Things that are wrong beside each other, found in one go so that they can be mended in one go."""

    def __init__(self, errors: Sequence[CryobridgeError]) -> None:
        listed = "; ".join(f"({number}) {error}" for number, error in enumerate(errors, 1))
        hints = "; ".join(f"({number}) {error.hint}" for number, error in enumerate(errors, 1) if error.hint)
        super().__init__(f"{len(errors)} things are wrong: {listed}", hint=hints)
        self.errors = tuple(errors)


class FormatError(CryobridgeError):
    """A file is not what its format says, or not in a format that is known."""


class UnsafeFileError(FormatError):
    """A file asks for code to be run in order to be read; it was not."""


class MissingDataError(CryobridgeError):
    """A file is readable but lacks what the work needs."""


class OutputExistsError(CryobridgeError):
    """An output is there already and overwriting was not asked for."""


class UsageError(CryobridgeError):
    """The request contradicts itself or names something that does not exist."""

    exit_code = 2
