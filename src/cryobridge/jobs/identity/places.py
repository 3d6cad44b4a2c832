"""Where the particles of a file lie: micrograph, position on it, and what comparing it with another file's needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from cryobridge.formats.image_search import ImageSearch

if TYPE_CHECKING:
    from cryobridge.formats.particle_files import ParticleFiles
    from cryobridge.model.particles import Floats, Labels, Locations, Optics

Shape = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Places:
    """Where particles lie; arrays are (n, …), and rows of which it is not known have NaN coordinates.

    Parameters
    ----------
    name
        The file's name.
    program
        Whose file it is.
    micrograph
        Their micrographs.
    coordinate_px
        (n, 2) x, y of the box's centre in pixels of the micrograph.
    shift_A
        (n, 2) x, y that are subtracted to find the particle's centre; None where the file lacks them.
    pixel_size_A
        (n,) of the micrograph, NaN where the file does not say.
    guesses_A
        (n,) what the micrograph's pixel size may be where the file does not say, by what it is.
    shape_px
        (n, 2) ny, nx of the micrograph, 0 where the file does not say; None where it never does.
    box_A
        The box's edge, NaN where it is unknown.
    header_shape
        Returns ny, nx of a micrograph by its header; None where it is not on this disk.
    """

    name: str
    program: str
    micrograph: Labels
    coordinate_px: Floats
    shift_A: Floats | None
    pixel_size_A: Floats
    guesses_A: dict[str, Floats]
    shape_px: NDArray[np.int64] | None
    box_A: float
    header_shape: Callable[[str], Shape | None] = field(repr=False, default=lambda _: None)

    def __len__(self) -> int:
        return len(self.coordinate_px)


def places_of(files: ParticleFiles) -> Places | None:
    """Return where particles lie; None where the file does not say.

    RELION's Extract leaves out the pixel size of the micrographs: that of their movies, and that of the images, are
    guesses at it.

    Raises
    ------
    CryobridgeError
        If values can't be read.
    """
    particles = files.particles
    locations, n = particles.locations, len(particles)
    if locations is None or n == 0:
        return None
    optics, index = particles.optics, particles.optics_index
    box_A, pixel_size_A = np.nan, cast("Floats", np.full(n, np.nan))
    guesses_A: dict[str, Floats] = {}
    if optics is not None and index is not None:
        box_A = _box_A(optics, index)
        of_micrographs = _positive(optics.micrograph_pixel_size_A, index)
        pixel_size_A = pixel_size_A if of_micrographs is None else of_micrographs
        of_movies, of_images = (_positive(each, index) for each in (optics.movie_pixel_size_A, optics.pixel_size_A))
        if of_movies is not None:
            guesses_A |= {"the pixel size of the movies": of_movies, "twice that of the movies": 2 * of_movies}
        if of_images is not None:
            guesses_A["the pixel size of the images"] = of_images
    shift_A = None if particles.poses is None else particles.poses.shift_A
    search = ImageSearch(files.metadata)

    def header_shape(name: str) -> Shape | None:
        header = search.header(name)
        return None if header is None else (header.ny, header.nx)

    return Places(
        files.metadata.name,
        files.program,
        locations.micrograph,
        _known(locations, shift_A),
        shift_A,
        pixel_size_A,
        guesses_A,
        locations.shape_px,
        box_A,
        header_shape,
    )


def _box_A(optics: Optics, index: NDArray[np.int32]) -> float:
    """Return the smallest box of the groups that have particles."""
    used = np.unique(index)
    box_A = np.where(optics.box_px > 0, optics.box_px * optics.pixel_size_A, np.nan)[used]
    known = box_A[np.isfinite(box_A) & (box_A > 0)]
    return float(known.min()) if len(known) else np.nan


def _positive(values: Floats | None, index: NDArray[np.int32]) -> Floats | None:
    if values is None:
        return None
    known: Floats = np.where(np.isfinite(values) & (values > 0), values, np.nan)
    return None if np.isnan(known).all() else known[index]


def _known(locations: Locations, shift_A: Floats | None) -> Floats:
    """Return the coordinates, NaN where there are none: cryoSPARC has a size of 0 for unknown micrographs."""
    coordinate_px = locations.coordinate_px
    is_known = np.asarray(np.isfinite(coordinate_px).all(axis=1))
    if locations.shape_px is not None:
        is_known &= (locations.shape_px > 0).all(axis=1)
    if shift_A is not None:
        is_known &= np.isfinite(shift_A).all(axis=1)
    return coordinate_px if is_known.all() else np.where(is_known[:, np.newaxis], coordinate_px, np.nan)
