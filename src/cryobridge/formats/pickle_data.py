"""Reading pickles as data: what is plain is given, what asks for code is refused and named."""

from __future__ import annotations

import io
import mmap
import os
import warnings
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from cryobridge.errors import FormatError, UnsafeFileError
from cryobridge.formats.atomic import read_error, readable_size
from cryobridge.formats.pickle_machine import COMPUTED, Machine, MalformedError, Opaque

_DEEPEST = 100
# Containers that are in several others may unfold to so many items, or to twice as many as are in the file.
_FREE_ITEMS = 1 << 16
_CONTAINERS = (dict, list, tuple, set, frozenset)
SHOWN = 5
_CHECK_FILE = "Check that it is the file that was meant, and copy it again."


class _Extent(NamedTuple):
    depth: int
    size: int  # items, counted as often as they are reached


# Of a container whose content is being looked at.
_BEGUN = _Extent(0, 0)


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
            _run_quietly(machine)
        except MalformedError:
            return tuple(names | machine.names)
        names |= machine.names
    return tuple(names)


def _run_quietly(machine: Machine) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's, of odd escapes in the text of old files
        return machine.run()


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
        return _run_quietly(machine), machine
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
    """Refuse what is too deep or too large for those who walk through it, and names that were left uncalled.

    A container may be in several others, so that few of them can unfold to very many.
    """
    known: dict[int, _Extent] = {}
    n_items = 0
    todo = _worth_a_look([value])
    while todo:
        item = todo[-1]
        if isinstance(item, Opaque):
            if not admit_opaque:
                raise FormatError(
                    f"it holds {item.name} itself, which is no data", path=path, field=field, hint=_CHECK_FILE
                )
            todo.pop()
        elif id(item) not in known:
            known[id(item)] = _BEGUN
            n_items += len(item)
            todo += _worth_a_look(item)
        elif known[id(todo.pop())] is _BEGUN:
            known[id(item)], fault = _extent(item, known, n_items)
            if fault:
                raise FormatError(
                    fault, path=path, field=field, hint="No program of the field writes such a file; don't trust it."
                )


def _worth_a_look(container: Any) -> list[Any]:
    """Return the containers and stand-ins that are in a container."""
    parts = container.values() if isinstance(container, dict) else container
    return [part for part in parts if isinstance(part, (*_CONTAINERS, Opaque))]


def _extent(container: Any, known: dict[int, _Extent], n_items: int) -> tuple[_Extent, str]:
    """Return depth and unfolded size of a container whose content is known, and what is wrong with it."""
    inner = [known[id(part)] for part in _worth_a_look(container) if not isinstance(part, Opaque)]
    if any(extent is _BEGUN for extent in inner):
        return _BEGUN, "it holds a container that contains itself"
    depth = 1 + max((extent.depth for extent in inner), default=0)
    if depth > _DEEPEST:
        return _BEGUN, f"its content is nested more than {_DEEPEST} deep"
    size = len(container) + sum(extent.size for extent in inner)
    unfolds = size > max(_FREE_ITEMS, 2 * n_items)
    return _Extent(
        depth, size
    ), "its lists stand in each other so often that they unfold to very many items" if unfolds else ""
