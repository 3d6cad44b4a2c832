"""Files on the disk are whole under their final name when they are written."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cryobridge.errors import CryobridgeError
from cryobridge.formats.lease import State, holding, lease_name, lease_path, remove_dead, state_of, when_dead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


# The lease that the name of a temporary file carries keeps other runs from removing it (`cryobridge.formats.lease`).
_TEMPORARY = re.compile(r"\.(?P<stem>.*)\.(?P<lease>[0-9a-f]{8}-[0-9a-f]{8})-[0-9a-f]{6}(\..*)?", re.DOTALL)
_MOST_NAME_BYTES = 255
MAY_NOT = "You may not write there: choose another folder, or ask its owner."
# What is added to the name of a temporary folder when it is moved out of the way counts, too.
_OTHER_BYTES = len("..01234567-01234567-012345.old")
_COMPARED_BYTES = 1 << 20
# Longer ones are no suffixes that a writer looks at.
_MOST_SUFFIX_BYTES = 32
# Folders that this process has looked through for what killed ones left.
_tidied: set[Path] = set()


@dataclass
class _Set:
    """Files that wait for each other, each with its temporary path, and the leases on these."""

    leases: ExitStack
    files: list[tuple[Path, Path]] = field(default_factory=list)
    outdated: list[Path] = field(default_factory=list)


_waiting: ContextVar[_Set | None] = ContextVar("waiting", default=None)


@contextmanager
def atomic_path(final: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``final``; rename it to ``final`` when the block ends well.

    The temporary name starts with a dot and keeps the suffix, so that listings pass over it and writers that
    look at the suffix are content. It lies in the same folder, hence on the same file system, where a rename
    is one step. A block that raises leaves nothing behind and an older ``final`` as it was; a file that is replaced
    hands on its permissions. What a process that was killed has left in the folder is removed. Of two that write one
    file at once, the last one's stays.

    Parameters
    ----------
    final
        Where the file shall be. Whether it may be overwritten is the caller's question. If it is a link, the
        link is replaced and what it points to is left alone.

    Yields
    ------
    pathlib.Path
        The path to write to.

    Raises
    ------
    CryobridgeError
        When the operating system refuses: no such folder, no permission, no space left.
    """
    waiting = _waiting.get()
    temporary = None
    is_kept = False
    with ExitStack() as leases:
        try:
            lease = (leases if waiting is None else waiting.leases).enter_context(_lease_on(final.parent))
            temporary = _temporary_path(final, lease)
            yield temporary
            _take_mode(temporary, final)
            if waiting is None:
                rename(temporary, final)
            else:
                waiting.files.append((temporary, final))
                is_kept = True
        except OSError as error:
            # An error that names another file (an input that could not be read) is not ours to explain.
            if error.filename is not None and not _is_ours(error.filename, temporary):
                raise
            raise write_error(final, error) from error
        finally:
            if temporary is not None and not is_kept:
                _remove(temporary)


def _is_ours(name: object, temporary: Path | None) -> bool:
    path = Path(os.fsdecode(name)) if isinstance(name, str | bytes | os.PathLike) else None
    return path is not None and (path == temporary or lease_name(path.name) is not None)


def _take_mode(temporary: Path, final: Path) -> None:
    """Give a file the permissions of the one that it is to replace."""
    with suppress(OSError):
        old, new = final.lstat(), temporary.lstat()
        if stat.S_ISREG(old.st_mode) and stat.S_ISREG(new.st_mode) and old.st_mode != new.st_mode:
            temporary.chmod(stat.S_IMODE(old.st_mode))


def rename(temporary: Path, final: Path) -> None:
    """Give a file its final name; what the system says of it counts only where the file has not got that name.

    A network disk may do what it was asked for and lose its answer: asked again, it finds no file of the first name.

    Raises
    ------
    OSError
        If the file is not under its final name.
    """
    with ExitStack() as stack:
        file = _opened(temporary, stack)
        try:
            temporary.replace(final)
        except OSError:
            there = None if file is None else _opened(final, stack)
            if file is None or there is None or not _is_same(file, there):
                raise
            _remove(temporary)


def _opened(path: Path, stack: ExitStack) -> int | None:
    """Open a file for as long as a stack lives, by which a network disk looks at it anew; None where that fails."""
    with suppress(OSError):
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        stack.callback(os.close, file)
        return file
    return None


def _is_same(file: int, other: int) -> bool:
    """Whether two open files are one, or have the same content."""
    status, other_status = os.fstat(file), os.fstat(other)
    if os.path.samestat(status, other_status):
        return True
    if not stat.S_ISREG(status.st_mode) or status.st_size != other_status.st_size:
        return False
    places = range(0, status.st_size, _COMPARED_BYTES)
    with suppress(OSError):
        return all(os.pread(file, _COMPARED_BYTES, at) == os.pread(other, _COMPARED_BYTES, at) for at in places)
    return False


