"""Files on the disk: whole under their final name when written, looked at before they are read."""

from __future__ import annotations

import os
import re
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cryobridge.errors import CryobridgeError, FormatError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def atomic_path(final: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``final``; rename it to ``final`` when the block ends well.

    The temporary name starts with a dot and keeps the suffix, so that listings pass over it and writers that
    look at the suffix are content. It lies in the same folder, hence on the same file system, where a rename
    is one step. A block that raises leaves nothing behind and an older ``final`` as it was.

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
    temporary = final.with_name(f".{final.stem}.{os.getpid()}-{secrets.token_hex(4)}{final.suffix}")
    try:
        yield temporary
        temporary.replace(final)
    except OSError as error:
        # An error that names another file (an input that could not be read) is not ours to explain.
        if error.filename is not None and os.fspath(error.filename) != os.fspath(temporary):
            raise
        raise CryobridgeError(
            f"can't be written ({error.strerror or error})",
            path=final,
            hint="Check that the folder exists, that you may write in it, and that the disk has space left.",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def leftovers(folder: Path, stem_prefix: str) -> list[Path]:
    """Return temporary files of `atomic_path` that a killed process left in a folder, by how their names begin.

    Those of processes that are running are not among them.
    """
    pattern = re.compile(rf"\.{re.escape(stem_prefix)}.*\.(?P<pid>\d+)-[0-9a-f]{{8}}\..+")
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return []
    return [
        folder / name for name in names if (match := pattern.fullmatch(name)) and not _is_running(int(match["pid"]))
    ]


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
    except OSError as error:
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


def read_error(path: Path, error: OSError) -> FormatError:
    """Return the error that says that ``path`` can't be read, and what to do about it."""
    return FormatError(
        f"can't be read ({error.strerror or error})",
        path=path,
        hint="Check the name and its permissions.",
    )
