"""What every file format offers; `cryobridge.formats.registry` lists them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class Format(Protocol):
    """A file format.

    Attributes
    ----------
    name
        One word, such as ``star``.
    words
        What a file of it is called, with its article.
    suffixes
        What its files' names may end in, the usual one first.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def words(self) -> str: ...  # noqa: D102

    @property
    def suffixes(self) -> tuple[str, ...]: ...  # noqa: D102

    def recognise(self, head: bytes, path: Path) -> bool:
        """Whether a file is of this format, by its first bytes; a name decides only where they can't.

        Raises
        ------
        FormatError
            If the file is damaged so that nothing can be said.
        """

    def read(self, path: Path) -> Any:
        """Open a file: a table, a mapping of arrays, an array, or what else the format holds.

        Raises
        ------
        FormatError
            If it can't be read.
        """

    def write(self, path: Path, content: Any) -> None:
        """Write what `read` returns, under the final name only when it is whole.

        Raises
        ------
        CryobridgeError
            If the file can't be written, or the content is not of this format.
        """

    def columns(self, path: Path) -> tuple[str, ...]:
        """Return the names of a file's columns or arrays; none where it has one array without a name."""


@dataclass(frozen=True)
class FileFormat:
    """A `Format` made of functions, which import what they need when they are called."""

    name: str
    words: str
    suffixes: tuple[str, ...]
    _recognise: Callable[[bytes, Path], bool]
    _read: Callable[[Path], Any]
    _write: Callable[[Path, Any], None]
    _columns: Callable[[Any], tuple[str, ...]] = lambda _: ()

    def recognise(self, head: bytes, path: Path) -> bool:
        """Whether a file is of this format (see `Format`)."""
        return self._recognise(head, path)

    def read(self, path: Path) -> Any:
        """Open a file (see `Format`)."""
        return self._read(path)

    def write(self, path: Path, content: Any) -> None:
        """Write a file (see `Format`)."""
        self._write(path, content)

    def columns(self, path: Path) -> tuple[str, ...]:
        """Return the names of a file's columns or arrays (see `Format`)."""
        return self._columns(self._read(path))
