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
from cryobridge.formats.aberrations import MAGNIFICATION, RELION_COLUMNS, is_singular, to_relion
from cryobridge.formats.arrow import numbers_to_arrow, texts_to_arrow
from cryobridge.formats.helical import direction_rad, tube_codes
from cryobridge.formats.optics import group_names, require_optics
from cryobridge.formats.relion.star import StarBlock
from cryobridge.model.geometry import matrix_to_euler, shift_A_to_px
from cryobridge.model.particles import Labels, Optics
from cryobridge.report import Message, warning

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryobridge.formats.table import Array
    from cryobridge.model.particles import CTF, Floats, Helix, ImageRefs, ParticleSet

Version = Literal["3.0", "3.1", "5"]
_COMMENTS: dict[str, tuple[str, ...]] = {"3.0": (), "3.1": ("version 30001",), "5": ("version 50001",)}
# What RELION prints.
_DIGITS = 6
_ROWS_A_CHUNK = 1 << 18
# RELION 3.0 has the pixel size as detector pixel (µm) over magnification.
_MAGNIFICATION = 10_000
_REQUIRED = {
    "voltage_kV": "rlnVoltage",
    "spherical_aberration_mm": "rlnSphericalAberration",
    "amplitude_contrast": "rlnAmplitudeContrast",
    "pixel_size_A": "rlnImagePixelSize",
    "box_px": "rlnImageSize",
}
_DIMENSIONALITY = 2


@dataclass(frozen=True)
class StarContent:
    """What becomes of a particle set in a STAR file.

    Parameters
    ----------
    blocks
        To be written.
    dropped_columns
        Columns of the source that RELION has no place for.
    messages
        What may make RELION refuse the file or go wrong with it.
    """

    blocks: tuple[StarBlock, ...]
    dropped_columns: tuple[str, ...]
    messages: tuple[Message, ...]


def star_content(particles: ParticleSet, *, version: Version = "3.1", aberrations: bool = False) -> StarContent:
    """Turn particles into the blocks of a STAR file.

    Angles are the Euler angles of the matrices in degrees, shifts ångström (3.1 and 5) or pixels of the image
    (3.0). Optics groups that have particles are numbered from 1. Half sets of 2D alignments are left out.

    Parameters
    ----------
    particles
        Whose coordinates are pixels of RELION's micrographs.
    version
        The layout.
    aberrations
        Write beam tilt, trefoil, tetrafoil and magnification of cryoSPARC's files too, whose signs are not
        established.

    Raises
    ------
    MissingDataError
        If there are no images, or RELION needs an optics value that is not known.
    """
    if particles.images is None:
        raise MissingDataError(
            "nothing says where the images are",
            path=particles.source,
            hint="blob/path and blob/idx, or rlnImageName, are needed; give the file that has them as another input.",
        )
    messages: list[Message] = []
    require_optics(particles, _REQUIRED, ", which RELION needs")
    optics, group = _used_optics(particles)
    own = _aberration_columns(particles, optics, aberrations=aberrations, messages=messages)
    held = ("rlnBeamTiltX", "rlnBeamTiltY") if version == "3.0" else tuple(own)
    columns = {**_image_columns(particles), **_pose_columns(particles, optics, group, version)}
    if particles.ctf is not None:
        columns |= _ctf_columns(particles.ctf)
    columns |= _assignment_columns(particles)
    blocks = []
    if version == "3.0":
        per_row = {**_lens_columns(optics), **{name: own[name] for name in held if name in own}}
        columns |= {name: values[group] for name, values in per_row.items()}
    else:
        blocks.append(_optics_block(optics, own, _COMMENTS[version]))
        columns["rlnOpticsGroup"] = group + 1
    extra = particles.extra
    if extra is not None and extra.program == "relion":
        columns |= {name: values for name, values in extra.read().items() if name not in columns}
    table = pa.table({name: _to_arrow(values) for name, values in columns.items()})
    name = "" if version == "3.0" else "particles"
    blocks.append(StarBlock(Path(), name, table, comments=_COMMENTS[version]))
    dropped = (*_not_held(particles, aberrations=aberrations), *(name for name in own if name not in held))
    if version == "3.0":
        dropped = (*_groups_not_held(particles, optics), *dropped)
    if np.any(optics.box_px % 2):
        messages.append(warning("odd-box", "a box of an odd number of pixels, which RELION refuses"))
    return StarContent(tuple(blocks), dropped, tuple(messages))


