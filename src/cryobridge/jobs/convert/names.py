"""Names of stacks and micrographs as the other program shall see them, and links to the stacks."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from cryobridge.errors import CryobridgeError, MissingDataError, option
from cryobridge.formats.atomic import atomic_path
from cryobridge.formats.image_search import asking_for
from cryobridge.formats.mrc_write import copy_changed
from cryobridge.jobs.output_folder import make_folder
from cryobridge.report import Message, note, part_of, warning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from cryobridge.formats.image_search import ImageSearch
    from cryobridge.formats.mrc import Images
    from cryobridge.progress import Reporter

_UID_PREFIX = re.compile(r"^[0-9]{21}_")


@dataclass(frozen=True)
class Link:
    """A link or a copy to be made.

    Parameters
    ----------
    path
        The link.
    target
        The stack.
    change
        Of a copy with other pixels: what becomes of them, as `cryobridge.formats.mrc_write.copy_changed` takes it.
    """

    path: Path
    target: Path
    change: Callable[[NDArray[np.int64], Images], Images] | None = None


def start_of_links(project: Path | None) -> Message:
    """Return a message on what the names of linked images start at."""
    if project is None:
        return warning(
            "no-relion-project", "no RELION project above the output: names of images start at the working directory"
        )
    return note("relion-project", f"names of images start at the RELION project {as_seen_from(project, None)}")


def plan_links(
    names: Sequence[str],
    search: ImageSearch,
    folder: Path,
    *,
    strip_uid: bool,
) -> list[Link]:
    """Return a link for each stack, mirrored below a folder under a name that ends in ``.mrcs``.

    Parameters
    ----------
    names
        Distinct names of the stacks.
    search
        Where they are looked for.
    folder
        Where the links go.
    strip_uid
        Take cryoSPARC's uid off their names.

    Raises
    ------
    MissingDataError
        If a stack is not found.
    CryobridgeError
        If two stacks would have one link.
    """
    search = search.among(names)
    found = [search.resolve(name) for name in names]
    missing = [name for name, path in zip(names, found, strict=True) if path is None]
    if missing:
        raise MissingDataError(
            f"{part_of(len(missing), len(names), 'stack')} not found, the first: {missing[0]}",
            path=search.metadata,
            count=len(missing),
            hint=f"Give {asking_for('stacks', names, search)}.",
        )
    links = [
        Link(folder / _mirrored(name, strip_uid=strip_uid), Path(os.path.normpath(path.absolute())))
        for name, path in zip(names, found, strict=True)
        if path is not None
    ]
    _refuse_shared([str(link.path) for link in links], names)
    return links


def _mirrored(name: str, *, strip_uid: bool) -> Path:
    """Return a name as a place below a folder: no root and no way up in it."""
    parts = [part for part in PurePosixPath(name.removeprefix(">")).parts if part not in {"/", ".."}]
    last = _UID_PREFIX.sub("", parts[-1]) if strip_uid else parts[-1]
    return Path(*parts[:-1], str(Path(last).with_suffix(".mrcs")))


def _refuse_shared(new: Sequence[str], old: Sequence[str]) -> None:
    shared = next((name for name, count in Counter(new).items() if count > 1), None)
    if shared is not None:
        both = [before for before, after in zip(old, new, strict=True) if after == shared]
        raise CryobridgeError(
            f"{both[0]} and {both[1]} would both become {shared}",
            hint=f"Leave out {option('strip_uid')}, or rename one of them.",
        )


def as_seen_from(path: Path, project: Path | None) -> str:
    """Return a path as it is written: from the project (or the working directory) where it lies below that."""
    absolute = Path(os.path.normpath(path.absolute()))
    base = Path(os.path.normpath((Path() if project is None else project).absolute()))
    return str(absolute.relative_to(base)) if absolute.is_relative_to(base) else str(absolute)


def micrograph_names(names: Sequence[str], *, strip_uid: bool, folder: str | None) -> list[str]:
    """Return micrographs' names for the other program.

    Raises
    ------
    CryobridgeError
        If two become one.
    """
    new = []
    for name in names:
        path = PurePosixPath(name)
        own = _UID_PREFIX.sub("", path.name) if strip_uid else path.name
        if folder is not None:
            new.append(str(PurePosixPath(folder) / own))
        else:
            new.append(str(path.with_name(own)) if own != path.name else name)
    _refuse_shared(new, names)
    return new


def make_links(links: Iterable[Link], *, copy: bool, reporter: Reporter) -> None:
    """Make the links, or the copies; a link that is there under the same name is replaced, a file by a copy only.

    Raises
    ------
    CryobridgeError
        If a file stands where a link shall go, or the operating system refuses.
    """
    for link in links:
        make_folder(link.path.parent)
        if not copy and link.path.exists() and not link.path.is_symlink():
            raise CryobridgeError(
                "a file is there, which no link replaces",
                path=link.path,
                hint=f"Give another folder to {option('link_stacks')}, or remove the file.",
            )
        try:
            with atomic_path(link.path) as temporary:
                if link.change is not None:
                    copy_changed(link.target, temporary, link.change)
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


def is_made(link: Link, *, copy: bool) -> bool:
    """Whether the link is there already and leads to its stack, or is the stack itself.

    Copies with other pixels are made anew.
    """
    if link.change is not None:
        return False
    try:
        is_same = link.path.samefile(link.target)
    except OSError:
        return False
    return is_same and not (copy and link.path.is_symlink())
