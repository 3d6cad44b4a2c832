"""The particle set -> RELION's STAR files, in the layouts of 3.0 (one block) and 3.1 to 5 (optics and particles)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cryobridge.errors import MissingDataError
from cryobridge.formats.aberrations import (
    BEAM_TILT,
    MAGNIFICATION,
    NAMES,
    RELION_COLUMNS,
    Odd,
    chosen,
    folded,
    held_after,
    is_singular,
    left_out,
    to_relion,
)
from cryobridge.formats.arrow import numbers_to_arrow, texts_to_arrow
from cryobridge.formats.dropped import FileContent, dropped_columns
from cryobridge.formats.helical import direction_rad, tube_codes
from cryobridge.formats.latent import latent_columns
from cryobridge.formats.optics import group_names, needed, require_optics
from cryobridge.formats.relion.accepted import HALF_SETS, half_sets_left_out, premultiplied
from cryobridge.formats.relion.ctf_fits import fits_for_relion
from cryobridge.formats.relion.particles import DIMENSIONALITY, PIXEL_SIZE_3_0
from cryobridge.formats.relion.star import StarBlock
from cryobridge.formats.unusable import refuse_unusable, zero_defocus
from cryobridge.model.fields import FIELDS, field, fields_of, numbered
from cryobridge.model.geometry import matrix_to_euler, round_px, rounded, shift_A_to_px
from cryobridge.model.particles import Labels, Optics
from cryobridge.report import warning

if TYPE_CHECKING:
    from cryobridge.formats.table import Array
    from cryobridge.model.particles import Floats, Helix, ImageRefs, ParticleSet

Version = Literal["3.0", "3.1", "5"]
COMMENTS: dict[str, tuple[str, ...]] = {"3.0": (), "3.1": ("version 30001",), "5": ("version 50001",)}
# What RELION prints.
_DIGITS = 6
_ROWS_A_CHUNK = 1 << 18
_MAGNIFICATION = 10_000
_DIMENSIONALITY = 2
_NAME = "rlnOpticsGroupName"
_TILT = "optics.aberrations.beam_tilt_A"


@dataclass(frozen=True, kw_only=True)
class StarContent(FileContent):
    """What becomes of a particle set in a STAR file.

    Parameters
    ----------
    blocks
        To be written.
    """

    blocks: tuple[StarBlock, ...]


def star_content(
    particles: ParticleSet,
    *,
    version: Version = "3.1",
    aberrations: bool = True,
    odd: Odd = "as-derived",
    shares_names: bool = False,
    has_images: bool = True,
) -> StarContent:
    """Turn particles into the blocks of a STAR file.

    Angles are the Euler angles of the matrices in degrees, shifts ångström (3.1 and 5) or pixels of the image
    (3.0). Optics groups that have particles are numbered from 1. Half sets of 2D alignments are left out, and those
    with which RELION's refinement would stop.

    Parameters
    ----------
    particles
        Whose coordinates are pixels of RELION's micrographs.
    version
        The layout.
    aberrations, odd
        Of files that are not RELION's: whether beam tilt, trefoil, tetrafoil and magnification are written, and the
        sign of the first two (see `cryobridge.formats.aberrations`).
    shares_names
        Whether several optics groups may have one name, as in files of RELION that name them; else each gets a name of
        its own.
    has_images
        Whether images are needed; particles that are to be extracted again have none.

    Raises
    ------
    MissingDataError
        If there are no images, or RELION needs an optics value that is not known.
    FormatError
        If a pose, shift, CTF value or coordinate is not a number.
    """
    if particles.images is None and has_images:
        raise MissingDataError(
            "image references are missing",
            path=particles.source,
            hint="blob/path and blob/idx, or rlnImageName, are needed; give the file that has them as another input.",
        )
    refuse_unusable(particles)
    messages = half_sets_left_out(particles.half_set)
    has_half_sets = not messages
    messages += zero_defocus(particles)
    is_3_0 = version == "3.0"
    require_optics(
        particles, [item for item in needed("ctf", "image") if item.is_in_3_0 or not is_3_0], ", which RELION needs"
    )
    source = particles
    keeps_own = _has_own_aberrations(particles) and not is_3_0
    if not keeps_own:
        is_relions = particles.extra is not None and particles.extra.program == "relion"
        particles, found = folded(particles) if is_relions else chosen(particles, aberrations=aberrations, odd=odd)
        messages += found
    optics, group = _used_optics(particles)
    own = _aberration_columns(particles, optics, keeps_own=keeps_own, has_zernike=not is_3_0)
    of_optics = {**_optics_columns(optics, is_3_0=is_3_0), **own}
    columns = {**_image_columns(particles), **_pose_columns(particles, optics, group, version)}
    columns |= plain_columns(particles, is_3_0=is_3_0)
    if not has_half_sets:
        del columns[HALF_SETS]
    blocks = []
    if is_3_0:
        others = [name for name in own if name not in BEAM_TILT]
        messages += premultiplied(particles, "RELION 3.0")
        columns |= {name: values[group] for name, values in of_optics.items() if name not in others}
    else:
        others = []
        of_optics = {
            "rlnOpticsGroup": np.arange(1, len(optics) + 1),
            _NAME: list(optics.name) if shares_names or _has_own_names(particles) else group_names(optics),
        } | of_optics
        table = pa.table({name: star_column(values) for name, values in of_optics.items()})
        blocks.append(StarBlock(Path(), "optics", table, comments=COMMENTS[version]))
        columns["rlnOpticsGroup"] = group + 1
    extra = particles.extra
    if extra is not None and extra.program == "relion":
        carried, found = fits_for_relion(extra.read(), "particle")
        messages += found
        columns |= {name: values for name, values in carried.items() if name not in columns}
    table = pa.table({name: star_column(values) for name, values in columns.items()})
    blocks.append(StarBlock(Path(), "" if is_3_0 else "particles", table, comments=COMMENTS[version]))
    only = [_TILT for name in own if name in BEAM_TILT] if is_3_0 else None
    bent = NAMES if keeps_own else held_after(aberrations=aberrations, odd=odd, only=only)
    held = _held({*of_optics, *columns} - set(others), is_3_0=is_3_0) - NAMES | bent
    if np.any(optics.box_px % 2):
        said = "refuses in the layout of 3.0" if is_3_0 else "reads in this layout and refuses in that of 3.0"
        messages.append(warning("odd-box", f"a box of an odd number of pixels, which RELION {said}"))
    messages += left_out(source, held, f"RELION {version}", aberrations=aberrations, odd=odd)
    dropped = dropped_columns(source, held, "relion")
    dropped = tuple(dict.fromkeys((*dropped, *others)))
    return StarContent(
        blocks=tuple(blocks),
        held=held,
        dropped_columns=dropped,
        messages=tuple(messages),
        keeps_aberrations=keeps_own,
    )


def _held(written: set[str], *, is_3_0: bool) -> frozenset[str]:
    """Return the quantities that are among the columns."""
    held = {item.name for item in FIELDS if not written.isdisjoint(numbered(item.columns("relion"), written))}
    if "helix.tube" in held:  # the number of a filament stands for its uid
        held.add("helix.uid")
    # RELION 3.0 has the pixel size and shifts elsewhere.
    return frozenset(held | ({"optics.pixel_size_A", "poses.shift_A"} if is_3_0 else set()))


def _used_optics(particles: ParticleSet) -> tuple[Optics, NDArray[np.int64]]:
    """Return the optics groups that have particles, and each particle's place among them."""
    assert particles.optics is not None and particles.optics_index is not None  # checked before
    if len(particles) == 0:
        return particles.optics, np.zeros(0, np.int64)
    is_used = np.bincount(particles.optics_index, minlength=len(particles.optics)) > 0
    place = np.cumsum(is_used) - 1
    return particles.optics.take(np.flatnonzero(is_used)), place[particles.optics_index]


