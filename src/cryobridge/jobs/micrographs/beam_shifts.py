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
    from collections.abc import Iterable, Iterator, Sequence

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
        (n, 2) x, y of the beam shift (EPU, in the microscope's unit) or of the image shift (SerialEM, micrometres); NaN
        where no file says it.
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
    found = _sidecar_files(names, files, folder, kinds)
    wanted = {key: number for number, key in enumerate(dict.fromkeys(map(exposure_key, names)))}
    own = {key: path for key, path in found.items() if key in wanted}
    # Without files of single movies, those of whole sessions, which name the movies inside.
    rest = sorted((path for key, path in found.items() if key not in wanted and path.suffix.lower() == MDOC), key=str)
    whole = list(islice(rest, _MOST_SESSION_FILES)) if len(own) < len(wanted) else []
    said: dict[str, MdocMovie] = {}
    errors: list[CryobridgeError] = []
    with ThreadPoolExecutor(_READERS) as pool:
        results = pool.map(_read, [*own.values(), *whole])
        for key, result in zip([*own, *[""] * len(whole)], results, strict=True):
            if isinstance(result, CryobridgeError):
                errors += [result] if key else []  # other files may be other programs'
                continue
            # A file's own name is the movie's; names inside are for files of several.
            by_key = {key: result[0]} if key and len(result) == 1 else _by_movie(result)
            for other, movie in by_key.items():
                said.setdefault(other, movie)
    keys = [exposure_key(name) for name in names]
    movies = [said.get(key) for key in keys]
    shifts = [(np.nan, np.nan) if movie is None else movie.image_shift_um or (np.nan, np.nan) for movie in movies]
    return Sidecars(
        np.array(shifts, np.float64).reshape(-1, 2),
        tuple(None if movie is None else movie.position for movie in movies),
        len(own) + len(whole),
        tuple(_unreadable(errors, len(own))),
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


def _by_movie(movies: Iterable[MdocMovie]) -> dict[str, MdocMovie]:
    return {exposure_key(movie.movie): movie for movie in movies if movie.movie}


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


def _sidecar_files(
    names: Sequence[str], files: Sequence[Path | None], folder: Path | None, kinds: Sequence[str]
) -> dict[str, Path]:
    """Return the files of a kind by the exposure that they are of."""
    if folder is not None:
        if not folder.is_dir():
            raise MissingDataError(
                "no such folder",
                path=folder,
                option="optics_from",
                hint=meant(folder, "Give EPU's or SerialEM's folder."),
            )
        entries = _below(folder)
    else:
        entries = _beside(path for path in files if path is not None)
    found: dict[str, Path] = {}
    for path in islice(entries, _MOST_ENTRIES):
        end = path.suffix.lower()
        if end in kinds:
            key = exposure_key(path.name)
            # Of both kinds EPU's.
            if key not in found or (end == XML and found[key].suffix.lower() != XML):
                found[key] = path
    return found


def _beside(files: Iterable[Path]) -> Iterator[Path]:
    """Yield the files in the folders that these are in."""
    for folder in dict.fromkeys(resolved(path).parent for path in files):
        with suppress(CryobridgeError):
            yield from (folder / name for name in sorted(list_folder(folder).files))


def _below(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and in those below it."""
    for path, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(path, name) for name in sorted(names))
