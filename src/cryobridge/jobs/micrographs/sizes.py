"""The sizes of RELION's micrographs beside those of cryoSPARC's.

cryoSPARC's fractions hold for any binning of a micrograph; RELION's coordinates count pixels of its own micrographs.
Where both programs have a micrograph in different sizes, RELION's is the one that counts.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError, MissingDataError, option
from cryobridge.formats.image_search import ImageSearch
from cryobridge.formats.mrc_header import read_header
from cryobridge.formats.table import Array
from cryobridge.report import Message, note, warning

if TYPE_CHECKING:
    from cryobridge.model.particles import Floats

# Headers that are read to see whether sizes differ; only where one does, all are.
_N_HEADERS = 32
# Binned sizes are rounded, often to even numbers: so many pixels of the smaller micrograph are no other shape.
_ROUNDING_PX = 2
# Pixel sizes that differ by less are the same: calibrations do by some 1 %.
_SAME_PIXEL_SIZE = 0.02

Shape = tuple[int, int]


@dataclass(frozen=True)
class MicrographFiles:
    """Where RELION's micrographs are looked for.

    Parameters
    ----------
    star
        The STAR file that names them.
    project
        RELION's project folder, or None.
    """

    star: Path
    project: Path | None

    def find(self, name: str) -> Path | None:
        """Return the file of a micrograph, or None where it is not on this disk."""
        in_project = self.project / name if self.project else None
        # os.path.isfile, since Path.is_file raises on a name that is too long for the file system.
        if in_project and os.path.isfile(in_project):  # noqa: PTH113
            return in_project
        return ImageSearch(self.star).resolve(name)


@dataclass(frozen=True)
class MicrographSizes:
    """The sizes whose pixels the coordinates count.

    Parameters
    ----------
    shape_px
        (n, 2) ny, nx of each pick's micrograph as RELION has it, before x and y are exchanged.
    message
        What was found; None where sizes agree.
    error
        Why no coordinates can be right, or None.
    """

    shape_px: Array
    message: Message | None = None
    error: CryobridgeError | None = None


def is_binning_of(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two sizes (ny, nx) have the same shape, so that one may be a binning of the other."""
    (ny, nx), (other_ny, other_nx) = one, other
    # ny / nx = other_ny / other_nx; the products over the larger nx differ by pixels of the smaller micrograph.
    return abs(ny * other_nx - nx * other_ny) <= _ROUNDING_PX * max(nx, other_nx)


def compare_sizes(
    names: Sequence[str | None],
    codes: NDArray[np.int32],
    shape_px: Array,
    kept: NDArray[np.bool_],
    files: MicrographFiles,
    *,
    swap_xy: bool,
    own_pixel_size_A: Floats | None = None,
    pixel_size_A: Floats | None = None,
) -> MicrographSizes:
    """Compare RELION's micrographs with cryoSPARC's, by their headers.

    Some headers, spread over the micrographs, are read; where one has another size, all are. Where no micrograph is on
    this disk, pixel sizes that differ tell the sizes.

    Parameters
    ----------
    names
        RELION's names of the micrographs, or None for those that are left out.
    codes
        (n,) the micrograph of each pick, as its place in ``names``.
    shape_px
        (n, 2) ny, nx of cryoSPARC's micrographs.
    kept
        (n,) whether a pick is written; at least one is.
    files
        Where RELION's are.
    swap_xy
        Whether RELION's have x and y exchanged.
    own_pixel_size_A, pixel_size_A
        (n,) Å a pixel of cryoSPARC's and of RELION's, NaN for unknown; None where no file says.
    """
    used, first_row = np.unique(codes[kept], return_index=True)
    sizes = shape_px[kept][first_row].tolist()
    cryosparc = {code: (ny, nx) for code, (ny, nx) in zip(used.tolist(), sizes, strict=True)}
    # By name, so that the samples spread over sessions.
    order = sorted((name, code) for code, name in enumerate(names) if name is not None and code in cryosparc)
    sampled, trouble = _sample(order, files, swap_xy=swap_xy)
    if not sampled:
        scaled = _by_pixel_sizes(shape_px, kept, own_pixel_size_A, pixel_size_A)
        if scaled is not None:
            return scaled
        ny, nx = cryosparc[order[0][1]]
        text = f"the size of RELION's micrographs was not compared with cryoSPARC's ({ny} × {nx} px): {trouble}"
        message = note if files.project is None else warning
        return MicrographSizes(shape_px, message("micrograph-sizes-not-compared", text))
    if all(shape == cryosparc[code] for code, shape in sampled.items()):
        return MicrographSizes(shape_px)
    try:
        relion = {code: _relion_shape(name, cryosparc[code], files, swap_xy=swap_xy) for name, code in order}
    except CryobridgeError as error:
        return MicrographSizes(shape_px, error=error)
    by_pick = np.array([relion.get(code, (0, 0)) for code in range(len(names))])[codes]
    return MicrographSizes(np.where(by_pick > 0, by_pick, shape_px), _difference(relion, cryosparc))