def _has_own_names(particles: ParticleSet) -> bool:
    """Whether the optics groups are named by a file of RELION, which compares names as texts."""
    return particles.extra is not None and particles.extra.program == "relion" and _NAME in particles.extra.of_file


def _has_own_aberrations(particles: ParticleSet) -> bool:
    """Whether the particles bring RELION's columns of them along, which are copied as they stand."""
    extra = particles.extra
    return extra is not None and extra.program == "relion" and not extra.optics.keys().isdisjoint(RELION_COLUMNS)


def _aberration_columns(
    particles: ParticleSet, optics: Optics, *, keeps_own: bool, has_zernike: bool
) -> dict[str, Any]:
    """Return RELION's optics columns for what bends the CTF, and whatever else a STAR file's optics had."""
    extra, index = particles.extra, particles.optics_index
    used = slice(None) if index is None or not len(index) else np.flatnonzero(np.bincount(index) > 0)
    own: dict[str, Any] = {}
    if extra is not None and extra.program == "relion":
        own = {name: np.asarray(values)[used] for name, values in extra.optics.items()}
    if not keeps_own:
        own = {name: values for name, values in own.items() if name not in RELION_COLUMNS}
        made = {} if optics.aberrations is None else to_relion(optics.aberrations, optics, has_zernike=has_zernike)
        return own | made
    if all(name in own for name in MAGNIFICATION):
        matrix = np.stack([own[name] for name in MAGNIFICATION], axis=1).reshape(-1, 2, 2).astype(np.float64)
        singular = is_singular(matrix)
        if singular.any():
            matrix[singular] = np.eye(2)
            own |= dict(zip(MAGNIFICATION, matrix.reshape(-1, 4).T, strict=True))
    return own


