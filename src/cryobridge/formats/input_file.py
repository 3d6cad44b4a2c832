"""Input files: nothing but a regular file is ever opened, wherever its name comes from."""

from __future__ import annotations

import errno
import os
import stat
from itertools import islice
from pathlib import Path
from typing import IO

from cryobridge.errors import FormatError

# Of a folder with more entries, some are compared: a suggestion is not worth a long wait.
_MOST_ENTRIES = 5000
# Up to here a compressed file may unpack to anything; beyond, to no more than this many times its own size.
_UNPACKED_FREE_BYTES = 256 << 20
_UNPACKED_RATIO = 100


def open_input(path: Path) -> IO[bytes]:
    """Open a file for reading; pipes, which could hang, and devices, which have no end, are refused.

    Raises
    ------
    FormatError
        If it is none.
    OSError
        If the system refuses (`read_error` says so).
    """
    _refuse_others(path, path.stat().st_mode)
    # What took its place meanwhile does not hang either.
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_NOCTTY))  # noqa: SIM115
    try:
        _refuse_others(path, os.fstat(file.fileno()).st_mode)
    except FormatError:
        file.close()
        raise
    return file


def read_input(path: Path, n_bytes: int = -1) -> bytes:
    """Return the content of a file, or so many bytes of its beginning; see `open_input`."""
    with open_input(path) as file:
        return file.read(n_bytes)


def resolved(path: Path) -> Path:
    """Return a path without links and ``..``, whether it is there or not.

    Raises
    ------
    FormatError
        If the system can't say where a link leads: `Path.resolve` would return the link, and files be taken for others;
        or if no file can have the name.
    """
    try:
        return path.resolve(strict=True)
    except (FileNotFoundError, NotADirectoryError):
        return path.resolve()
    except RuntimeError as error:
        raise read_error(path, OSError(errno.ELOOP, str(error))) from error
    except (OSError, ValueError) as error:
        raise read_error(path, error) from error


def _refuse_others(path: Path, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise FormatError("this is a folder, not a file", path=path, hint="Name a file in it.")
    what = "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
    leads = f"leads to {os.path.realpath(path)}, " if path.is_symlink() else "is "
    raise FormatError(f"{leads}{what} and not a regular file", path=path, hint="Name a file on the disk.")


def unpacks_to_too_much(packed_bytes: int, unpacked_bytes: int) -> bool:
    """Whether so much would come out of so small a file that it was made to fill the memory."""
    return unpacked_bytes > max(_UNPACKED_FREE_BYTES, _UNPACKED_RATIO * packed_bytes)


def readable_size(path: Path) -> int:
    """Return the size in bytes of a file that is about to be read.

    Raises
    ------
    FormatError
        If it is absent, may not be read, is empty, or is a folder, pipe or device.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # a name with a NUL is no file's
        raise read_error(path, error) from error
    _refuse_others(path, status.st_mode)
    if (size := status.st_size) == 0:
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
    if isinstance(error, ValueError):
        what = "a NUL" if "\0" in os.fspath(path) else "half of a character, which a program lost the rest of"
        return FormatError(
            f"no file can have this name: it holds {what}",
            path=path,
            hint="Correct the name in the file that it stands in, such as job.json, or give the file that is meant.",
        )
    is_absent, remedy = isinstance(error, FileNotFoundError | NotADirectoryError), _read_remedy(error)
    return FormatError(
        f"can't be read ({getattr(error, 'strerror', None) or error})",
        path=path,
        hint=meant(path, remedy) if is_absent else remedy,
    )


def _read_remedy(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "Check the name; it counts from the folder that you are in."
    if isinstance(error, PermissionError):
        return "You may not read it: ask its owner, or for a copy."
    return "Check the name and its permissions."


def nearest(path: Path) -> Path | None:
    """Return a file or folder that is there and has nearly the name of one that is not.

    Parameters
    ----------
    path
        What is not there. Each part of it that is not is compared with the names in the folder before it.

    Returns
    -------
    pathlib.Path or None
        None where one of the parts is like no name there.
    """
    found, parts = Path(path.anchor), path.parts[1:] if path.anchor else path.parts
    for part in parts:
        if part == ".." or os.path.lexists(found / part):
            found /= part
            continue
        name = _nearest_name(part, found)
        if name is None:
            return None
        found /= name
    return found if found.exists() else None


def meant(path: Path, remedy: str) -> str:
    """Return the question whether another file or folder is meant, or a remedy where none has nearly this name."""
    near = nearest(path)
    return remedy if near is None else f"Did you mean {near}?"


def _nearest_name(name: str, folder: Path) -> str | None:
    """Return the name in a folder that is most like another, of files without regard to how they end."""
    from difflib import get_close_matches

    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in islice(entries, _MOST_ENTRIES) if not entry.name.startswith("."))
    except (OSError, ValueError):
        return None
    by_lower = {other.lower(): other for other in names}
    close = [by_lower[other] for other in get_close_matches(name.lower(), by_lower, n=1, cutoff=0.75)]
    same_stem = [other for other in names if Path(other).stem.lower() == Path(name).stem.lower()]
    return next(iter(close + same_stem), None)
