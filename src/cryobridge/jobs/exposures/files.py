"""The image files that RELION's lists name: which are there, and what is linked, copied or written anew."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import CryobridgeError, FormatError, MissingDataError, option
from cryobridge.formats.image_search import asking_for
from cryobridge.formats.mrc_header import read_header
from cryobridge.jobs.links import Link
from cryobridge.report import part_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cryobridge.formats.image_search import ImageSearch
    from cryobridge.formats.mrc import Images
    from cryobridge.formats.mrc_header import MrcHeader

_HALF_PRECISION = 12
# Headers are small and may be far away: threads wait for them at the same time.
_READERS = 16
_N_SHOWN = 3


def found_files(names: Sequence[str], search: ImageSearch) -> list[Path | None]:
    """Return the file of each name, or None where it is not found; an empty name is none."""
    search = search.among(names)
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(lambda name: search.resolve(name) if name.removeprefix(">") else None, names))


def missing_error(missing: Sequence[str], n_all: int, search: ImageSearch, what: str) -> MissingDataError:
    """Return the error for files that are not found, with the names of the first and what finds them."""
    shown = ", ".join(name or "(no name)" for name in missing[:_N_SHOWN])
    more = f" and {len(missing) - _N_SHOWN:,} more" if len(missing) > _N_SHOWN else ""
    named = [name for name in missing if name] or list(missing)
    return MissingDataError(
        f"{part_of(len(missing), n_all, what)} not found: {shown}{more}",
        path=search.metadata,
        count=len(missing),
        option="datadir",
        hint=f"Give {asking_for(f'{what}s', named, search)}, or leave them out with {option('on_missing', 'skip')}.",
    )


@dataclass(frozen=True)
class Headers:
    """What the headers of micrograph files say.

    Parameters
    ----------
    is_half
        (n,) whether pixels are of half precision.
    trouble
        Of each file why it can't be used; empty where it can.
    """

    is_half: NDArray[np.bool_]
    trouble: tuple[str, ...]


def checked_headers(files: Sequence[Path], shape_px: NDArray[np.int64] | None) -> Headers:
    """Read the headers of micrographs, and compare them with the sizes (n, 2) in the metadata, if there are any."""
    shapes = [None] * len(files) if shape_px is None else shape_px.tolist()

    def look(file: Path, shape: list[int] | None) -> tuple[bool, str]:
        try:
            header = read_header(file)
        except FormatError as error:
            return False, error.message
        return header.mode == _HALF_PRECISION, _trouble(header, shape)

    with ThreadPoolExecutor(_READERS) as pool:
        found = list(pool.map(look, files, shapes))
    return Headers(np.array([half for half, _ in found], bool), tuple(trouble for _, trouble in found))


def _trouble(header: MrcHeader, shape: list[int] | None) -> str:
    if header.dtype is None:
        return f"pixels of mode {header.mode}, which are not read"
    if header.nz != 1:
        return f"{header.nz} sections, where a micrograph has one"
    if header.whole_sections == 0:
        return "the data are cut off"
    if shape is not None and [header.ny, header.nx] != list(shape):
        return f"{header.ny} × {header.nx} px, and {shape[0]} × {shape[1]} in the metadata"
    return ""


def refuse_useless(files: Sequence[Path], headers: Headers, n_all: int) -> None:
    """Refuse micrographs that RELION could not use.

    Raises
    ------
    FormatError
        If there are any; the first is named, with what is wrong.
    """
    wrong = [place for place, trouble in enumerate(headers.trouble) if trouble]
    if wrong:
        first = files[wrong[0]]
        raise FormatError(
            f"{part_of(len(wrong), n_all, 'micrograph')} no file that RELION can use; the first: "
            f"{headers.trouble[wrong[0]]}",
            path=first,
            count=len(wrong),
            hint=f"Leave them out with {option('on_missing', 'skip')}, or give the exposures that go with the files.",
        )


def micrograph_links(
    files: Sequence[Path], places: Sequence[Path], is_half: NDArray[np.bool_], *, flip_y: bool, as_float32: bool
) -> list[Link]:
    """Return what is to be made of micrographs: links, or copies where their pixels change.

    Parameters
    ----------
    files
        The files.
    places
        Where the links go.
    is_half
        (n,) whether pixels are of half precision.
    flip_y
        Reverse the order of the rows.
    as_float32
        Make float32 of half precision.
    """
    links = []
    for file, place, half in zip(files, places, is_half.tolist(), strict=True):
        change = _reversed_rows if flip_y else _as_they_are if half and as_float32 else None
        links.append(Link(place, absolute(file), change, as_float32=as_float32))
    return links


def absolute(file: Path) -> Path:
    """Return a path from the root, for a link to it."""
    return Path(os.path.normpath(file.absolute()))


def _as_they_are(_sections: NDArray[np.int64], pixels: Images) -> Images:
    return pixels


def _reversed_rows(_sections: NDArray[np.int64], pixels: Images) -> Images:
    return pixels[:, ::-1]


def bytes_of(links: Sequence[Link], *, copy: bool) -> int:
    """Return how many bytes the copies among some links need.

    Raises
    ------
    CryobridgeError
        If a file can't be looked at.
    """
    n_bytes = 0
    for link in links:
        if not copy and link.change is None:
            continue
        try:
            size = link.target.stat().st_size
        except OSError as error:
            raise CryobridgeError(
                f"can't be read ({error.strerror or error})", path=link.target, hint="Check that it is there."
            ) from error
        n_bytes += 2 * size if link.as_float32 and link.change is not None else size
    return n_bytes
