"""The images of some particles, read in batches of one size and pixel size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.errors import FormatError, MissingDataError, option
from cryobridge.formats.image_reader import ImageReader
from cryobridge.formats.image_search import name_some, what_finds
from cryobridge.formats.mrc_header import read_header
from cryobridge.model.particles import ImageRefs, require_pixel_sizes
from cryobridge.report import part_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from cryobridge.formats.image_search import ImageSearch
    from cryobridge.formats.mrc import Images
    from cryobridge.formats.mrc_header import MrcHeader
    from cryobridge.model.particles import Floats, ParticleSet

_N_IMAGES = 128
_N_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class ChosenImages:
    """The images of chosen particles.

    Parameters
    ----------
    rows
        (n,) of the set.
    refs
        Where the image of each is; ``headers`` have the numbers of ``refs.path.codes``.
    pixel_size_A, size_px
        (n,) of each.
    headers
        Of the stacks.
    """

    rows: NDArray[np.int64]
    refs: ImageRefs
    pixel_size_A: Floats
    size_px: NDArray[np.int64]
    headers: dict[int, MrcHeader]

    @property
    def field_A(self) -> float:
        """The edge of the first image."""
        return float(self.size_px[0] * self.pixel_size_A[0])

    def batches(self) -> Iterator[tuple[NDArray[np.int64], Images]]:
        """Yield which of the chosen ones, (m,), and their images (m, size, size), each file in its own order."""
        order = np.lexsort((self.refs.index, self.refs.path.codes, self.pixel_size_A, self.size_px))
        kinds = np.column_stack([self.size_px, self.pixel_size_A])[order]
        ends = [*(np.flatnonzero((kinds[1:] != kinds[:-1]).any(axis=1)) + 1).tolist(), len(order)]
        start = 0
        with ImageReader(self.refs, self.headers) as reader:
            for end in ends:
                at_once = max(1, min(_N_IMAGES, _N_BYTES // (4 * int(self.size_px[order[start]]) ** 2)))
                for first in range(start, end, at_once):
                    chosen = order[first : min(first + at_once, end)]
                    yield chosen, reader.read(chosen)
                start = end


def chosen_images(particles: ParticleSet, rows: NDArray[np.int64], search: ImageSearch) -> ChosenImages:
    """Find the images of chosen particles.

    Parameters
    ----------
    particles, rows
        The set, and (n,) which of its rows.
    search
        Where image files are looked for.

    Raises
    ------
    MissingDataError
        If images, or their pixel size, are not known or not there.
    FormatError
        If a stack can't be read, or its images are not square.
    """
    images = particles.images
    if images is None:
        raise MissingDataError(
            "nothing is known of the images of the particles",
            path=particles.source,
            hint="Give a file that names them.",
        )
    refs = ImageRefs(images.path.take(rows), images.index[rows])
    code, index = refs.path.codes, refs.index
    headers = _headers({number: images.path.values[number] for number in np.unique(code).tolist()}, search)
    size_px = _of_each(code, {number: header.nx for number, header in headers.items()}, np.int64)
    too_short = index >= _of_each(code, {number: header.n_whole for number, header in headers.items()}, np.int64)
    if too_short.any():
        first = int(np.flatnonzero(too_short)[0])
        raise MissingDataError(
            f"image {int(index[first]) + 1} is asked for, the file has {headers[int(code[first])].n_whole} whole ones",
            path=headers[int(code[first])].path,
            rows=tuple(rows[too_short][:3].tolist()),
            count=int(too_short.sum()),
            hint="Copy the stack again, or correct the metadata.",
        )
    of_header = {number: header.pixel_size_A or np.nan for number, header in headers.items()}
    pixel_size_A: Floats = _of_each(code, of_header, np.float64)
    if particles.optics is not None and particles.optics_index is not None:
        said = particles.optics.pixel_size_A[particles.optics_index[rows]]
        pixel_size_A = np.where(np.isnan(said), pixel_size_A, said)
    require_pixel_sizes(pixel_size_A, particles.source, f"Give {option('pixel_size_A')} where the file is read.")
    return ChosenImages(rows, refs, pixel_size_A, size_px, headers)


def _of_each(code: NDArray[np.int32], values: dict[int, Any], dtype: type) -> NDArray[Any]:
    table: NDArray[Any] = np.zeros(max(values, default=0) + 1, dtype)
    table[list(values)] = list(values.values())
    return table[code]


def _headers(names: dict[int, str], search: ImageSearch) -> dict[int, MrcHeader]:
    search = search.among(names.values())
    found = {number: search.resolve(name) for number, name in names.items()}
    missing = [names[number] for number, path in found.items() if path is None]
    if missing:
        remedy = what_finds(missing, search) or option("datadir")
        raise MissingDataError(
            f"{part_of(len(missing), len(names), 'image file')} not there: {name_some(missing)}",
            path=search.metadata,
            count=len(missing),
            hint=f"Looked {search.places(missing[0])}. Say where they are with {remedy}.",
        )
    headers = {number: read_header(path) for number, path in found.items() if path is not None}
    for header in headers.values():
        if header.nx != header.ny:
            raise FormatError(
                f"images of {header.nx} × {header.ny} px are not square",
                path=header.path,
                hint="Extract the particles again in square boxes.",
            )
    return headers
