"""Which way coordinates go onto RELION's micrographs: as asked, as the pixels show, or as reliosparc assumes.

`place` is all that a job needs: it gives what is known of the positions (`Positions`) and what was asked for
(`cryobridge.jobs.shared_options.OrientationOptions`), and takes the answer (`Placement`) for its coordinates, its
messages and its report. With ``placement.is_refused`` nothing is to be written: `refuse_contradicted` raises the error
that ends with exit code 3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError, FormatError, MissingDataError, option
from cryobridge.formats.mrc_header import read_header
from cryobridge.fourier.loading import load_torch
from cryobridge.jobs.micrographs.orientation_report import OrientationError
from cryobridge.jobs.micrographs.sizes import is_binning_of
from cryobridge.model.convention import Convention
from cryobridge.progress import Silent
from cryobridge.report import Message, note, warning

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cryobridge.formats.image_search import ImageSearch
    from cryobridge.formats.table import Array
    from cryobridge.jobs.micrographs.orientation import OrientationCheck, PicksOnMicrograph
    from cryobridge.jobs.micrographs.sizes import MicrographFiles
    from cryobridge.jobs.shared_options import OrientationOptions
    from cryobridge.model.particles import Floats, ImageRefs
    from cryobridge.progress import Reporter

Source: TypeAlias = Literal["options", "pixels", "default"]

# Of one micrograph, so many positions are looked at.
_MAX_POSITIONS = 200
# Micrographs that are looked for on the disk, those with most positions first.
_N_LOOKED_FOR = 32
_UNCERTAIN = "micrographs do not show which way they lie"


@dataclass(frozen=True)
class Positions:
    """Picks or particles on cryoSPARC's micrographs, with what can be compared with RELION's.

    Parameters
    ----------
    names
        RELION's name of each micrograph, or None for one that is left out.
    codes
        (n,) the micrograph of each position, as its place in ``names``.
    fraction_xy
        (n, 2) x, y as fractions of nx and ny, in the frame of the images.
    shape_px
        (n, 2) ny, nx of cryoSPARC's micrographs.
    kept
        (n,) whether a position is written; others are not looked at.
    files
        Where RELION's micrographs are.
    micrograph_pixel_size_A
        (n,) Å a pixel of cryoSPARC's micrographs; None where only the headers of RELION's may have it.
    images, image_pixel_size_A
        The extracted images, and (n,) Å a pixel of them; None where there are none.
    search
        Where the images are looked for; None where there are none.
    whose
        Whose micrographs these are, for messages: cryoSPARC's, where particles go from RELION's onto those.
    """

    names: Sequence[str | None]
    codes: NDArray[np.int32]
    fraction_xy: Floats
    shape_px: Array
    kept: NDArray[np.bool_]
    files: MicrographFiles
    micrograph_pixel_size_A: Floats | None = None
    images: ImageRefs | None = None
    image_pixel_size_A: Floats | None = None
    search: ImageSearch | None = None
    whose: str = "RELION's"

    def busiest(self, n_most: int) -> list[tuple[int, NDArray[np.int64]]]:
        """Return the micrographs with most positions: their place in ``names``, and the rows of their positions."""
        rows = np.flatnonzero(self.kept)
        codes = self.codes[rows]
        counts = np.bincount(codes, minlength=len(self.names))
        chosen = [int(code) for code in np.argsort(-counts, kind="stable")[:n_most] if counts[code]]
        return [(code, rows[codes == code]) for code in chosen]

    def file(self, code: int) -> Path | None:
        """Return RELION's file of a micrograph, or None where it is not on this disk."""
        name = self.names[code]
        return None if name is None else self.files.find(name)

    def require_file(self, code: int) -> Path:
        """Return RELION's file of a micrograph.

        Raises
        ------
        MissingDataError
            If it is not on this disk.
        """
        found = self.file(code)
        if found is None:
            raise MissingDataError(
                f"the micrograph {self.names[code]} is not there",
                path=self.files.star,
                hint=f"Run this in the RELION project, or name it with {option('relion_project')}.",
            )
        return found


