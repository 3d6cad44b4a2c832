"""The errors that leave cryobridge.

Each one says what is wrong, where, and what to do next. The command line prints the message and the hint
and exits with ``exit_code``; nothing else is ever shown unless a traceback is asked for.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from cryobridge.caller import spelling

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from os import PathLike

# A control character that no text of ours or of a file has when it is shown.
_MARK = "\x1f"
_IS_LITERAL = re.compile(r"-?\d+(\.\d+)?|True|False|None|\([\d., -]*\)")
_REFERENCE = re.compile(f"{_MARK}([^{_MARK}=]+)(?:=([^{_MARK}]*))?{_MARK}")


def option(name: str, value: object = None) -> str:
    """Return a reference to an option, to be put into a message or a hint.

    The core knows options by the names of their dataclass fields. The command line shows the reference as the flag that
    is typed, Python shows it as the keyword (see `shown`).

    Parameters
    ----------
    name
        The field of the options dataclass.
    value
        What the option is given, if that is to be shown too.

    Examples
    --------
    >>> str(CryobridgeError("the box is not known", hint=f"Give {option('box_px', 128)}."))
    'the box is not known'
    >>> CryobridgeError("the box is not known", hint=f"Give {option('box_px', 128)}.").hint
    'Give box_px=128.'
    """
    return f"{_MARK}{name}{_MARK}" if value is None else f"{_MARK}{name}={value}{_MARK}"


def shown(text: str, show: Callable[[str, str | None], str] | None = None) -> str:
    """Return a text with its references to options as they are shown.

    Parameters
    ----------
    text
        With references that `option` made.
    show
        From the name of an option, and what it is given or None, to what stands in the text. If not given, as the
        command that runs spells it, or as a keyword of Python where none does (`cryobridge.caller`).
    """
    show = show or spelling() or _keyword
    return _REFERENCE.sub(lambda found: show(found[1], found[2]), text)


def _keyword(name: str, value: str | None) -> str:
    if value is None:
        return f"{name}="
    return f"{name}={value if _IS_LITERAL.fullmatch(value) else repr(value)}"


def is_interrupt(error: BaseException | None) -> bool:
    """Whether an error is an interrupt, or arose while one was dealt with."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


class CryobridgeError(ValueError):
    """Bad data or a bad request.

    It is a ValueError, which CryoLike raises in such cases and its scripts catch.

    Parameters
    ----------
    message
        What is wrong, in one sentence, with what was found; it may hold references to options.
    path
        The file or folder that it is wrong in.
    field
        The column, key or block.
    rows
        The first rows (0-based) that are wrong, where rows are.
    count
        How many of them there are in all.
    option
        The option or argument that is wrong, by the name of its keyword.
    hint
        What to do next; it may hold references to options.
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
        option: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self._message = message
        self._hint = hint
        self._note_hint()
        self.path = None if path is None else str(path)
        self.field = field
        self.rows = rows
        self.count = count
        self.option = option

    @property
    def message(self) -> str:
        """What is wrong, with options as keywords of Python."""
        return shown(self._message)

    @property
    def hint(self) -> str | None:
        """What to do next, with options as keywords of Python."""
        return None if self._hint is None else shown(self._hint)

    def text(self, show: Callable[[str, str | None], str] | None = None) -> str:
        """Return place and message, with options as `shown` shows them."""
        place = [shown(option(self.option), show).removesuffix("=")] if self.option else []
        place += [self.path] if self.path else []
        if self.field:
            place.append(self.field)
        if self.rows:
            more = " …" if self.count is not None and self.count > len(self.rows) else ""
            place.append("row " + ", ".join(str(row) for row in self.rows) + more)
        return ": ".join([*place, shown(self._message, show)])

    def hint_text(self, show: Callable[[str, str | None], str] | None = None) -> str:
        """Return what to do next, with options as `shown` shows them; empty where there is nothing to say."""
        return "" if self._hint is None else shown(self._hint, show)

    def add_hint(self, text: str) -> None:
        """Add a sentence to what to do next; it may hold references to options."""
        self._hint = f"{self._hint} {text}" if self._hint else text
        self._note_hint()

    def _note_hint(self) -> None:
        """Have Python (from 3.11 on) show the hint below the error, also of one in a worker of torch."""
        if self.hint is not None:
            self.__notes__: list[str] = [self.hint]

    def __str__(self) -> str:
        return self.text()


class CombinedError(CryobridgeError):
    """Several errors that were found in one go, so that they can be mended in one go."""

    def __init__(self, errors: Sequence[CryobridgeError]) -> None:
        listed = "; ".join(f"({number}) {error}" for number, error in enumerate(errors, 1))
        hints = "; ".join(f"({number}) {error.hint}" for number, error in enumerate(errors, 1) if error.hint)
        super().__init__(f"{len(errors)} errors: {listed}", hint=hints)
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
