"""The beam shifts at which micrographs were taken, by files that EPU and SerialEM write beside the movies."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from cryobridge.errors import CryobridgeError, MissingDataError
from cryobridge.formats.acquisition.epu_xml import read_beam_shift
from cryobridge.formats.acquisition.mdoc import MdocMovie, read_mdoc
from cryobridge.formats.acquisition.names import epu_name
from cryobridge.formats.input_file import meant, resolved
from cryobridge.formats.listing import list_folder
from cryobridge.jobs.micrographs.matching import normalised_stem
from cryobridge.report import part_of, warning

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from cryobridge.model.particles import Floats
    from cryobridge.report import Message

# Files are small and far away: threads wait for them at the same time.
_READERS = 16
# More entries no session has; a folder above all sessions may have.
_MOST_ENTRIES = 2_000_000
# Files of whole sessions that are looked through, where no file is of a movie alone.
_MOST_SESSION_FILES = 100
_MOVIE_ENDS = (".tif", ".tiff", ".mrc", ".mrcs", ".eer")
XML: Final = ".xml"
MDOC: Final = ".mdoc"


@dataclass(frozen=True)
class Sidecars:
    """What files beside movies say.

    Parameters
    ----------
    shift
        (n, 2) x, y of the beam shift (EPU, in the microscope's unit) or of the image shift (SerialEM, its basic
        unit); NaN where no file says it.
    position
        Hole and position in it by SerialEM; None where no file says it.
    n_files
        How many files were read.
    messages
        Files that could not be read.
    """

    shift: Floats
    position: tuple[str | None, ...]
    n_files: int
    messages: tuple[Message, ...]


def read_sidecars(
    names: Sequence[str],
    files: Sequence[Path | None] = (),
    folder: Path | None = None,
    kinds: Sequence[str] = (XML, MDOC),
) -> Sidecars:
    """Read what EPU's `.xml` and SerialEM's `.mdoc` files say of movies.

    Parameters
    ----------
    names
        (n,) of the movies, or of what was made of them.
    files
        (n,) where these are on disk, or None; links are followed, as cryoSPARC's imported movies are such.
    folder
        Look in this folder and those in it instead.
    kinds
        What the files end in.

    Raises
    ------
    MissingDataError
        If there is no such folder.
    """
    keys = [exposure_key(name) for name in names]
    index = _Index(kinds)
    if folder is not None:
        _require_folder(folder)
        paths = index.below(folder, keys)
    else:
        paths = index.beside(files, keys)
    own = dict.fromkeys(path for path in paths if path is not None)
    # Where movies have no file of their own, those of whole sessions, which name the movies inside.
    whole = index.others(own)[:_MOST_SESSION_FILES] if None in paths else []
    errors: list[CryobridgeError] = []
    of_path: dict[Path, list[MdocMovie]] = {}
    with ThreadPoolExecutor(_READERS) as pool:
        for path, result in zip([*own, *whole], pool.map(_read, [*own, *whole]), strict=True):
            if not isinstance(result, CryobridgeError):
                of_path[path] = result
            elif path in own:  # other files may be other programs'
                errors.append(result)
    named = {
        exposure_key(movie.movie): movie
        for path in reversed([*own, *whole])
        for movie in of_path.get(path, ())
        if movie.movie
    }
    movies = []
    for file, key in zip(paths, keys, strict=True):
        said = [] if file is None else of_path.get(file, [])
        # A file's own name is the movie's; names inside are for files of several.
        movies.append(said[0] if len(said) == 1 else named.get(key))
    shifts = [(np.nan, np.nan) if movie is None else movie.image_shift or (np.nan, np.nan) for movie in movies]
    return Sidecars(
        np.array(shifts, np.float64).reshape(-1, 2),
        tuple(None if movie is None else movie.position for movie in movies),
        len(of_path) + len(errors),
        (*_unreadable(errors, len(own)), *index.messages),
    )


def exposure_key(name: str) -> str:
    """Return what all files of one exposure have in common in their names: EPU's identities, or the stem.

    Examples
    --------
    >>> exposure_key("a_Fractions.tif.mdoc"), exposure_key("J2/000000000000000000001_a_patch_aligned.mrc")
    ('a', 'a')
    """
    found = epu_name(name)
    if found is not None:
        return found.exposure
    base = name[: -len(MDOC)] if name.lower().endswith(MDOC) else name
    # Times such as 13.20.21 end in no extension.
    is_movie = base.lower().endswith((*_MOVIE_ENDS, XML))
    return normalised_stem(base if is_movie else f"{base}{XML}")


def _read(path: Path) -> list[MdocMovie] | CryobridgeError:
    """Return what a file says of movies, or the error by which it can't be read."""
    try:
        if path.suffix.lower() == XML:
            return [MdocMovie("", read_beam_shift(path), None)]
        return read_mdoc(path)
    except CryobridgeError as error:
        return error