def _optics_columns(optics: Optics, *, is_3_0: bool) -> dict[str, Array]:
    """Return what is said of each optics group, (g,); of RELION 3.0, which has the pixel size elsewhere, too."""
    n = len(optics)
    columns: dict[str, Any] = {}
    for item in fields_of("optics"):
        values = None if item.is_coded else getattr(optics, item.key)
        if values is None or not item.columns("relion") or (is_3_0 and not item.is_in_3_0):
            continue
        if item.needed_for or not np.isnan(values).any():
            columns[item.columns("relion")[0]] = values
    if is_3_0:
        del columns[field("optics.pixel_size_A").columns("relion")[0]]
        sizes = (np.full(n, _MAGNIFICATION), optics.pixel_size_A * (_MAGNIFICATION / 1e4))
        return columns | dict(zip(PIXEL_SIZE_3_0, sizes, strict=True))
    return columns | {DIMENSIONALITY: np.full(n, _DIMENSIONALITY)}


def _image_columns(particles: ParticleSet) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    if particles.images is not None:
        columns["rlnImageName"] = image_names(particles.images)
    locations = particles.locations
    if locations is not None:
        x, y = round_px(locations.coordinate_px).T
        columns |= dict(zip(field("locations").columns("relion"), (locations.micrograph, x, y), strict=True))
    return columns


def plain_columns(particles: ParticleSet, *, is_3_0: bool) -> dict[str, Any]:
    """Return the quantities of each particle that one column holds, latent coordinates, and the columns of the user."""
    columns: dict[str, Any] = {}
    for item in FIELDS:
        values = None if item.is_coded or item.is_of_optics else particles.get(item.name)
        if values is None or not item.columns("relion") or (is_3_0 and not item.is_in_3_0):
            continue
        unit = item.star_unit
        # What is judged by an absolute difference is printed with fixed digits: the shortest text of a single-precision
        # defocus is off by half of its last digit, 5e-4 Å.
        has_fixed_digits = unit is not None or item.part == "helix" or item.tolerance is not None
        is_rounded = item.kind == "float" and has_fixed_digits
        values = values if unit is None else unit.from_model(values)
        columns[item.columns("relion")[0]] = _rounded(values) if is_rounded else values
    if particles.latent is not None:
        columns |= latent_columns(particles.latent, "relion")
    described = {item.key for item in FIELDS if item.part == "columns"}
    return columns | {name: values for name, values in particles.columns.items() if name not in described}


