"""Links to image files, and copies of them, which outputs name."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryobridge.errors import CryobridgeError, option
from cryobridge.formats.atomic import atomic_path
from cryobridge.formats.mrc_write import copy_changed
from cryobridge.jobs.output_folder import make_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy as np
    from numpy.typing import NDArray

    from cryobridge.formats.mrc import Images
    from cryobridge.progress import Reporter


@dataclass(frozen=True)
class Link:
    """A link or a copy to be made.

    Parameters
    ----------
    path
        The link.
    target
        The image file.
    change
        Of a copy with other pixels: what becomes of them, as `cryobridge.formats.mrc_write.copy_changed` takes it.
    as_float32
        Of a copy with other pixels: whether they become float32, whatever they are.
    """

    path: Path
    target: Path
    change: Callable[[NDArray[np.int64], Images], Images] | None = None
    as_float32: bool = False


def as_seen_from(path: Path, project: Path | None) -> str:
    """Return a path as it is written: from the project (or the working directory) where it lies below that."""
    absolute = Path(os.path.normpath(path.absolute()))
    base = Path(os.path.normpath((Path() if project is None else project).absolute()))
    return str(absolute.relative_to(base)) if absolute.is_relative_to(base) else str(absolute)


def make_links(
    links: Iterable[Link], *, copy: bool, reporter: Reporter, place: str = "link_stacks", replaces: bool = False
) -> None:
    """Make the links, or the copies; a link that is there under the same name is replaced, a file by a copy only.

    Parameters
    ----------
    links
        What is to be made.
    copy
        Copies instead of links.
    reporter
        Who hears of each one.
    place
        The option that says where they go.
    replaces
        Whether a link replaces a file, too.

    Raises
    ------
    CryobridgeError
        If a file stands where a link shall go, or the operating system refuses.
    """
    folders: set[Path] = set()
    for link in links:
        if link.path.parent not in folders:
            make_folder(link.path.parent)
            folders.add(link.path.parent)
        if not copy and link.change is None and _is_linked_anew(link):
            reporter.advance()
            continue
        if not (copy or replaces) and link.path.exists() and not link.path.is_symlink():
            raise CryobridgeError(
                "a file is there, which no link replaces",
                path=link.path,
                hint=f"Give another folder to {option(place)}, or remove the file.",
            )
        try:
            with atomic_path(link.path) as temporary:
                if link.change is not None:
                    copy_changed(link.target, temporary, link.change, as_float32=link.as_float32)
                elif copy:
                    shutil.copyfile(link.target, temporary)
                else:
                    temporary.symlink_to(link.target)
        except OSError as error:
            raise CryobridgeError(
                f"can't be copied to {link.path} ({error.strerror or error})",
                path=link.target,
                hint="Check that you may read it, and that the disk has space left.",
            ) from error
        reporter.advance()


def _is_linked_anew(link: Link) -> bool:
    """Make a link where nothing is yet, which is one step; return whether that was so and could be done."""
    try:
        link.path.symlink_to(link.target)
    except OSError:
        return False
    return True


def in_the_way(links: Iterable[Link]) -> list[Path]:
    """Return the files, no links themselves, that stand where links or copies are to go."""
    return [link.path for link in links if link.path.exists() and not link.path.is_symlink()]


def is_made(link: Link, *, copy: bool) -> bool:
    """Whether the link is there already and leads to its file, or is the file itself.

    Copies with other pixels are made anew.
    """
    if link.change is not None:
        return False
    try:
        is_same = link.path.samefile(link.target)
    except OSError:
        return False
    return is_same and not (copy and link.path.is_symlink())
