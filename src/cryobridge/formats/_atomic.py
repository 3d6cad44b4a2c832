"""A file under its final name is whole: it is written beside it and renamed at the end."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cryobridge.errors import CryobridgeError

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
    temporary = temporary_sibling(final)
    try:
        yield temporary
        temporary.replace(final)
    except OSError as error:
        raise write_error(final, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def temporary_sibling(final: Path) -> Path:
    """Return an unused dot-prefixed name in the folder of ``final``, with the same suffix."""
    return final.with_name(f".{final.stem}.{os.getpid()}-{secrets.token_hex(4)}{final.suffix}")


def write_error(path: Path, error: OSError) -> CryobridgeError:
    """Return the error that says that ``path`` cannot be written, and what to do about it."""
    return CryobridgeError(
        f"cannot be written: {error.strerror or error}",
        path=path,
        hint="Check that the folder exists, that you may write in it, and that the disk has space left.",
    )
