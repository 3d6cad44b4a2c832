"""Reading pickles as data: what is plain is given, what asks for code is refused and named.

Python's own unpickler does the reading, behind two guards: `pickle_scan` follows the instructions first, and
`pickle_objects` is all that their names lead to.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import warnings
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from cryobridge.errors import FormatError, UnsafeFileError
from cryobridge.formats.input_file import open_input, read_error, readable_size
from cryobridge.formats.pickle_objects import MalformedError, Opaque, Unpickler, plain_value
from cryobridge.formats.pickle_scan import scan_instructions

SHOWN = 5
_DEEPEST = 100
# Containers that are in several others may unfold to so many items, or to twice as many as are in the file.
_FREE_ITEMS = 1 << 16
_CONTAINERS = (dict, list, tuple, set, frozenset)
_PLAIN = frozenset({int, float, str, bytes, bool, type(None)})
_COMPUTED = "a name that is computed while it runs"
_LONGEST_REASON = 200
_CHECK_FILE = "Check that it is the file that was meant, and copy it again."
# What Python's unpickler raises on damaged files.
_ERRORS = (
    *(MalformedError, pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError),
    *(ImportError, OverflowError, MemoryError),
)


class _Read(NamedTuple):
    """What was read of a pickle: its value or a fault, and what it names."""

    value: Any
    fault: str
    names: tuple[str, ...]
    refused: tuple[str, ...]


def load_pickle(path: str | os.PathLike[str]) -> Any:
    """Read a pickle file that holds nothing but numbers, text, containers of them and numpy arrays.

    Raises
    ------
    UnsafeFileError
        If it names anything else. The error lists the names; none of them was imported or called.
    FormatError
        If the file can't be read or is not a pickle, claims more data than it has, or is nested more than 100 deep.

    Examples
    --------
    >>> poses = load_pickle("poses.pkl")  # doctest: +SKIP
    """
    path = Path(path)
    return _plain(_read_file(path, None), path, None)


def load_pickle_bytes(data: bytes, path: Path, field: str) -> Any:
    """Read a pickle that is part of the file ``path``, under the same rules as `load_pickle`."""
    return _plain(_sound(_read(io.BytesIO(data), len(data)), path, field), path, field)


def scan_pickle(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """List what a pickle file names, as ``module.name``, in the order of the file; nothing is imported.

    Raises
    ------
    UnsafeFileError
        If a name is not in the file but would be computed while it runs.
    FormatError
        If the file can't be read or is not a pickle.
    """
    read = _read_file(Path(path), None)
    return tuple(dict.fromkeys((*read.names, *read.refused)))


def scan_pickles_in(data: bytes) -> tuple[str, ...]:
    """List what the pickles in ``data``, which follow one another from its start, name; stop where there is none."""
    stream, names = io.BytesIO(data), dict[str, None]()
    while stream.tell() < len(data):
        read = _read(stream, len(data))
        names |= dict.fromkeys(read.names)
        if read.fault:
            break
    return tuple(names)


def peek_pickle(path: str | os.PathLike[str]) -> tuple[Any, tuple[str, ...]]:
    """Read what can be read of a pickle file that `load_pickle` refuses.

    Returns
    -------
    value
        The content, with an `Opaque` in the place of everything that only running code could make.
    refused
        The names of that code.

    Raises
    ------
    FormatError
        As for `load_pickle`.
    """
    path = Path(path)
    read = _read_file(path, None)
    return _content(read.value, path, None, admit_opaque=True), read.refused


def _read_file(path: Path, field: str | None) -> _Read:
    size = readable_size(path)
    try:
        # A map, unlike a file, gives no more than there is when an instruction claims a string of a terabyte.
        with open_input(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return _sound(_read(cast("IO[bytes]", mapped), size), path, field)
    except OSError as error:
        raise read_error(path, error) from error


def _read(stream: IO[bytes], size: int) -> _Read:
    """Read one pickle, and leave the stream behind it; of a faulty one, what comes before the fault for its names."""
    start = stream.tell()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's, of odd escapes in the text of old files
        scan = scan_instructions(stream, size)
        stream.seek(start)
        unpickler = Unpickler(_stopped(stream, scan.end - start) if scan.fault else stream, size)
        value, fault, computed = None, scan.fault, False
        try:
            value = unpickler.load()
        except _ERRORS as error:
            fault = fault or str(error)[:_LONGEST_REASON] or type(error).__name__
            computed = "STACK_GLOBAL" in str(error)
    stream.seek(scan.end)
    refused = (*unpickler.refused, *scan.refused, *([_COMPUTED] if computed else []))
    return _Read(value, fault, tuple(unpickler.names), refused)


def _stopped(stream: IO[bytes], n_bytes: int) -> IO[bytes]:
    """Return a pickle that stops after so many bytes; it is as long as before, since a frame of it holds its length."""
    content = stream.read()
    return io.BytesIO(content[:n_bytes] + pickle.STOP * (len(content) - n_bytes))


def _sound(read: _Read, path: Path, field: str | None) -> _Read:
    """Return what was read, unless it is faulty."""
    if not read.fault:
        return read
    if read.refused:
        raise _unsafe(read.refused, path, field)
    raise FormatError(f"not a pickle file, or a damaged one: {read.fault}", path=path, field=field, hint=_CHECK_FILE)


def _plain(read: _Read, path: Path, field: str | None) -> Any:
    if read.refused:
        raise _unsafe(read.refused, path, field)
    return _content(read.value, path, field, admit_opaque=False)


def _unsafe(refused: tuple[str, ...], path: Path, field: str | None) -> UnsafeFileError:
    shown = ", ".join(refused[:SHOWN]) + (" …" if len(refused) > SHOWN else "")
    return UnsafeFileError(
        f"reading it would run code: it asks for {shown}. Nothing was run",
        path=path,
        field=field,
        count=len(refused),
        hint="Only numbers, text and numpy arrays are read from pickles; have the data saved as those.",
    )


def _content(value: Any, path: Path, field: str | None, *, admit_opaque: bool) -> Any:
    """Return the value with arrays in the place of what the unpickler held for them.

    Refuse what is too deep or too large for those who walk through it, and names that were left uncalled.
    """
    walk = _Walk(admit_opaque=admit_opaque)
    try:
        return walk.final([value])[0]
    except MalformedError as error:
        raise FormatError(
            f"not a pickle file, or a damaged one: {error}", path=path, field=field, hint=_CHECK_FILE
        ) from error
    except _TooMuchError as error:
        hint = "No program of the field writes such a file; don't trust it."
        raise FormatError(str(error), path=path, field=field, hint=hint) from error


class _TooMuchError(Exception):
    """A container holds itself, or is too deep, or unfolds to too much; the message says which."""


class _Known(NamedTuple):
    container: Any  # kept, so that its id is no other's
    final: Any
    depth: int
    size: int  # items, counted as often as they are reached


class _Walk:
    """Goes through containers, the innermost first. One may be in several others: few can unfold to very many."""

    def __init__(self, *, admit_opaque: bool) -> None:
        self._admit_opaque = admit_opaque
        self._known: dict[int, _Known | None] = {}
        self._n_items = 0

    def final(self, root: Any) -> Any:
        todo = [root]
        while todo:
            container = todo[-1]
            if id(container) not in self._known:
                self._known[id(container)] = None
                self._n_items += len(container)
                todo += [part for part in _parts(container) if isinstance(part, _CONTAINERS)]
            else:
                todo.pop()
                if self._known[id(container)] is None:
                    self._known[id(container)] = self._finished(container)
        return self._of(root).final

    def _of(self, container: Any) -> _Known:
        known = self._known[id(container)]
        if known is None:
            raise _TooMuchError("it holds a container that contains itself")
        return known

    def _finished(self, container: Any) -> _Known:
        inner = [self._of(part) for part in _parts(container) if isinstance(part, _CONTAINERS)]
        # The list around all of it is not the file's.
        depth = 1 + max((known.depth for known in inner), default=-1)
        if depth > _DEEPEST:
            raise _TooMuchError(f"its content is nested more than {_DEEPEST} deep")
        size = len(container) + sum(known.size for known in inner)
        if size > max(_FREE_ITEMS, 2 * self._n_items):
            raise _TooMuchError("its lists stand in each other so often that they unfold to very many items")
        return _Known(container, self._replaced(container), depth, size)

    def _replaced(self, container: Any) -> Any:
        """Return a container with data in the place of the unpickler's objects; the same one if it can be changed."""
        if isinstance(container, dict):
            items = [(self._key(key), self._value(value)) for key, value in container.items()]
            container.clear()
            container.update(items)
            return container
        is_hashed = isinstance(container, set | frozenset)
        values = [self._key(part) if is_hashed else self._value(part) for part in container]
        if isinstance(container, list):
            container[:] = values
            return container
        return type(container)(values)

    def _value(self, value: Any) -> Any:
        if type(value) in _PLAIN:
            return value
        if isinstance(value, _CONTAINERS):
            return self._of(value).final
        plain = plain_value(value)
        if isinstance(plain, Opaque) and not self._admit_opaque:
            raise MalformedError(f"it holds {plain.name} itself, which is no data")
        return plain

    def _key(self, key: Any) -> Any:
        parts = key if isinstance(key, tuple) else (key,)
        if any(isinstance(part, _CONTAINERS) for part in parts):
            raise MalformedError("a key that is neither a number nor text")
        return tuple(map(self._value, key)) if isinstance(key, tuple) else self._value(key)


def _parts(container: Any) -> Any:
    return container.values() if isinstance(container, dict) else container
