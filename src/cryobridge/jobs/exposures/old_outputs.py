"""What an older run has left in an output folder beside its lists: links, copies, metadata and gain references."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from cryobridge.errors import CryobridgeError
from cryobridge.formats.input_file import resolved
from cryobridge.formats.listing import list_if_there
from cryobridge.formats.relion.list_names import LIST_FILES
from cryobridge.formats.relion.star import open_star
from cryobridge.jobs.exposures.files import absolute
from cryobridge.jobs.exposures.names import FILE_FOLDERS, MICROGRAPHS, MOVIES, NO_DW

if TYPE_CHECKING:
    from collections.abc import Iterable

_NAMES = ("rlnMicrographName", "rlnMicrographMovieName")
_OF_MICROGRAPHS = {".mrc", ".star"}
_GAIN = re.compile(r"gain\d*\.(?:mrc|gain)")


def files_of_older_lists(folder: Path) -> set[Path]:
    """Return the files of the micrographs and movies that the lists in an output folder name.

    They are those that `micrographs` writes for each of them: the lists need not name all. Of movies only links are
    among them, and copies that are named.

    Parameters
    ----------
    folder
        The output folder, which has cryobridge's record.
    """
    names = _names(folder)
    found: set[Path] = set()
    for place in dict.fromkeys(folder / inner for inner in FILE_FOLDERS):
        tail = f"/{place.relative_to(folder).as_posix()}".rstrip("/.")
        here = [name for name in names if f"/{name.parent.parent}".endswith(tail)]
        stems, named = {name.stem for name in here}, {name.name for name in here if name.parent.name == MOVIES}
        for path in _own_files(place / MICROGRAPHS):
            if path.suffix in _OF_MICROGRAPHS and path.stem.removesuffix(NO_DW) in stems:
                found.add(path)
        for path in _own_files(place / MOVIES):
            if path.name in named or _GAIN.fullmatch(path.name) or (path.is_symlink() and path.stem in stems):
                found.add(path)
    return found


def _names(folder: Path) -> set[PurePosixPath]:
    names: set[str] = set()
    for file in LIST_FILES.values():
        with suppress(CryobridgeError):  # there is no such list, or it is damaged
            star = open_star(folder / file)
            block = star[star.main]
            for label in set(_NAMES) & set(block.names):
                names.update(block.texts(label).to_pylist())
    return {PurePosixPath(name) for name in names}


def _own_files(folder: Path) -> list[Path]:
    """Return the files of a folder; none where it is a link, for what is there lies elsewhere."""
    return [] if folder.is_symlink() else [folder / name for name in list_if_there(folder).files]


def remove_empty_folders(files: Iterable[Path], folder: Path) -> None:
    """Remove the folders below an output folder that files have left empty."""
    for own in {path.parent for path in files}:
        for above in (own, *own.parents):
            if above == folder or folder not in above.parents:
                break
            with suppress(OSError):  # something else is in it
                above.rmdir()


def without_inputs(files: set[Path], inputs: Iterable[Path]) -> set[Path]:
    """Return those of some files that are none of the inputs, under whatever name."""
    read = {place for path in inputs for place in (absolute(path), resolved(path))} if files else set()
    return {path for path in files if absolute(path) not in read and (path.is_symlink() or resolved(path) not in read)}