def image_names(images: ImageRefs) -> pa.ChunkedArray:
    """Return ``000001@stack``, in chunks, of which each stays below what Arrow's texts hold."""
    paths = texts_to_arrow(images.path.values)
    at = texts_to_arrow(["@"])[0]
    chunks = []
    for first in range(0, len(images.index), _ROWS_A_CHUNK):
        chosen = slice(first, first + _ROWS_A_CHUNK)
        number = numbers_to_arrow(images.index[chosen] + 1).cast(pa.string())
        path = paths.take(numbers_to_arrow(images.path.codes[chosen]))
        chunks.append(pc.binary_join_element_wise(pc.utf8_lpad(number, _DIGITS, "0"), path, at))
    return pa.chunked_array(chunks, pa.string())


def _pose_columns(
    particles: ParticleSet, optics: Optics, group: NDArray[np.int64], version: Version
) -> dict[str, Floats]:
    columns: dict[str, Any] = {} if particles.helix is None else _helical_priors(particles, particles.helix)
    if particles.poses is None:
        return columns
    angles = matrix_to_euler(particles.poses.matrix)
    names = field("poses.matrix").columns("relion")
    columns |= {name: _rounded(angle) for name, angle in zip(names, angles, strict=True)}
    shift = particles.poses.shift_A
    if shift is None:
        return columns
    names = field("poses.shift_A").columns("relion")
    if version == "3.0":
        shift, names = shift_A_to_px(shift, optics.pixel_size_A[group]), tuple(field("poses.shift_A").star_also)
    return columns | {name: _rounded(values) for name, values in zip(names, shift.T, strict=True)}


def _helical_priors(particles: ParticleSet, helix: Helix) -> dict[str, Any]:
    """Return the priors of filaments; those of a STAR file are among its other columns, cryoSPARC's are made here.

    The prior on psi is minus the direction of the line through a filament's segments, in the frame of the images.
    """
    columns: dict[str, Any] = {}
    if particles.extra is not None and particles.extra.program == "cryosparc":
        n = len(helix.tube)
        columns |= {"rlnAngleTiltPrior": np.full(n, 90.0), "rlnAnglePsiFlipRatio": np.full(n, 0.5)}
        if particles.locations is not None:
            code = tube_codes(particles.locations.micrograph.codes, helix.tube)
            direction = direction_rad(_in_image_frame(particles), helix.track_length_A, code)
            columns["rlnAnglePsiPrior"] = _rounded(-np.degrees(direction))
    return columns


def _in_image_frame(particles: ParticleSet) -> Floats:
    """Return the coordinates (n, 2) in the frame in which the images were cut out."""
    assert particles.locations is not None
    found = particles.locations.image_frame_px
    return particles.locations.coordinate_px if found is None else found


def _rounded(values: Floats) -> Floats:
    """Round what was computed to the digits that RELION prints."""
    return rounded(values, _DIGITS)


def star_column(values: Any) -> Any:
    """Return a column for Arrow; floats that came from a file of single precision as such, for fewer digits."""
    if isinstance(values, pa.ChunkedArray):
        return values
    if isinstance(values, Labels):
        return pa.DictionaryArray.from_arrays(numbers_to_arrow(values.codes), texts_to_arrow(values.values))
    if not isinstance(values, np.ndarray) or values.dtype.kind == "O":
        return texts_to_arrow(list(values))
    if values.dtype == np.float64:
        with np.errstate(over="ignore", invalid="ignore"):
            single = values.astype(np.float32)
        if np.array_equal(single.astype(np.float64), values, equal_nan=True):
            return numbers_to_arrow(single)
    return numbers_to_arrow(values)
