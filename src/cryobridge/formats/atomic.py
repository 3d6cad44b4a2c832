"""Files on the disk: whole under their final name when written, looked at before they are read."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from cryobridge.errors import CryobridgeError, FormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


_HOST = hashlib.sha256(os.uname().nodename.encode()).hexdigest()[:6]
_TEMPORARY = re.compile(r"\.(?P<stem>.+)\.(?P<host>[0-9a-f]{6})-(?P<pid>\d+)-[0-9a-f]{8}(\..*)?")
# Folders that this process has looked through for what killed ones left.
_tidied: set[Path] = set()
_waiting: ContextVar[list[tuple[Path, Path]] | None] = ContextVar("waiting", default=None)


@contextmanager
def atomic_path(final: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``final``; rename it to ``final`` when the block ends well.

    The temporary name starts with a dot and keeps the suffix, so that listings pass over it and writers that
    look at the suffix are content. It lies in the same folder, hence on the same file system, where a rename
    is one step. A block that raises leaves nothing behind and an older ``final`` as it was. What a process that
    was killed has left in the folder is removed. Of two that write one file at once, the last one's stays.

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
    _tidy(final.parent)
    temporary = temporary_path(final)
    waiting = _waiting.get()
    is_kept = False
    try:
        yield temporary
        if waiting is None:
            temporary.replace(final)
        else:
            waiting.append((temporary, final))
            is_kept = True
    except OSError as error:
        # An error that names another file (an input that could not be read) is not ours to explain.
        if error.filename is not None and os.fspath(error.filename) != os.fspath(temporary):
            raise
        raise write_error(final, error) from error
    finally:
        if not is_kept:
            _remove(temporary)


@contextmanager
def together() -> Iterator[Callable[[Path], None]]:
    """Let files that belong together appear under their names together, when all of them are whole.

    The files are those that `atomic_path` is asked for within the block; if it raises, none of them appears, and
    older ones stay as they were.

    Yields
    ------
    callable
        Takes the path of an older file that does not go with the new ones: it is removed when these have appeared.

    Raises
    ------
    CryobridgeError
        When the operating system refuses to rename or remove them.
    """
    files: list[tuple[Path, Path]] = []
    outdated: list[Path] = []
    token = _waiting.set(files)
    try:
        yield outdated.append
        for temporary, final in files:
            with _explained(final):
                temporary.replace(final)
        for path in outdated:
            with _explained(path):
                path.unlink(missing_ok=True)
    finally:
        _waiting.reset(token)
        for temporary, _ in files:
            _remove(temporary)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise write_error(path, error) from error


def temporary_path(final: Path) -> Path:
    """Return a new hidden name beside a file or folder with the machine and the process at work on it."""
    return final.with_name(f".{final.stem}.{_HOST}-{os.getpid()}-{secrets.token_hex(4)}{final.suffix}")


def leftovers(folder: Path, stem_prefix: str = "", *, of_any_host: bool = False) -> list[Path]:
    """Return temporary files and folders that killed processes left in a folder, by how their names begin.

    Those of processes that are running are not among them.

    Parameters
    ----------
    folder, stem_prefix
        Where, and what the names begin with after the dot.
    of_any_host
        Whether those of other machines are taken too, whose processes can't be seen: for who has the folder locked.
    """
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return []
    found = [(name, match) for name in names if (match := _TEMPORARY.fullmatch(name))]
    return [
        folder / name
        for name, match in found
        if match["stem"].startswith(stem_prefix)
        and (not _is_running(int(match["pid"])) if match["host"] == _HOST else of_any_host)
    ]


def write_error(path: Path, error: OSError) -> CryobridgeError:
    """Return the error that says that ``path`` can't be written, and what to do about it."""
    return CryobridgeError(
        f"can't be written ({error.strerror or error})",
        path=path,
        hint="Check that the folder exists, that you may write in it, and that the disk has space left.",
    )


def _tidy(folder: Path) -> None:
    if folder in _tidied:
        return
    _tidied.add(folder)
    for path in leftovers(folder):
        if path.is_symlink() or not path.is_dir():
            _remove(path)


def _remove(path: Path) -> None:
    # What can't be removed must not hide why it was to be removed.
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def readable_size(path: Path) -> int:
    """Return the size in bytes of a file that is about to be read.

    Raises
    ------
    FormatError
        If it is absent, may not be read, is empty, or is a folder, pipe or device.
    """
    try:
        size = path.stat().st_size
    except (OSError, ValueError) as error:  # a name with a NUL is no file's
        raise read_error(path, error) from error
    if path.is_dir():
        raise FormatError("this is a folder, not a file", path=path, hint="Name a file in it.")
    if not path.is_file():
        raise FormatError("not a regular file", path=path, hint="Name a file on the disk.")
    if size == 0:
        raise FormatError(
            "the file is empty", path=path, hint="Copy or export it again; the program that wrote it may have failed."
        )
    return size


def read_error(path: Path, error: OSError | ValueError) -> FormatError:
    """Return the error that says that ``path`` can't be read, and what to do about it."""
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        return FormatError(
            f"can't be read: it is a link to {path.readlink()}, which is not there",
            path=path,
            hint="Find out where that went, and make the link anew.",
        )
    return FormatError(
        f"can't be read ({getattr(error, 'strerror', None) or error})",
        path=path,
        hint="Check the name and its permissions.",
    )