@contextmanager
def together() -> Iterator[Callable[[Path], None]]:
    """Let files that belong together appear under their names together, when all of them are whole.

    The files are those that `atomic_path` is asked for within the block; if it raises, none of them appears, and
    older ones stay as they were. A block within another one adds to its files.

    Yields
    ------
    callable
        Takes the path of an older file that does not go with the new ones: it is removed when these have appeared.

    Raises
    ------
    CryobridgeError
        When the operating system refuses to rename or remove them.
    """
    if (outer := _waiting.get()) is not None:
        yield outer.outdated.append
        return
    with ExitStack() as leases:
        waiting = _Set(leases)
        token = _waiting.set(waiting)
        try:
            yield waiting.outdated.append
            for temporary, final in waiting.files:
                with _explained(final):
                    rename(temporary, final)
            for path in waiting.outdated:
                with _explained(path):
                    path.unlink(missing_ok=True)
        finally:
            _waiting.reset(token)
            for temporary, _ in waiting.files:
                _remove(temporary)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise write_error(path, error) from error


@contextmanager
def temporary_path(final: Path) -> Iterator[Path]:
    """Yield a new hidden name beside a file or folder, which no other run takes for a leftover within the block.

    Raises
    ------
    OSError
        If the folder can't be written to.
    """
    with _lease_on(final.parent) as lease:
        yield _temporary_path(final, lease)


@contextmanager
def _lease_on(folder: Path) -> Iterator[str]:
    """Hold a lease on temporary files in a folder; those within a temporary folder of ours are safe by its own."""
    if (match := _TEMPORARY.fullmatch(folder.name)) is not None:
        yield match["lease"]
        return
    tidy(folder)
    with holding(folder) as lease:
        yield lease.name


def _temporary_path(final: Path, lease: str) -> Path:
    suffix = final.suffix if len(os.fsencode(final.suffix)) <= _MOST_SUFFIX_BYTES else ""
    stem = os.fsencode(final.name.removesuffix(suffix))
    stem = stem[: _MOST_NAME_BYTES - _OTHER_BYTES - len(os.fsencode(suffix))]
    # A letter of several bytes is taken whole or not at all, as some file systems need it.
    kept = stem.decode("utf-8", "ignore") if final.name.isprintable() else os.fsdecode(stem)
    return final.with_name(f".{kept}.{lease}-{secrets.token_hex(3)}{suffix}")


def leftovers(folder: Path, stem_prefix: str = "", *, of_any_host: bool = False) -> list[Path]:
    """Return temporary files and folders that killed processes left in a folder, by how their names begin.

    Those of processes that are running are not among them.

    Parameters
    ----------
    folder, stem_prefix
        Where, and what the names begin with after the dot.
    of_any_host
        Whether those are taken too of which it can't be seen whether their runs are at work, on other machines: for
        who has the folder for himself.
    """
    found: list[Path] = []
    states: dict[str, State] = {}
    for path, lease in _temporaries(folder):
        state = states.setdefault(lease, state_of(lease_path(folder, lease)))
        is_left = state is State.DEAD or (of_any_host and state is State.UNKNOWN)
        if is_left and path.name[1:].startswith(stem_prefix):
            found.append(path)
    if not stem_prefix:
        leases = [lease_path(folder, name) for name in _leases(folder)]
        found += [path for path in leases if state_of(path) is State.DEAD]
    return found


def _leases(folder: Path) -> set[str]:
    """Return the names of the leases in a folder."""
    try:
        return {name for path in folder.iterdir() if (name := lease_name(path.name))}
    except OSError:
        return set()


def _temporaries(folder: Path) -> list[tuple[Path, str]]:
    """Return the temporary files and folders in a folder, each with the name of its lease."""
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return []
    return [(folder / name, match["lease"]) for name in names if (match := _TEMPORARY.fullmatch(name))]


def write_error(path: Path, error: OSError) -> CryobridgeError:
    """Return the error that says that ``path`` can't be written, and what to do about it."""
    return CryobridgeError(f"can't be written ({error.strerror or error})", path=path, hint=write_remedy(error))


def write_remedy(error: OSError) -> str:
    """Return what to do where the system refuses to write."""
    if is_forbidden(error):
        return MAY_NOT
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return "Free some space, or write to another disk."
    return "Check that the folder exists, that you may write in it, and that the disk has space left."


def is_forbidden(error: OSError) -> bool:
    """Whether the system refused something that the user, or nobody, may do there."""
    return error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}


def tidy(folder: Path) -> None:
    """Remove what killed runs left in a folder; what may be of a run on another host when its lease is seen dead."""
    if folder in _tidied:
        return
    _tidied.add(folder)
    for lease in _leases(folder) | {lease for _, lease in _temporaries(folder)}:
        path = lease_path(folder, lease)
        state = state_of(path)
        if state is State.DEAD:
            _remove_left(folder, lease)
        elif state is State.UNKNOWN:
            when_dead(path, partial(_remove_left, folder, lease))


def _remove_left(folder: Path, lease: str) -> None:
    for path, name in _temporaries(folder):
        if name == lease and (path.is_symlink() or not path.is_dir()):
            _remove(path)
    # Last: what has no lease is nobody's.
    remove_dead(lease_path(folder, lease))


def _remove(path: Path) -> None:
    # What can't be removed must not hide why it was to be removed.
    with suppress(OSError):
        path.unlink(missing_ok=True)