def _not_held(particles: ParticleSet, *, aberrations: bool) -> tuple[str, ...]:
    names: list[str] = []
    if particles.extra is not None and particles.extra.program == "cryosparc":
        names += particles.extra.names
        if particles.class_posterior is not None:
            names.append("class_posterior")
        is_bent = particles.optics is not None and particles.optics.aberrations is not None
        if is_bent and not aberrations:
            names += ["ctf/tilt_A", "ctf/trefoil_A", "ctf/tetra_A", "ctf/anisomag"]
    if particles.uid is not None:
        names.insert(0, "uid")
    return tuple(names)


def _groups_not_held(particles: ParticleSet, optics: Optics) -> list[str]:
    """Name what RELION 3.0, which has no optics groups, has no place for."""
    program = None if particles.extra is None else particles.extra.program
    has_groups, has_box = bool(optics.group_id.any()), bool(optics.box_px.any())
    if program == "cryosparc":
        return [
            *(["ctf/exp_group_id"] if has_groups else []),
            *(["blob/shape"] if has_box else []),
            *(["location/micrograph_psize_A"] if optics.micrograph_pixel_size_A is not None else []),
        ]
    if program is None:
        return ["box"]
    if not has_groups:  # files of 3.0 itself
        return []
    has_names = any(name != str(number) for name, number in zip(optics.name, optics.group_id, strict=True))
    return [
        *("rlnOpticsGroup", *(["rlnOpticsGroupName"] if has_names else [])),
        *(["rlnImageSize"] if has_box else []),
        *_micrograph_pixels(optics),
    ]


def _used_optics(particles: ParticleSet) -> tuple[Optics, NDArray[np.int64]]:
    """Return the optics groups that have particles, and each particle's place among them."""
    assert particles.optics is not None and particles.optics_index is not None  # checked before
    if len(particles) == 0:
        return particles.optics, np.zeros(0, np.int64)
    is_used = np.bincount(particles.optics_index, minlength=len(particles.optics)) > 0
    place = np.cumsum(is_used) - 1
    return particles.optics.take(np.flatnonzero(is_used)), place[particles.optics_index]


def _aberration_columns(
    particles: ParticleSet, optics: Optics, *, aberrations: bool, messages: list[Message]
) -> dict[str, Any]:
    """Return RELION's optics columns for what bends the CTF, and whatever else a STAR file's optics had."""
    extra = particles.extra
    if extra is None or extra.program != "relion":
        if not aberrations or optics.aberrations is None:
            return {}
        text = "aberrations are written as the formulas give them; check the signs by refining them in RELION"
        messages.append(warning("aberration-signs", text))
        return to_relion(optics.aberrations, optics.voltage_kV)
    index = particles.optics_index
    chosen = slice(None) if index is None or not len(index) else np.flatnonzero(np.bincount(index) > 0)
    own: dict[str, Any] = {name: np.asarray(values)[chosen] for name, values in extra.optics.items()}
    if all(name in own for name in MAGNIFICATION):
        matrix = np.stack([own[name] for name in MAGNIFICATION], axis=1).reshape(-1, 2, 2).astype(np.float64)
        singular = is_singular(matrix)
        if singular.any():
            matrix[singular] = np.eye(2)
            own |= dict(zip(MAGNIFICATION, matrix.reshape(-1, 4).T, strict=True))
    if optics.aberrations is not None and not any(name in own for name in RELION_COLUMNS):
        own |= to_relion(optics.aberrations, optics.voltage_kV)
    return own


def _optics_block(optics: Optics, own: Mapping[str, Any], comments: tuple[str, ...]) -> StarBlock:
    n = len(optics)
    columns: dict[str, Any] = {
        "rlnOpticsGroup": np.arange(1, n + 1),
        "rlnOpticsGroupName": group_names(optics),
        "rlnVoltage": optics.voltage_kV,
        "rlnSphericalAberration": optics.spherical_aberration_mm,
        "rlnAmplitudeContrast": optics.amplitude_contrast,
        "rlnImagePixelSize": optics.pixel_size_A,
        "rlnImageSize": optics.box_px,
        "rlnImageDimensionality": np.full(n, _DIMENSIONALITY),
        **_micrograph_pixels(optics),
        **own,
    }
    table = pa.table({name: _to_arrow(values) for name, values in columns.items()})
    return StarBlock(Path(), "optics", table, comments=comments)


