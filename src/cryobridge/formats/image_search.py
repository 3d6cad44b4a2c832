"""Finding the image files that metadata name."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from cryobridge.errors import CryobridgeError, UsageError, option
from cryobridge.formats.input_file import meant
from cryobridge.formats.listing import is_there
from cryobridge.options import as_path, checked
from cryobridge.report import Message, counted, warning

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cryobridge.formats.mrc_header import MrcHeader

# How far above the metadata file a project folder is looked for.
_MAX_LEVELS_UP = 4
# What a terminal of 80 columns shows of names in two lines.
_MOST_NAME_CHARS = 60
_MOST_NAMES_CHARS = 120
# Stacks that are looked for, and names that a remedy is looked for with; the rest of a project is laid out alike.
_N_TRIED = 200
# Folders beside a job's may be many, and each is tried with each part of a name.
_MOST_FOLDERS_BESIDE = 100
_N_NAMES_BESIDE = 20


@dataclass(frozen=True)
class ImageSearch:
    """Where image files are looked for.

    Without options a name is tried as it stands: beside the metadata file when it starts with cryoSPARC's ``>``,
    else from the working directory, then from the folders above the metadata file, nearest first (a cryoSPARC
    name starts at the project folder, which is above the job's; a RELION name likewise).

    Parameters
    ----------
    metadata
        The file that holds the names.
    datadir
        Look for the name, after `strip_prefix`, below these folders only, in order; then for the bare file name in
        them. One folder, or several.
    strip_prefix
        Leading part to take off each name that starts with it.
    shared
        Bare file names that several names have, which are not looked for by their bare names (`among`).

    Raises
    ------
    UsageError
        If a folder is given that does not exist, or one of them is neither a text nor a path.
    """

    metadata: Path
    datadir: tuple[Path, ...] = ()
    strip_prefix: str | None = None
    shared: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        object.__setattr__(self, "metadata", as_path(self.metadata, "metadata"))
        object.__setattr__(self, "datadir", checked(self.datadir or (), tuple[Path, ...], "datadir"))
        require_folders(self.datadir, "datadir")

    def among(self, names: Iterable[str]) -> ImageSearch:
        """Return the search for these names, of which none is taken for another one's file.

        Parameters
        ----------
        names
            All that are looked for; where two have one bare file name, only their whole names lead to a file.
        """
        if not self.datadir:
            return self
        return replace(self, shared=_shared(names))

    def candidates(self, name: str) -> Iterator[Path]:
        """Yield the places where a name may lie, in the order in which they are tried."""
        beside_metadata = name.startswith(">")
        relative = self._stripped(name.removeprefix(">"))
        if self.datadir:
            below = relative.relative_to("/") if relative.is_absolute() else relative
            yield from (folder / below for folder in self.datadir)
            if len(below.parts) > 1 and below.name not in self.shared:
                yield from (folder / below.name for folder in self.datadir)
        elif relative.is_absolute():
            yield relative
        elif beside_metadata:
            yield self.metadata.parent / relative
        else:
            yield relative
            yield from (folder / relative for folder in self._above)

    @cached_property
    def _above(self) -> list[Path]:
        return folders_above(self.metadata)

    def resolve(self, name: str) -> Path | None:
        """Return the first candidate that is a file, or None."""
        return next((path for path in self.candidates(name) if is_there(path)), None)

    def header(self, name: str) -> MrcHeader | None:
        """Return the header of the first candidate that is a file; None where there is none or it can't be read."""
        from cryobridge.formats.mrc_header import read_header

        path = self.resolve(name)
        try:
            return None if path is None else read_header(path)
        except CryobridgeError:
            return None

    def places(self, name: str) -> str:
        """Say where a name was looked for, such as ``below cryosparc/J4 and cryosparc``."""
        if self.datadir:
            bare = "" if Path(name).name in self.shared else f", also by its bare name {Path(name).name}"
            return f"below {' and '.join(map(str, self.datadir))}{bare}"
        if Path(name).is_absolute():
            return "under the whole name"
        if name.startswith(">"):
            return f"below {self.metadata.parent}"
        folder = folders_above(self.metadata)[0]
        if folder == Path.cwd():
            return "below the working directory and the folders above"
        return f"below the working directory, {as_given(folder, self.metadata)} and the folders above it"

    def _stripped(self, name: str) -> Path:
        path = Path(name)
        if self.strip_prefix and path.is_relative_to(self.strip_prefix):
            return path.relative_to(self.strip_prefix)
        return path


def _shared(names: Iterable[str]) -> frozenset[str]:
    """Return the bare file names that several of these names have."""
    counts = Counter(name.rpartition("/")[2] for name in {name.removeprefix(">") for name in names})
    return frozenset(name for name, count in counts.items() if count > 1)


def require_folders(folders: Iterable[Path], name: str) -> None:
    """Refuse folders of image files that are none.

    Parameters
    ----------
    folders
        As they were given.
    name
        The option that gave them.

    Raises
    ------
    UsageError
        If one is no folder.
    """
    for folder in folders:
        if not folder.is_dir():
            what = "is no folder" if os.path.lexists(folder) else "does not exist"
            hint = meant(folder, "Give the folder that the image files are in.")
            raise UsageError(f"{option(name, folder)} {what}", hint=hint)


def name_some(names: Sequence[str]) -> str:
    """Return the first names, each short enough for a terminal, and how many there are besides.

    The two ends of a name are kept: image files of a project differ in the number at the start.
    """
    shown: list[str] = []
    for name in names:
        short = name if len(name) <= _MOST_NAME_CHARS else f"{name[:38]}…{name[-21:]}"
        if shown and len(", ".join([*shown, short])) > _MOST_NAMES_CHARS:
            break
        shown.append(short)
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")


def folders_above(path: Path) -> list[Path]:
    """Return the folder of a file and those above it, nearest first."""
    folder = Path(os.path.normpath(path.absolute())).parent
    return [folder, *folder.parents][: _MAX_LEVELS_UP + 1]


def as_given(found: Path, given: Path) -> Path:
    """Name a file or folder that was found from another as that one was given.

    Parameters
    ----------
    found
        Its path from the root.
    given
        The path that it was found from, such as that of a file in the same project.

    Returns
    -------
    pathlib.Path
        From the working directory where `given` is relative, else as it is.
    """
    if given.is_absolute():
        return found
    here = Path.cwd()
    # What lies below is not normalised: where a folder is a link, ``..`` does not lead back to where it lies.
    return found.relative_to(here) if found.is_relative_to(here) else Path(os.path.relpath(found, here))


def not_found(names: Sequence[str], search: ImageSearch, addition: str = "") -> Message | None:
    """Say which of the image files that a metadata file names are not found, and what finds them.

    Parameters
    ----------
    names
        Their distinct names; the first 200 are looked for.
    search
        Where they are looked for.
    addition
        What is to be said besides, such as ``"; cryoSPARC looks elsewhere"``.

    Returns
    -------
    Message or None
        A warning; None where all are found.
    """
    tried, search = names[:_N_TRIED], search.among(names)
    missing = [name for name in tried if search.resolve(name) is None]
    if not missing:
        return None
    stacks = counted(len(names), "stack")
    all_names = stacks if len(tried) == len(names) else f"the first {len(tried):,} of {stacks}"
    text = f"{len(missing):,} of {all_names} {'is' if len(missing) == 1 else 'are'} not found"
    found_with = what_finds(missing, search)
    if not found_with:
        text, found_with = f"{text} {search.places(missing[0])}", option("datadir")
    message = f"{text}: commands that read images need {found_with}{addition}"
    return warning("images-not-found", message, where=search.metadata)


def names_lead_elsewhere(name: str, found: Path, output: Path, metadata: Path) -> Message | None:
    """Say how the images are found whose names no longer lead to them from a new metadata file.

    Parameters
    ----------
    name
        The name of one of them, as it stands in the new file.
    found
        That image.
    output
        The new metadata file; it need not be there.
    metadata
        The file that the image was found from.

    Returns
    -------
    Message or None
        A warning; None where the name leads to an image.
    """
    if ImageSearch(output).resolve(name) is not None:
        return None
    base = Path(str(found).removesuffix(name)) if str(found).endswith(name) else None
    text = f"image names lead nowhere from {output.parent}; the first is {found}"
    if base is not None:
        remedy = Remedy(as_given(base.absolute(), metadata), None, 1).as_options()
        text = f"from {output.parent}, images are found with {remedy}"
    return warning("image-names-lead-elsewhere", text)


@dataclass(frozen=True)
class Remedy:
    """Options that would make missing names resolve."""

    datadir: Path
    strip_prefix: str | None
    n_found: int

    def as_options(self) -> str:
        """Return the options as references (`cryobridge.errors.option`)."""
        strip = f" {option('strip_prefix', self.strip_prefix)}" if self.strip_prefix else ""
        return option("datadir", self.datadir) + strip


def what_finds(missing: Sequence[str], search: ImageSearch) -> str:
    """Return the options that make missing names resolve, and how many if not all.

    Returns
    -------
    str
        Such as a reference to ``datadir`` and ``, which finds 3 of them``; empty where nothing resolves.
    """
    tried = missing[:_N_TRIED]
    remedy = suggest(tried, search.metadata, search.datadir)
    if remedy is None:
        return ""
    return remedy.as_options() + ("" if remedy.n_found == len(tried) else f", which finds {remedy.n_found:,} of them")


def asking_for(what: str, names: Sequence[str], search: ImageSearch) -> str:
    """Return how to say where files are that are not found.

    Parameters
    ----------
    what
        What they are, such as ``micrographs``.
    names
        Their distinct names.
    search
        Where they are looked for.

    Returns
    -------
    str
        Such as a reference to ``datadir`` and `` for the micrographs``, with the folder that finds them or the name
        of one of them.
    """
    search = search.among(names)
    missing = [name for name in names[:_N_TRIED] if search.resolve(name) is None]
    more = "one more " if search.datadir else ""
    found_with = what_finds(missing, search)
    if found_with:
        return f"{more}{found_with} for the {what}"
    return f"{more}{option('datadir')} for the {what}" + (f", such as {name_some(missing[:1])}" if missing else "")


def suggest(names: Iterable[str], metadata: Path, extra_folders: Iterable[Path] = ()) -> Remedy | None:
    """Find the ``datadir`` and ``strip_prefix`` that make the most of these names resolve.

    Tried are the folders above the metadata file, the working directory and `extra_folders`, each with every
    leading part of a name taken off; where nothing resolves, the folders in these and beside the metadata file's, in
    which images lie when a job's folder was renamed.

    Returns
    -------
    Remedy or None
        None where nothing resolves.
    """
    wanted, extra = list(names), list(extra_folders)
    above, here = folders_above(metadata), Path.cwd() if metadata.is_absolute() else Path()
    found = _resolving(wanted, [*extra, here, *above])
    if not found:
        parents = [*extra, here, *above[:2]]
        found = _resolving(wanted[:_N_NAMES_BESIDE], [folder for parent in parents for folder in _folders_in(parent)])
        found = _resolving(wanted, [folder for (folder, _), _ in found.most_common(1)])
    if not found:
        return None
    (datadir, strip_prefix), n_found = found.most_common(1)[0]
    return Remedy(as_given(datadir, metadata) if datadir.is_absolute() else datadir, strip_prefix or None, n_found)


def _resolving(names: Iterable[str], folders: Iterable[Path]) -> Counter[tuple[Path, str]]:
    """Count the names that each pair of a folder and a leading part that is taken off makes resolve."""
    bases, names = list(dict.fromkeys(folders)), list(names)
    shared = _shared(names)
    found: Counter[tuple[Path, str]] = Counter()
    for name in names:
        parts = Path(name.removeprefix(">")).parts
        ways: dict[tuple[Path, str], None] = {}  # of this name, in order
        for cut in range(len(parts)):
            rest = Path(*parts[cut:])
            is_bare = len(rest.parts) == 1 and rest.name not in shared  # found without taking anything off
            prefix = str(Path(*parts[:cut])) if cut and not is_bare else ""
            for base in bases if not rest.is_absolute() else ():
                if is_there(base / rest):
                    ways[base, prefix] = None
        found.update(list(ways))
    return found


def _folders_in(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            inner = sorted(entry.name for entry in entries if entry.is_dir())
    except OSError:
        return []
    return [folder / name for name in inner[:_MOST_FOLDERS_BESIDE]]
