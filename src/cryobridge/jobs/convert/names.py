"""Names of stacks and micrographs as the other program shall see them."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from cryobridge.errors import CryobridgeError, MissingDataError, option
from cryobridge.formats.image_search import asking_for
from cryobridge.jobs.links import Link, as_seen_from
from cryobridge.report import Message, note, part_of, warning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryobridge.formats.image_search import ImageSearch

_UID_PREFIX = re.compile(r"^[0-9]{21}_")


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