def _micrograph_pixels(optics: Optics) -> dict[str, Floats]:
    sizes = {
        "rlnMicrographPixelSize": optics.micrograph_pixel_size_A,
        "rlnMicrographOriginalPixelSize": optics.movie_pixel_size_A,
    }
    return {name: values for name, values in sizes.items() if values is not None and not np.isnan(values).any()}


def _lens_columns(optics: Optics) -> dict[str, Array]:
    """Return the optics of RELION 3.0, which stand with each particle."""
    return {
        "rlnVoltage": optics.voltage_kV,
        "rlnSphericalAberration": optics.spherical_aberration_mm,
        "rlnAmplitudeContrast": optics.amplitude_contrast,
        "rlnMagnification": np.full(len(optics), _MAGNIFICATION),
        "rlnDetectorPixelSize": optics.pixel_size_A * (_MAGNIFICATION / 1e4),
    }


def _image_columns(particles: ParticleSet) -> dict[str, Any]:
    assert particles.images is not None  # checked before
    columns: dict[str, Any] = {"rlnImageName": image_names(particles.images)}
    locations = particles.locations
    if locations is not None:
        columns["rlnMicrographName"] = locations.micrograph
        columns["rlnCoordinateX"] = _rounded(locations.coordinate_px[:, 0])
        columns["rlnCoordinateY"] = _rounded(locations.coordinate_px[:, 1])
    if particles.pick_score is not None:
        columns["rlnAutopickFigureOfMerit"] = particles.pick_score
    return columns


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
    columns: dict[str, Any] = {} if particles.helix is None else _helical_columns(particles, particles.helix)
    if particles.poses is None:
        return columns
    angles = matrix_to_euler(particles.poses.matrix)
    names = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
    columns |= {name: _rounded(angle) for name, angle in zip(names, angles, strict=True)}
    shift = particles.poses.shift_A
    if shift is None:
        return columns
    suffix = "Angst"
    if version == "3.0":
        shift, suffix = shift_A_to_px(shift, optics.pixel_size_A[group]), ""
    return columns | {f"rlnOrigin{axis}{suffix}": _rounded(shift[:, place]) for place, axis in enumerate("XY")}


def _helical_columns(particles: ParticleSet, helix: Helix) -> dict[str, Any]:
    """Return the filaments; priors of a STAR file are among its other columns, cryoSPARC's are made here.

    The prior on psi is minus the direction of the line through a filament's segments, in the frame of the images.
    """
    columns: dict[str, Any] = {"rlnHelicalTubeID": helix.tube}
    if helix.track_length_A is not None:
        columns["rlnHelicalTrackLengthAngst"] = _rounded(helix.track_length_A)
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


def _ctf_columns(ctf: CTF) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "rlnDefocusU": _rounded(ctf.defocus_u_A),
        "rlnDefocusV": _rounded(ctf.defocus_v_A),
        "rlnDefocusAngle": _rounded(np.degrees(ctf.defocus_angle_rad)),
    }
    if ctf.phase_shift_rad is not None:
        columns["rlnPhaseShift"] = _rounded(np.degrees(ctf.phase_shift_rad))
    if ctf.bfactor_A2 is not None:
        columns["rlnCtfBfactor"] = ctf.bfactor_A2
    if ctf.scale is not None:
        columns["rlnCtfScalefactor"] = ctf.scale
    return columns


def _assignment_columns(particles: ParticleSet) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    if particles.class_number is not None:
        columns["rlnClassNumber"] = particles.class_number
    if particles.half_set is not None:
        columns["rlnRandomSubset"] = particles.half_set
    return columns


def _rounded(values: Floats) -> Floats:
    """Round what was computed to the digits that RELION prints."""
    rounded: Floats = np.round(values, _DIGITS) + 0.0  # no negative zero
    return rounded


def _to_arrow(values: Any) -> Any:
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
