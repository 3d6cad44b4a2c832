"""RELION's micrograph images, for what looks at them: the orientation check and the preview."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError, MissingDataError, option
from cryobridge.formats.image_search import ImageSearch
from cryobridge.formats.mrc import open_mrc
from cryobridge.formats.mrc_header import read_header
from cryobridge.formats.table import Array
from cryobridge.jobs.coords.plan import CoordsPlan
from cryobridge.jobs.micrographs.orientation import OrientationCheck, PicksOnMicrograph, check_orientation
from cryobridge.jobs.micrographs.sizes import is_binning_of

# Picks of one micrograph that the check looks at.
_MAX_PICKS = 200


def busiest_micrographs(plan: CoordsPlan, n_most: int) -> list[tuple[int, NDArray[np.int64]]]:
    """Return the micrographs with most picks: their place in ``plan.micrographs``, and the rows of their picks."""
    kept = np.flatnonzero(plan.kept)
    codes = plan.picks.micrograph.codes[kept]
    counts = np.bincount(codes, minlength=len(plan.micrographs))
    chosen = [int(code) for code in np.argsort(-counts, kind="stable")[:n_most] if counts[code]]
    return [(code, kept[codes == code]) for code in chosen]


def micrograph_file(plan: CoordsPlan, code: int) -> Path:
    """Return the image file of a micrograph.

    Raises
    ------
    MissingDataError
        If it is not on this disk.
    """
    name = plan.micrographs[code]
    assert name is not None  # only matched micrographs are looked at
    found = plan.files.find(name)
    if found is None:
        raise MissingDataError(
            f"the micrograph {name} is not there",
            path=plan.files.star,
            hint=f"Run this in the RELION project, or name it with {option('relion_project')}.",
        )
    return found


def check_plan(plan: CoordsPlan, n_micrographs: int) -> OrientationCheck:
    """Score the eight axis conventions on the micrographs with most picks.

    Parameters
    ----------
    plan
        The picks; they need not be written.
    n_micrographs
        How many micrographs to look at.

    Raises
    ------
    MissingDataError
        If no micrograph is on this disk, or its pixel size is not known.
    CryobridgeError
        If a micrograph is of another shape than cryoSPARC's.
    """
    busiest = busiest_micrographs(plan, n_micrographs)
    return check_orientation([_picks_on(plan, code, rows[:_MAX_PICKS]) for code, rows in busiest])


def _picks_on(plan: CoordsPlan, code: int, rows: NDArray[np.int64]) -> PicksOnMicrograph:
    picks = plan.picks
    path = micrograph_file(plan, code)
    header = read_header(path)
    ny, nx = picks.shape_px[rows[0]].tolist()
    # Whether x and y are exchanged is for the check to say.
    as_stored, exchanged = (header.ny, header.nx), (header.nx, header.ny)
    shape = next((shape for shape in (as_stored, exchanged) if is_binning_of(shape, (ny, nx))), None)
    if shape is None:
        raise CryobridgeError(
            f"{header.ny} × {header.nx} px, cryoSPARC's micrograph has {ny} × {nx}",
            path=path,
            hint="No binning makes one of the other; both programs must have the same, whole micrographs.",
        )
    known = picks.micrograph_pixel_size_A
    pixel_size_A = float(known[rows[0]]) * nx / shape[1] if known is not None else header.pixel_size_A
    if not pixel_size_A:
        raise MissingDataError(
            "the pixel size of the micrograph is not known",
            path=path,
            field="location/micrograph_psize_A",
            hint="Neither the picks nor the header of the image have it; the check needs it.",
        )
    can_read = picks.images is not None and picks.image_pixel_size_A is not None and _images_are_there(plan, rows)
    return PicksOnMicrograph(
        path,
        picks.fraction_xy[rows],
        np.tile(shape, (len(rows), 1)),
        partial(_read_images, plan, rows) if can_read else None,
        float(picks.image_pixel_size_A[rows[0]]) if picks.image_pixel_size_A is not None else pixel_size_A,
        pixel_size_A,
    )


def _images_are_there(plan: CoordsPlan, rows: NDArray[np.int64]) -> bool:
    images = plan.picks.images
    assert images is not None
    search = ImageSearch(plan.picks.source)
    return all(search.resolve(images.path.values[code]) is not None for code in np.unique(images.path.codes[rows]))


def _read_images(plan: CoordsPlan, rows: NDArray[np.int64]) -> Array:
    images = plan.picks.images
    assert images is not None
    search = ImageSearch(plan.picks.source)
    codes, index = images.path.codes[rows], images.index[rows]
    read = {}
    for code in np.unique(codes):
        path = search.resolve(images.path.values[code])
        assert path is not None  # `_images_are_there` found it
        read[int(code)] = iter(open_mrc(path).read(index[codes == code]))
    return np.stack([next(read[int(code)]) for code in codes])
