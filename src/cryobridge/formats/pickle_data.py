"""Reading pickles as data: what is plain is given, what asks for code is refused and named."""

from __future__ import annotations

import io
import mmap
import os
import warnings
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from cryobridge.errors import FormatError, UnsafeFileError
from cryobridge.formats.atomic import read_error, readable_size

if TYPE_CHECKING:
    pass
from cryobridge.formats.pickle_machine import COMPUTED, Machine, MalformedError, Opaque

_DEEPEST = 100
SHOWN = 5
_CHECK_FILE = "Check that it is the file that was meant, and copy it again."


def load_pickle(path: str | os.PathLike[str]) -> Any:
    """Read a pickle file that holds nothing but numbers, text, containers of them and numpy arrays.

    Raises
    ------
    UnsafeFileError
        If it names anything else. The error lists the names; none of them was imported or called.
    FormatError
        If the file can't be read or is not a pickle, claims more data than it has, or is nested more than 100 deep.
    """
    path = Path(path)
    return _admitted(*_run_file(path), path, None)


def load_pickle_bytes(data: bytes, path: Path, field: str) -> Any:
    """Read a pickle that is part of the file ``path``, under the same rules as `load_pickle`."""
    return _admitted(*_run(io.BytesIO(data), len(data), path, field), path, field)


def scan_pickle(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """List what a pickle file names, as ``module.name``, in the order of the file; nothing is imported.

    Raises
    ------
    UnsafeFileError
        If a name is not in the file but would be computed while it runs.
    FormatError
        If the file can't be read or is not a pickle.
    """
    path = Path(path)
    _, machine = _run_file(path)
    names = machine.names | machine.refused
    if COMPUTED in names:
        raise _unsafe(machine, path, None)
    return tuple(names)


def scan_pickles_in(data: bytes) -> tuple[str, ...]:
    """List what the pickles in ``data``, which follow one another from its start, name; stop where there is none."""
    stream, names = io.BytesIO(data), dict[str, None]()
    while stream.tell() < len(data):
        machine = Machine(stream, len(data))
        try:
            machine.run()
        except MalformedError:
            return tuple(names | machine.names)
        names |= machine.names
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
    value, machine = _run_file(path)
    _check_content(value, path, None, admit_opaque=True)
    return value, tuple(machine.refused)


def _run_file(path: Path) -> tuple[Any, Machine]:
    size = readable_size(path)
    try:
        # A map, unlike a file, gives no more than there is when an instruction claims a string of a terabyte.
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return _run(cast("IO[bytes]", mapped), size, path, None)
    except OSError as error:
        raise read_error(path, error) from error


def _run(stream: IO[bytes], size: int, path: Path, field: str | None) -> tuple[Any, Machine]:
    machine = Machine(stream, size)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python's, of odd escapes in the text of old files
            return machine.run(), machine
    except MalformedError as error:
        if machine.refused:
            raise _unsafe(machine, path, field) from error
        raise FormatError(
            f"not a pickle file, or a damaged one: {error}",
            path=path,
            field=field,
            hint=_CHECK_FILE,
        ) from error


def _admitted(value: Any, machine: Machine, path: Path, field: str | None) -> Any:
    if machine.refused:
        raise _unsafe(machine, path, field)
    _check_content(value, path, field, admit_opaque=False)
    return value


def _unsafe(machine: Machine, path: Path, field: str | None) -> UnsafeFileError:
    shown = ", ".join(list(machine.refused)[:SHOWN]) + (" …" if len(machine.refused) > SHOWN else "")
    return UnsafeFileError(
        f"reading it would run code: it asks for {shown}. Nothing was run",
        path=path,
        field=field,
        count=len(machine.refused),
        hint="Only numbers, text and numpy arrays are read from pickles; have the data saved as those.",
    )


def _check_content(value: Any, path: Path, field: str | None, *, admit_opaque: bool) -> None:
    """Refuse what is nested too deep for those who walk through it, and names that were left uncalled."""
    level, seen = [value], set[int]()
    for _ in range(_DEEPEST):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict | list | tuple | set | frozenset):
                if id(item) not in seen:
                    seen.add(id(item))
                    inner.extend(item.values() if isinstance(item, dict) else item)
            elif isinstance(item, Opaque) and not admit_opaque:
                raise FormatError(
                    f"it holds {item.name} itself, which is no data", path=path, field=field, hint=_CHECK_FILE
                )
        level = inner
        if not level:
            return
    raise FormatError(
        f"its content is nested more than {_DEEPEST} deep",
        path=path,
        field=field,
        hint="No program of the field writes such a file; don't trust it.",
    )