@dataclass(frozen=True)
class Placement:
    """Which way coordinates go onto RELION's micrographs, and how that is known.

    Parameters
    ----------
    convention
        The axis convention that is taken.
    source
        Where it is from: ``"options"`` that set it by hand, the ``"pixels"``, or the ``"default"``.
    check
        How the eight axis conventions fit RELION's micrographs; None where that could not be looked at.
    is_refused
        Whether the pixels surely contradict what was set by hand, and nobody asked to write it all the same.
    message
        One line on it; None where there is nothing to say.
    """

    convention: Convention
    source: Source
    check: OrientationCheck | None = None
    is_refused: bool = False
    message: Message | None = None

    @property
    def is_contradicted(self) -> bool:
        """Whether the pixels surely fit another axis convention than the one that is taken."""
        return self.check is not None and self.check.is_sure and self.check.best != self.convention


def place(
    positions: Positions,
    options: OrientationOptions,
    *,
    default: Convention | None = None,
    n_micrographs: int = 5,
    required: bool = False,
    exact: bool = False,
    reporter: Reporter | None = None,
) -> Placement:
    """Decide which way coordinates go onto RELION's micrographs.

    What is set by hand counts, unless RELION's micrographs surely fit another axis convention: then the answer is
    refused, or with ``options.force`` a warning. If nothing is set by hand, what surely fits counts; where that is not
    sure, or no micrograph is on this disk, the default, with a warning.

    Parameters
    ----------
    positions
        Picks or particles.
    options
        What was asked for.
    default
        What counts where nothing is known; reliosparc's y = ny - ny * fy if not given.
    n_micrographs
        How many micrographs are looked at.
    required
        Whether it is an error that the pixels can't be looked at.
    exact
        Whether a reversed axis that the pixels show is counted from its last pixel (see `Convention`).
    reporter
        Who hears of the progress.

    Returns
    -------
    Placement
        What is taken, and a line that says why.

    Raises
    ------
    CryobridgeError
        With ``required``, if no micrograph is on this disk, is of cryoSPARC's shape or can be read.

    Examples
    --------
    >>> placement = place(positions, OrientationOptions())
    >>> placement.convention.to_px(positions.fraction_xy, positions.shape_px)
    """
    check, trouble = _checked(positions, n_micrographs, reporter or Silent(), required=required)
    fitting = None if check is None else replace(check.best, is_exact=exact)
    by_hand = options.by_hand
    if by_hand is not None:
        return _by_hand(by_hand, positions.whose, options, check, fitting, required=required)
    if check is not None and fitting is not None and check.is_sure:
        return Placement(fitting, "pixels", check, message=_found(positions.whose, fitting, check))
    convention = default or Convention()
    todo = f"look at some boxes there, or set it with {option('orientation')}"
    if check is not None:
        text = f"the pixels of {positions.whose} {_UNCERTAIN}: {convention.formula} is assumed; {todo}"
        message = warning("orientation-uncertain", text, option="orientation")
    else:
        text = f"the orientation is unchecked, since {trouble}: {convention.formula} is assumed; {todo}"
        message = warning("orientation-unchecked", text, option="orientation")
    return Placement(convention, "default", check, message=message)


def refuse_contradicted(placement: Placement, options: OrientationOptions) -> None:
    """Raise where nothing may be written since the pixels contradict what was set by hand.

    Raises
    ------
    OrientationError
        If they do, and ``force`` was not given.
    """
    if placement.is_refused:
        raise contradiction(options.given_by_hand)


def contradiction(given: tuple[str, ...]) -> OrientationError:
    """Return the error for axes that these options set by hand and that RELION's micrographs contradict."""
    them = "it" if len(given) == 1 else "them"
    return OrientationError(
        "nothing is written: the pixels of the micrographs contradict what was set by hand",
        option=given[0],
        hint=f"Leave {' and '.join(map(option, given))} out, so that what fits is taken, or keep {them} with "
        f"{option('force')}.",
    )


def _by_hand(
    convention: Convention,
    whose: str,
    options: OrientationOptions,
    check: OrientationCheck | None,
    fitting: Convention | None,
    *,
    required: bool,
) -> Placement:
    if check is None or fitting is None or (check.is_sure and check.best == convention):
        return Placement(convention, "options", check)
    if not check.is_sure:
        message = warning("orientation-uncertain", f"the pixels of {whose} {_UNCERTAIN}") if required else None
        return Placement(convention, "options", check, message=message)
    text = f"{whose} micrographs fit {fitting.formula} ({_how_sure(check)}), not {convention.formula}"
    message = warning("orientation-differs", text, option=options.given_by_hand[0])
    return Placement(convention, "options", check, is_refused=not options.force, message=message)


