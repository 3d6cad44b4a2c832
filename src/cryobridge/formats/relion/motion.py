"""RELION's metadata of the motion of one micrograph, which polishing reads: one STAR file a micrograph.

The columns are those that `relion_run_motioncorr --use_own` of RELION 3.1.3 writes. Shifts are pixels of the movie,
also where micrographs are binned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.errors import FormatError, MissingDataError
from cryobridge.formats.relion.star import StarBlock, StarFile, open_star
from cryobridge.formats.relion.star_write import write_star
from cryobridge.model.motion import LONGEST_SHIFT, N_COEFFICIENTS, NOT_FOUND, MotionModel, patch_centres
from cryobridge.model.particles import Labels

if TYPE_CHECKING:
    from pathlib import Path

    from cryobridge.model.particles import Floats

GENERAL, GLOBAL, LOCAL_MODEL, LOCAL = "general", "global_shift", "local_motion_model", "local_shift"
_VERSION = ("version 30001",)
# What RELION prints; coefficients of the third power of time are small and are multiplied by large numbers.
_DIGITS = 6
_COEFFICIENT_DIGITS = 10
_FRAME, _X, _Y = "rlnMicrographFrameNumber", "rlnMicrographShiftX", "rlnMicrographShiftY"
_AGAIN = "Write the metadata again, or run motion correction again."
_POLYNOMIAL = 1
# What a size, a dose, or a number of frames may be at most, and letters of one that is none.
_LARGEST, _N_SHOWN = 1e9, 40


@dataclass(frozen=True, kw_only=True)
class MotionMetadata:
    """What RELION's polishing knows of one movie.

    Parameters
    ----------
    motion
        Shifts of the frames.
    movie
        The movie, as RELION finds it from its project.
    pixel_size_A
        Of the movie.
    dose_per_frame_e_A2, pre_exposure_e_A2
        Dose of a frame, and before the first one; RELION takes a dose that is missing as -1 in silence.
    voltage_kV
        Of the microscope; None where it is not known, and RELION takes that of the particles.
    gain
        The gain reference in MRC, in the rows that RELION reads of the movie, or None where the movie needs none.
    binning
        Pixels of the movie along one of the micrograph.
    patches_px
        (n, n_y, n_x, 2) local shifts at the centres of patches, of the frames that are used, for people: RELION does
        not read them.
    eer_upsampling, eer_grouping
        Of EER movies: 1 for 4K and 2 for 8K, and detector frames that make one frame.
    """

    motion: MotionModel
    movie: str
    pixel_size_A: float
    dose_per_frame_e_A2: float
    voltage_kV: float | None = None
    pre_exposure_e_A2: float = 0.0
    gain: str | None = None
    binning: float = 1.0
    patches_px: Floats | None = None
    eer_upsampling: int | None = None
    eer_grouping: int | None = None


def write_motion(path: Path, metadata: MotionMetadata) -> None:
    """Write the metadata of one micrograph.

    Raises
    ------
    FormatError
        If a name can't stand in a STAR file.
    """
    write_star(path, motion_blocks(metadata))


def motion_blocks(metadata: MotionMetadata) -> list[StarBlock]:
    """Return the blocks of the STAR file of one micrograph."""
    motion = metadata.motion
    whole = np.where(np.isfinite(motion.global_px), motion.global_px, NOT_FOUND).round(_DIGITS) + 0.0
    shifts = {_FRAME: np.arange(1, motion.n_frames + 1), _X: whole[:, 0], _Y: whole[:, 1]}
    blocks = [
        StarBlock.from_columns(GENERAL, _general(metadata), is_loop=False, comments=_VERSION),
        StarBlock.from_columns(GLOBAL, shifts, comments=_VERSION),
    ]
    if motion.coefficients is not None:
        coefficients = _rounded(motion.coefficients.ravel())
        columns = {"rlnMotionModelCoeffsIdx": np.arange(len(coefficients)), "rlnMotionModelCoeff": coefficients}
        blocks.append(StarBlock.from_columns(LOCAL_MODEL, columns, comments=_VERSION))
    if metadata.patches_px is not None:
        blocks.append(StarBlock.from_columns(LOCAL, _local(motion, metadata.patches_px), comments=_VERSION))
    return blocks


def _general(metadata: MotionMetadata) -> dict[str, Any]:
    motion = metadata.motion
    values: dict[str, str | float | None] = {
        "rlnImageSizeX": motion.shape_px[1],
        "rlnImageSizeY": motion.shape_px[0],
        "rlnImageSizeZ": motion.n_frames,
        "rlnMicrographMovieName": metadata.movie,
        "rlnMicrographGainName": metadata.gain,
        "rlnMicrographBinning": metadata.binning,
        "rlnMicrographOriginalPixelSize": metadata.pixel_size_A,
        "rlnMicrographDoseRate": metadata.dose_per_frame_e_A2,
        "rlnMicrographPreExposure": metadata.pre_exposure_e_A2,
        "rlnVoltage": metadata.voltage_kV,
        "rlnMicrographStartFrame": motion.first_frame,
        "rlnMotionModelVersion": 0 if motion.coefficients is None else _POLYNOMIAL,
        "rlnEERUpsampling": metadata.eer_upsampling,
        "rlnEERGrouping": metadata.eer_grouping,
    }
    # Texts as labels are not looked up in the tables of columns, which takes long for so small a file.
    return {
        label: Labels.of([value]) if isinstance(value, str) else [round(value, _DIGITS)]
        for label, value in values.items()
        if value is not None
    }


def _rounded(coefficients: Floats) -> Floats:
    """Return numbers with as many digits as their size needs."""
    size = np.floor(np.log10(np.maximum(np.abs(coefficients), 1e-300)))
    scale = 10.0 ** np.clip(_COEFFICIENT_DIGITS - 1 - size, -300, 300)
    rounded: Floats = np.where(size > -30, np.round(coefficients * scale) / scale, 0.0)
    return rounded


def _local(motion: MotionModel, patches_px: Floats) -> dict[str, Any]:
    n, n_y, n_x, _ = patches_px.shape
    y, x = patch_centres(n_y, n_x)
    ny, nx = motion.shape_px
    shifts = patches_px.transpose(1, 2, 0, 3).reshape(-1, 2).round(4) + 0.0  # frames of a patch follow each other
    return {
        _FRAME: np.tile(np.arange(n) + motion.first_frame, n_y * n_x),
        "rlnCoordinateX": np.tile(np.repeat((x * nx).round(2), n), n_y),
        "rlnCoordinateY": np.repeat((y * ny).round(2), n * n_x),
        _X: shifts[:, 0],
        _Y: shifts[:, 1],
    }


def read_motion(path: Path) -> MotionMetadata:
    """Read the metadata of one micrograph, and refuse what RELION takes in silence or breaks off at.

    Raises
    ------
    MissingDataError
        If a value is missing without which RELION stops, or computes something else in silence, such as the dose rate.
    FormatError
        If frames or coefficients are not as many as the file says, or values are not numbers.
    """
    star = open_star(path)
    for name in (GENERAL, GLOBAL):
        if name not in star:
            raise MissingDataError(f"data_{name} is missing", path=path, hint=_AGAIN)
    general = _General(star[GENERAL], path)
    version = general.whole("rlnMotionModelVersion", 0, low=0)
    if version not in (0, _POLYNOMIAL):
        raise FormatError(f"motion model {version} is not known; 0 and 1 are", path=path, hint=_AGAIN)
    shape = (general.whole("rlnImageSizeY"), general.whole("rlnImageSizeX"))
    first = general.whole("rlnMicrographStartFrame", 1)
    motion = MotionModel(
        _global(star, general.whole("rlnImageSizeZ")), shape, _coefficients(star) if version else None, first
    )
    return MotionMetadata(
        motion=motion,
        movie=general.text("rlnMicrographMovieName"),
        pixel_size_A=general.number("rlnMicrographOriginalPixelSize"),
        dose_per_frame_e_A2=general.number("rlnMicrographDoseRate"),
        voltage_kV=general.number("rlnVoltage") if "rlnVoltage" in general else None,
        pre_exposure_e_A2=general.number("rlnMicrographPreExposure", 0.0),
        gain=general.text("rlnMicrographGainName") if "rlnMicrographGainName" in general else None,
        binning=general.number("rlnMicrographBinning", 1.0),
        eer_upsampling=general.whole("rlnEERUpsampling") if "rlnEERUpsampling" in general else None,
        eer_grouping=general.whole("rlnEERGrouping") if "rlnEERGrouping" in general else None,
    )


@dataclass(frozen=True)
class _General:
    """The values that stand once in the file."""

    block: StarBlock
    path: Path

    def __contains__(self, label: str) -> bool:
        return label in self.block

    def text(self, label: str) -> str:
        """Return a name."""
        return str(self._value(label, None))

    def number(self, label: str, default: float | None = None) -> float:
        """Return a number of a size that things have."""
        value = self._value(label, default)
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if not abs(number) <= _LARGEST:  # nor NaN
            raise self._unusable(label, value)
        return number

    def whole(self, label: str, default: int | None = None, *, low: int = 1) -> int:
        """Return a whole number."""
        number = self.number(label, default)
        if not (number.is_integer() and number >= low):
            raise self._unusable(label, self._value(label, default))
        return int(number)

    def _value(self, label: str, default: float | None) -> Any:
        if label in self.block and self.block.n_rows:
            return self.block.value(label)
        if default is None:
            raise MissingDataError(f"{label} is missing", path=self.path, field=f"data_{GENERAL}", hint=_AGAIN)
        return default

    def _unusable(self, label: str, value: Any) -> FormatError:
        text = f"{label} is {str(value)[:_N_SHOWN]!r}, which RELION can't use"
        return FormatError(text, path=self.path, field=f"data_{GENERAL}", hint=_AGAIN)


def _global(star: StarFile, n_frames: int) -> Floats:
    block = star[GLOBAL]
    frames, x, y = (np.asarray(values, np.float64) for values in block.read([_FRAME, _X, _Y]).values())
    if len(frames) != n_frames or not np.array_equal(frames, np.arange(1, n_frames + 1)):
        raise FormatError(
            f"shifts of {len(frames)} frames, and {n_frames} are in the movie",
            path=star.path,
            field=f"data_{GLOBAL}",
            hint="RELION needs one row for each frame, in order. " + _AGAIN,
        )
    shifts = np.stack([x, y], axis=1)
    is_used = (shifts != NOT_FOUND).all(axis=1)
    if not (np.abs(shifts[is_used]) <= LONGEST_SHIFT).all():  # nor NaN
        raise FormatError(
            "shifts that are no numbers, or that no frame has", path=star.path, field=f"data_{GLOBAL}", hint=_AGAIN
        )
    shifts[~is_used] = np.nan
    return shifts


def _coefficients(star: StarFile) -> Floats:
    if LOCAL_MODEL not in star:
        raise MissingDataError(f"data_{LOCAL_MODEL} is missing", path=star.path, hint=_AGAIN)
    block = star[LOCAL_MODEL]
    labels = ("rlnMotionModelCoeffsIdx", "rlnMotionModelCoeff")
    index, values = (np.asarray(values, np.float64) for values in block.read(labels).values())
    if sorted(index.tolist()) != list(range(2 * N_COEFFICIENTS)) or not np.isfinite(values).all():
        raise FormatError(
            f"{len(values)} coefficients; {2 * N_COEFFICIENTS} are needed, each a number",
            path=star.path,
            field=f"data_{LOCAL_MODEL}",
            hint=_AGAIN,
        )
    return values[np.argsort(index)].reshape(2, N_COEFFICIENTS)