def _by_pixel_sizes(
    shape_px: Array, kept: NDArray[np.bool_], own_A: Floats | None, other_A: Floats | None
) -> MicrographSizes | None:
    """Return the sizes of RELION's micrographs by the pixel sizes of both programs; None where these do not differ."""
    if own_A is None or other_A is None:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = own_A / other_A
    is_other = kept & (ratio > 0) & np.isfinite(ratio) & (np.abs(ratio - 1) > _SAME_PIXEL_SIZE)
    if not is_other.any():
        return None
    scaled = np.where(is_other[:, np.newaxis], np.rint(shape_px * ratio[:, np.newaxis]), shape_px).astype(np.int64)
    row = int(np.flatnonzero(is_other)[0])
    text = (
        f"RELION's micrographs have {other_A[row]:g} Å a pixel, cryoSPARC's {own_A[row]:g}: coordinates are scaled "
        "to that, as the micrographs themselves are not on this disk"
    )
    return MicrographSizes(scaled, warning("micrograph-sizes-by-pixel-size", text))


def _sample(order: list[tuple[str, int]], files: MicrographFiles, *, swap_xy: bool) -> tuple[dict[int, Shape], str]:
    """Read the sizes of some micrographs; and say why the first one that can't be read can't be."""
    shapes: dict[int, Shape] = {}
    troubles = []
    places = np.linspace(0, len(order) - 1, min(len(order), _N_HEADERS)).round().astype(int)
    for name, code in (order[place] for place in places):
        path = files.find(name)
        if path is None:
            troubles.append(f"{name} is not there")
            continue
        try:
            shapes[code] = _read_shape(path, swap_xy=swap_xy)
        except CryobridgeError:
            troubles.append(f"{name} can't be read")
    return shapes, troubles[0] if troubles else ""


def _read_shape(path: Path, *, swap_xy: bool) -> Shape:
    """Return ny, nx of RELION's micrograph before x and y were exchanged."""
    header = read_header(path)
    return (header.nx, header.ny) if swap_xy else (header.ny, header.nx)


def _relion_shape(name: str, cryosparc: Shape, files: MicrographFiles, *, swap_xy: bool) -> Shape:
    path = files.find(name)
    if path is None:
        raise MissingDataError(
            f"the micrograph {name} is not there, and others are of another size than cryoSPARC's",
            path=files.star,
            hint="Coordinates count its pixels: put it in its place in the RELION project.",
        )
    shape = _read_shape(path, swap_xy=swap_xy)
    if not is_binning_of(shape, cryosparc):
        raise _other_shape(path, shape, cryosparc, swap_xy=swap_xy)
    return shape


def _other_shape(path: Path, shape: Shape, cryosparc: Shape, *, swap_xy: bool) -> CryobridgeError:
    ny, nx = shape[::-1] if swap_xy else shape
    message = f"{ny} × {nx} px, cryoSPARC's micrograph has {cryosparc[0]} × {cryosparc[1]}"
    if not is_binning_of(shape[::-1], cryosparc):
        hint = "No binning makes one of the other: give the micrographs that RELION made of the same, whole movies."
    elif swap_xy:
        message = f"{message}: x and y are not exchanged"
        hint = f"Leave {option('swap_xy')} out."
    else:
        message = f"{message}: x and y are exchanged"
        hint = f"Give {option('swap_xy')}, and look at some boxes for the flips."
    return CryobridgeError(message, path=path, field="location/micrograph_shape", hint=hint)


def _difference(relion: dict[int, Shape], cryosparc: dict[int, Shape]) -> Message:
    other = [code for code, shape in relion.items() if shape != cryosparc[code]]
    (ny, nx), (from_ny, from_nx) = relion[other[0]], cryosparc[other[0]]
    return warning(
        "micrograph-sizes-differ",
        f"{len(other):,} of {len(relion):,} RELION micrographs are of another size than cryoSPARC's "
        f"({ny} × {nx} px for {from_ny} × {from_nx}): the coordinates count RELION's pixels",
    )