def _unreadable(errors: Sequence[CryobridgeError], n_files: int) -> Iterator[Message]:
    if errors:
        said = part_of(len(errors), n_files, "file", "can't be read", of_one="can't be read")
        yield warning("beam-shifts-not-read", f"{said}, such as {errors[0]}", where=errors[0].path)


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        hint = meant(folder, "Give the folder of the files by EPU or SerialEM.")
        raise MissingDataError("no such folder", path=folder, option="optics_from", hint=hint)


class _Index:
    """The files of some kinds, by the exposures that they are of."""

    def __init__(self, kinds: Sequence[str]) -> None:
        self.messages: list[Message] = []
        self._kinds = kinds
        self._found: list[Path] = []
        self._n_entries = 0

    def beside(self, files: Sequence[Path | None], keys: Sequence[str]) -> list[Path | None]:
        """Return the file beside each movie; links are followed."""
        folders: dict[Path, dict[str, Path]] = {}
        paths: list[Path | None] = [None] * len(keys)
        for row, file in enumerate(files):
            if file is None:
                continue
            folder = resolved(file).parent
            if folder not in folders:
                folders[folder] = {}
                with suppress(CryobridgeError):
                    listed = sorted(list_folder(folder).files)
                    folders[folder] = {
                        key: found[0] for key, found in self._by_key(folder / name for name in listed).items()
                    }
            paths[row] = folders[folder].get(keys[row])
        return paths

    def below(self, folder: Path, keys: Sequence[str]) -> list[Path | None]:
        """Return the file of each movie in a folder and those below it; None where several fit."""
        by_key = self._by_key(_below(folder))
        several = {key for key in keys if len(by_key.get(key, ())) > 1}
        if several:
            first = by_key[min(several)]
            said = part_of(len(several), len(set(keys)), "movie", "have", of_one="has")
            text = f"{said} several files of one name there, of which none is taken, such as {first[0]} and {first[1]}"
            self.messages.append(warning("beam-shifts-of-one-name", text, where=folder))
            self._found = [path for path in self._found if exposure_key(path.name) not in several]
        return [by_key[key][0] if key in by_key and key not in several else None for key in keys]

    def others(self, own: Collection[Path]) -> list[Path]:
        """Return the `.mdoc` files that were found and are of no movie."""
        return sorted(path for path in self._found if path.suffix.lower() == MDOC and path not in own)

    def _by_key(self, entries: Iterable[Path]) -> dict[str, list[Path]]:
        """Return the files by exposure; where there are both kinds, EPU's, and of these the one of the exposure."""
        by_key: dict[str, list[Path]] = {}
        for path in islice(entries, _MOST_ENTRIES - self._n_entries):
            self._n_entries += 1
            if path.suffix.lower() in self._kinds:
                self._found.append(path)
                by_key.setdefault(exposure_key(path.name), []).append(path)
        for key, paths in by_key.items():
            by_epu = [path for path in paths if path.suffix.lower() == XML]
            # EPU writes another file of the movie, NAME_Fractions.xml, which has no beam shift.
            by_key[key] = [path for path in by_epu if path.stem == key] or by_epu or paths
        return by_key


def _below(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and in those below it."""
    for path, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(path, name) for name in sorted(names))