def _found(whose: str, convention: Convention, check: OrientationCheck) -> Message:
    text = f"{whose} micrographs fit {convention.formula} ({_how_sure(check)}), which is taken"
    return note("orientation-found", text, option="orientation")


def _how_sure(check: OrientationCheck) -> str:
    compared = "particle images" if check.method == "images" else "the contrast around picks"
    return f"by {compared}, {check.sigma:.0f} σ ahead"


def _checked(
    positions: Positions, n_micrographs: int, reporter: Reporter, *, required: bool
) -> tuple[OrientationCheck | None, str]:
    """Compare the eight axis conventions with RELION's micrographs; or say why that can't be done."""
    busiest = positions.busiest(max(n_micrographs, _N_LOOKED_FOR))
    there = [(code, rows) for code, rows in busiest if positions.file(code) is not None][:n_micrographs]
    if not there and required and busiest:
        positions.require_file(busiest[0][0])
    if not there:
        return None, f"{positions.whose} micrographs are not on this disk"
    load_torch(reporter)
    reporter.start(f"comparing with {positions.whose} micrographs", None)
    from cryobridge.jobs.micrographs.orientation import check_orientation

    try:
        return check_orientation([_on_micrograph(positions, *item) for item in there]), ""
    except CryobridgeError as error:
        if required:
            raise
        return None, f"a micrograph can't be compared ({error})"


def _on_micrograph(positions: Positions, code: int, rows: NDArray[np.int64]) -> PicksOnMicrograph:
    from cryobridge.jobs.micrographs.orientation import PicksOnMicrograph

    rows = rows[:_MAX_POSITIONS]
    path = positions.require_file(code)
    header = read_header(path)
    ny, nx = positions.shape_px[rows[0]].tolist()
    # Whether x and y are exchanged is for the check to say.
    as_stored, exchanged = (header.ny, header.nx), (header.nx, header.ny)
    shape = next((shape for shape in (as_stored, exchanged) if is_binning_of(shape, (ny, nx))), None)
    if shape is None:
        raise CryobridgeError(
            f"{header.ny} × {header.nx} px, cryoSPARC's micrograph has {ny} × {nx}",
            path=path,
            hint="No binning makes one of the other; both programs must have the same, whole micrographs.",
        )
    known = positions.micrograph_pixel_size_A
    pixel_size_A = float(known[rows[0]]) * nx / shape[1] if known is not None else header.pixel_size_A
    if not pixel_size_A or not np.isfinite(pixel_size_A):
        raise MissingDataError(
            "the pixel size of the micrograph is not known",
            path=path,
            field="location/micrograph_psize_A",
            hint="Neither the picks nor the header of the image have it; the check needs it.",
        )
    can_read = positions.image_pixel_size_A is not None and _images_are_there(positions, rows)
    return PicksOnMicrograph(
        path,
        positions.fraction_xy[rows],
        np.tile(shape, (len(rows), 1)),
        partial(_read_images, positions, rows) if can_read else None,
        float(positions.image_pixel_size_A[rows[0]]) if positions.image_pixel_size_A is not None else pixel_size_A,
        pixel_size_A,
    )


def _images_are_there(positions: Positions, rows: NDArray[np.int64]) -> bool:
    images, search = positions.images, positions.search
    if images is None or search is None:
        return False
    return all(search.resolve(images.path.values[code]) is not None for code in np.unique(images.path.codes[rows]))


def _read_images(positions: Positions, rows: NDArray[np.int64]) -> Array:
    from cryobridge.formats.mrc import open_mrc

    images, search = positions.images, positions.search
    assert images is not None
    assert search is not None  # `_images_are_there` looked with it
    codes, index = images.path.codes[rows], images.index[rows]
    read = {}
    for code in np.unique(codes):
        path = search.resolve(images.path.values[code])
        if path is None:  # `_images_are_there` found it
            raise MissingDataError(
                "an image file was there, and can't be read any more",
                path=images.path.values[code],
                hint="Check that its disk is there, and run the command again.",
            )
        read[int(code)] = iter(open_mrc(path).read(index[codes == code]))
    stacked = [next(read[int(code)]) for code in codes]
    if len({image.shape for image in stacked}) > 1:
        raise FormatError(
            "the images of one micrograph have several sizes",
            path=search.metadata,
            hint="Give particles of one box.",
        )
    return np.stack(stacked)
